"""Names and texts that a shell, Snakemake, Python, LaTeX or a browser could take for their own."""

import csv
import html

import numpy as np
import pytest
import tifffile
import yaml
from snakemake_call import call_here

TEXT = (
    """$(touch pwned) `touch pwned`; touch pwned & '" | touch pwned # %s {input} <results> \\n é"""
)
FOLDER = "-x $(touch pwned); touch pwned & `touch pwned` 'a' \"b\" %s * ? [c] é e\u0301 ~ #"
IMAGES = [
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)<script>',
    "$(touch pwned)",
    "; touch pwned #",
    "{input} {dataset}",
    "--help -rf",
    "$\\frac{1}{$ %s _^&~",
    "it's é e\u0301 細胞",
]
CONFIG = {
    "title": TEXT,
    "notes": [TEXT, "<script>alert(1)</script>"],
    "datasets": {"mine": {"source": "folder", "images": f"{FOLDER}/i", "masks": f"{FOLDER}/m"}},
    "methods": {"median": {"classical": "median"}},
    "grid": {
        "datasets": ["mine"],
        "noises": ["n20"],
        "methods": ["median"],
        "n_annotated": [],
        "seeds": [1],
        "reference": "median",
    },
    "pathvars": {"results": f"r {FOLDER}"},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study in a folder of that name, of images of such names."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    for kind in ("i", "m"):
        (folder / FOLDER / kind).mkdir(parents=True)
    for name in IMAGES:
        pixels = rng.integers(0, 200, (40, 48)).astype(np.uint8)
        tifffile.imwrite(folder / FOLDER / "i" / f"{name}.tif", pixels)
        labels = np.zeros_like(pixels)
        labels[5:15, 5:15] = 1
        tifffile.imwrite(folder / FOLDER / "m" / f"{name}.tif", labels)
    config = folder / "config 'own' $(touch pwned).yaml"
    config.write_text(yaml.safe_dump(CONFIG, allow_unicode=True), encoding="utf-8")
    call = call_here(folder, "--cores", "2", "--configfile", config, config=None)
    assert call.status == 0, call.screen
    return folder


def test_nothing_was_executed(study):
    assert not list(study.rglob("pwned"))
    assert sorted(path.name for path in study.iterdir()) == sorted(
        [".snakemake", FOLDER, f"r {FOLDER}", "config 'own' $(touch pwned).yaml"]
    )


def test_pages_show_names_as_text(study):
    results = study / f"r {FOLDER}"
    pages = [path.read_text(encoding="utf-8") for path in results.rglob("*.html")]
    assert len(pages) > 2
    for page in pages:
        assert "<img src=x" not in page and "<script>alert" not in page
    report = (results / "report.html").read_text(encoding="utf-8")
    assert html.escape(CONFIG["notes"][1]) in report
    (checks,) = (results / "checks").glob("*.html")
    shown = html.unescape(checks.read_text(encoding="utf-8"))
    assert all(name in shown for name in IMAGES[:-1])


def test_tables_keep_names(study):
    (table,) = (study / f"r {FOLDER}" / "checks").glob("*.csv")
    with table.open(encoding="utf-8", newline="") as file:
        names = {row["image"] for row in csv.DictReader(file)}
    assert set(IMAGES[:-1]) < names and len(names) == len(IMAGES)
