"""What the documentation says is what the code does."""

import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from snakemake.cli import parse_config
from snakemake.utils import update_config
from snakemake_call import dry_run

from denoiseg_flow import cli
from denoiseg_flow.deployment.annotation_round import NEXT
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.study import configuration
from denoiseg_flow.study.feasibility import check_feasible
from denoiseg_flow.study.grid import Grid

ROOT = Path(__file__).parents[3]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [
    *sorted([*ROOT.glob("*.md"), *ROOT.glob("config/*.md"), *ROOT.glob("benchmarks/**/*.md")]),
    *ROOT.glob("results/README.md"),
    *DOCS,
]
METHODS = ROOT / "docs/explanation/methods.md"
OUTPUTS = ROOT / "docs/reference/outputs.md"
LINK = re.compile(r"\]\(([^)\s]+)\)")
NONE = "\N{EN DASH}"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page, language):
    """Code blocks of a page."""
    return [text for name, text in BLOCK.findall(page.read_text()) if name == language]


def sections(page):
    """Text below each heading of a page, up to the next one of any level."""
    parts = re.split(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def table(text):
    """Cells of the rows whose first cell is one name in code, by that name."""
    rows = re.findall(r"^\| `([\w.]+)` \| (.*) \|$", text, re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in rows}


# --- config/README.md ---------------------------------------------------------------------------

COMMON = {"source", "split", "published"}  # keys of every dataset, explained once


@pytest.mark.parametrize(
    ("heading", "definition"),
    [
        ("Top level", None),
        ("grid", "grid"),
        ("predict", "predict"),
        ("datasets", "dataset"),
        ("source: simulate", "simulate"),
        ("source: folder", "folder"),
        ("source: remote", "remote"),
        ("source: combine", "combine"),
        ("split", "split"),
        ("noises", "noise"),
        ("methods", "method"),
        ("recipes", "recipe"),
    ],
)
def test_every_key_is_explained_with_its_default(schema, heading, definition):
    part = schema["$defs"][definition] if definition else schema
    keys = dict(part["properties"])
    if definition == "dataset":
        simulated = schema["$defs"]["simulate"]["properties"]
        keys |= {key: simulated[key] for key in COMMON - {"source"}}
    elif heading.startswith("source: "):
        keys = {key: keys[key] for key in keys if key not in COMMON}
    rows = table(sections(ROOT / "config/README.md")[heading])
    assert set(rows) == set(keys)
    for key, sub in keys.items():
        sub = schema["$defs"][sub["$ref"].removeprefix("#/$defs/")] if "$ref" in sub else sub
        shown, meaning = rows[key]
        assert len(meaning) > 10
        if "default" in sub:
            assert yaml.safe_load(shown.strip("`")) == sub["default"], key
        else:
            assert shown == NONE, key


def test_no_definition_of_the_schema_is_forgotten(schema):
    tested = {
        "grid",
        "predict",
        "dataset",
        "simulate",
        "folder",
        "remote",
        "combine",
        "split",
        "noise",
    }
    simple = {"name", "published_dataset", "binary_masks"}
    simple |= {"axes", "dimensions", "channel", "colour", "repeats", "pixel_size"}
    assert set(schema["$defs"]) == tested | simple | {"method", "recipe"}


# --- docs/explanation/methods.md ----------------------------------------------------------------


def test_recipes_are_shown_as_they_are(read_config, schema):
    text = sections(METHODS)["Recipes"]
    names = re.findall(r"`(\w+)`", text.split("| key |")[1].split("\n")[0])
    recipes = read_config()["recipes"]
    assert names == ["demo", "fast", "finetune", "paper"]
    rows = table(text)
    keys = schema["$defs"]["recipe"]["properties"]
    defaults = {key: spec["default"] for key, spec in keys.items() if "default" in spec}
    for place, name in enumerate(names):
        shown = {key: yaml.safe_load(cells[place]) for key, cells in rows.items()}
        assert shown == defaults | recipes[name], name


def test_methods_are_shown_as_they_are(read_config):
    """Those with a network with their fields, classical ones and segmenters with theirs."""
    text = sections(METHODS)
    learned = table(text["A method is a composition"])
    classical = table(text["Classical denoisers"])
    segmenters = table(text["Segmentation without a network"])
    methods = read_config()["methods"]
    assert set(learned) | set(classical) | set(segmenters) == set(methods)
    for name, fields in methods.items():
        if "classical" in fields:
            assert classical[name][0] == fields["classical"]
            continue
        if "segmenter" in fields:
            assert segmenters[name][:2] == [fields["segmenter"], fields.get("input", "noisy")]
            continue
        method = Method(name, **{key: fields[key] for key in fields if key != "published"})
        masking = method.masking if method.target == "blind_spot" else NONE
        fields = [method.input, method.target, masking, method.network, f"{method.alpha}"]
        assert learned[name][:6] == [*fields, method.init or NONE]


# --- docs/reference/outputs.md ------------------------------------------------------------------

FOLDERS = {
    "<logs>": "<results>/logs",
    "<benchmarks>": "<results>/benchmarks",
    "<results>": "results",
}
VALUES = {"dataset": "nuclei|dsb2018_archive|n_4|n_6", "noise": "n10", "method": "[a-z0-9_]+"}
VALUES |= {"n_annotated": r"\d+", "seed": r"\d+", "image": ".+", "pretrained": "simulated_objects"}


def documented():
    """The parts of each documented path, as patterns."""
    rows = re.findall(r"^\| (`.*?) \| ", OUTPUTS.read_text(), re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`(.*?)`", row)]
    patterns = {}
    for path in paths:
        pattern = path.replace(".", r"\.")
        for short, long in FOLDERS.items():
            pattern = pattern.replace(short, long)
        for name, values in VALUES.items():
            pattern = pattern.replace(f"{{{name}}}", f"({values})")
        # svg and png for {svg,png}
        pattern = re.sub(r"\{([a-z,]+)\}", lambda found: f"({found[1].replace(',', '|')})", pattern)
        patterns[path] = [re.compile(part) for part in pattern.split("/")]
    return patterns


def covers(patterns, path):
    """Whether a path is the documented one, or a folder that the documented one lies in."""
    parts = path.split("/")
    is_folder = "." not in parts[-1]
    if len(parts) > len(patterns) or (len(parts) < len(patterns) and not is_folder):
        return False
    return all(pattern.fullmatch(part) for pattern, part in zip(patterns, parts, strict=False))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """Paths that a study with simulated and downloaded images would write."""
    call = dry_run(
        tmp_path_factory.mktemp("plan"),
        *("--configfile", ROOT / "config/dsb2018.yaml", ROOT / "config/test.yaml"),
        "--config",
        "datasets={n_4: {source: combine, of: [nuclei], n_train: 4}, "
        "n_6: {source: combine, of: [nuclei], n_train: 6}}",
        "grid={datasets: [nuclei, dsb2018_archive, n_4, n_6], "
        "methods: [denoiseg, pretrained, n2v, n2s, median]}",
        "paper=noise2void",
        config=None,
    )
    assert call.status == 0, call.screen
    lists = re.findall(r"^    (?:output|log|benchmark): (.+)$", call.screen, re.MULTILINE)
    made = {re.sub(r" \(.*\)$", "", path) for line in lists for path in line.split(", ")}
    return made | {"results/study.json"}  # which belongs to no job


def test_every_documented_file_is_made(planned):
    for path, patterns in documented().items():
        assert any(covers(patterns, made) for made in planned), path


def test_every_file_that_is_made_is_documented(planned):
    for made in planned:
        assert any(covers(patterns, made) for patterns in documented().values()), made


# --- commands, snippets, links ------------------------------------------------------------------


def commands(pattern):
    """Every command of the pages that begins with a pattern."""
    texts = [text.replace("\\\n", "") for page in PAGES for text in blocks(page, "bash")]
    lines = [line for text in texts for line in text.splitlines()]
    return sorted({line for line in lines if re.match(pattern, line)})


def options(command, name):
    """Values of an option of a command line."""
    words = shlex.split(command, comments=True)
    if name not in words:
        return []
    values = words[words.index(name) + 1 :]
    end = next((place for place, word in enumerate(values) if word.startswith("-")), None)
    return values[:end]


SNAKEMAKE = commands("(time )?snakemake ")
DENOISEG_FLOW = commands("denoiseg-flow ")


def test_there_are_commands():
    assert len(SNAKEMAKE) > 10 and len(DENOISEG_FLOW) > 2


@pytest.mark.parametrize("command", DENOISEG_FLOW)
def test_documented_arguments_are_accepted(command):
    cli.read_arguments(shlex.split(command)[1:])


@pytest.mark.parametrize("command", SNAKEMAKE)
@pytest.mark.usefixtures("elsewhere")
def test_documented_config_is_accepted(command, read_config, schema):
    files = list(map(Path, options(command, "--configfile")))
    own = [file for file in files if file.is_relative_to("config")]
    assert all(file.name == NEXT for file in files if file not in own), "by annotate-next"
    config = read_config(*(str(file.relative_to("config")) for file in own))
    update_config(config, parse_config(options(command, "--config")))
    configuration.read_numbers(config, schema)
    configuration.check(config, schema)
    configuration.fill_defaults(config, schema)
    check_feasible(Grid(config))
    for name in options(command, "--workflow-profile"):
        assert name == "none" or (ROOT / "profiles" / name / "profile.yaml").is_file()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_yaml_snippets_are_accepted(page, read_config, schema):
    for snippet in blocks(page, "yaml"):
        config = read_config()
        update_config(config, yaml.safe_load(snippet))
        configuration.check(config, schema)
        configuration.fill_defaults(config, schema)
        check_feasible(Grid(config))


def test_documented_module_plans_its_jobs(tmp_path, read_config):
    (snippet,) = blocks(ROOT / "docs/how-to/use_as_a_module.md", "python")
    path = "/path/to/denoiseg-flow/Snakefile"
    assert path in snippet
    (tmp_path / "Snakefile").write_text(snippet.replace(path, str(ROOT / "Snakefile")))
    (tmp_path / "config").mkdir()
    shutil.copy(ROOT / "config/config.yaml", tmp_path / "config/denoiseg_flow.yaml")
    call = dry_run(tmp_path, snakefile=tmp_path / "Snakefile")
    assert call.status == 0, call.screen
    assert "output: results/denoiseg_flow/tables/metrics.csv" in call.screen
    assert not re.search(r"(output|log|benchmark): results/(?!denoiseg_flow|n_scores)", call.screen)


def test_graph_shows_the_rules():
    graph = blocks(ROOT / "docs/reference/rules.md", "mermaid")[0]
    shown = set(re.findall(r"(?:^    |> )(\w+)", graph.split("\n", 1)[1], re.MULTILINE))
    files = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    rules = re.findall(r"^rule (\w+):", "\n".join(file.read_text() for file in files), re.MULTILINE)
    assert shown - {"own", "new"} == set(rules)


def test_command_line_page_is_up_to_date():
    """``python docs/reference/command_line.py`` writes it anew."""
    script = ROOT / "docs/reference/command_line.py"
    assert script.with_suffix(".md").read_text() == runpy.run_path(str(script))["render"]()


def test_index_lists_every_page():
    index = ROOT / "docs/README.md"
    listed = {(index.parent / link).resolve() for link in LINK.findall(index.read_text())}
    assert set(DOCS) - listed == {index}


def anchors(page):
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page):
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target), link
