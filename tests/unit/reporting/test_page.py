"""The report: complete, self-contained, escaped, and careful in what it claims."""

import base64
import io
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from denoiseg_flow.findings import Finding
from denoiseg_flow.methods.references import CITATIONS
from denoiseg_flow.reporting import page as page_of_report
from denoiseg_flow.reporting.figures.examples import Example
from denoiseg_flow.reporting.image_scores import ImageScores
from denoiseg_flow.reporting.page import (
    ReportAdvice,
    ReportData,
    ReportFigure,
    ReportTable,
    ReportTrust,
    build_report,
)
from denoiseg_flow.reporting.tables.verdicts import (
    AnnotationGain,
    Comparison,
    Recommendation,
    Verdict,
)
from denoiseg_flow.study.grid import Run

HOSTILE = '<img src=x onerror="alert(1)">&\'"'
SECTIONS = [
    "summary",
    "trust",
    "next",
    "tables",
    "figures",
    "images",
    "run-times",
    "software",
    "config",
    "citations",
]
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><g id="a"/></svg>'
VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Collects tags with their attributes, visible text, and whether tags nest properly."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open, self.misnested = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.misnested.append(tag)

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def verdict(**changes):
    values = {
        "dataset": "d", "noise": "n", "n_annotated": 2, "method": "m", "mean": 0.5, "sem": 0.1,
        "n_seeds": 3, "n_sources": 10, "n_images": 10,
    }  # fmt: skip
    return Verdict(**(values | changes))


def data(name="simulated", **changes):
    image = np.linspace(-5, 300, 40 * 30).reshape(40, 30)
    labels = np.zeros((40, 30), int)
    labels[5:12, 5:12] = 1
    hostile = Comparison(name, "AP", 0.1, -0.1, 0.3, 0.5)
    values = {
        "title": f"Study of {name}",
        "study": {"datasets": [name], "methods": [name, "denoiseg"]},
        "config": {"grid": {"datasets": [name], "seeds": [1]}},
        "verdicts": [verdict(dataset=name, noise=name, method=name, comparisons=[hostile])],
        "tables": [ReportTable(name, f"caption {name}", "<table><tr><td>1 ± 2</td></tr></table>")],
        "figures": [ReportFigure(name, f"caption {name}", SVG)] * 2,
        "comparisons": [Example(name, image, image, labels, labels), Example("two", image)],
        "run_times": ReportTable("times", f"caption {name}", "<table><tr><td>9</td></tr></table>"),
        "software": {"python": name},
        "notes": [f"note {name}"],
    }
    return ReportData(**(values | changes))


@pytest.fixture(scope="module")
def page():
    return Page(build_report(data()))


def test_every_section_is_there_and_every_link_leads_somewhere(page):
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    inside = [link["href"][1:] for link in page.all("a") if link["href"].startswith("#")]
    assert set(inside) == set(SECTIONS) and set(inside) <= set(ids)
    assert not page.misnested and not page.open


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "poster", "data", "action"):
            address = attributes.get(key, "data:")
            if tag == "a":
                known = {citation.url for citation in CITATIONS}
                assert address.startswith(("#", "data:")) or address in known
            else:
                assert address.startswith("data:"), (tag, address)
    html = build_report(data())
    assert "@import" not in html and "url(" not in html and "default-src 'none'" in html


def test_pictures_have_alternative_texts_and_controls_have_labels(page):
    texts = [attributes.get("alt") for attributes in page.all("img")]
    assert len(texts) == 2 + 1 + 3 + 1 and all(texts)
    assert len(set(texts)) == len(texts) - 1  # the two figures are the same
    (chooser,) = page.all("select")
    assert chooser["id"] in {attributes.get("for") for attributes in page.all("label")}
    ranges = [one for one in page.all("input") if one["type"] == "range"]
    assert len(ranges) == 1 and ranges[0]["aria-label"]  # the pair without layers has none


def test_hostile_names_are_text():
    html = build_report(data(HOSTILE))
    page = Page(html)
    assert not [tag for tag, attributes in page.tags if "onerror" in attributes]
    assert [one["src"][:5] for one in page.all("img")] == ["data:"] * len(page.all("img"))
    assert not page.misnested and not page.open
    text = "".join(page.text)
    assert text.count(f"caption {HOSTILE}") == 4
    assert f"Study of {HOSTILE}" in text and f"note {HOSTILE}" in text


def test_every_image_has_a_point_and_some_have_a_picture():
    values = pd.Series({HOSTILE: 0.25, "b": 0.5, "c": 0.75}, name="AP")
    uri = "data:image/webp;base64,"
    scores = ImageScores.of(HOSTILE, values, "denoised", lambda _: uri, 2)
    page = Page(build_report(data(scores=[scores], figures=[], comparisons=[])))
    assert not page.misnested and not page.open
    points = [one for one in page.all("span") if one.get("class") == "point"]
    assert ["data-picture" in one for one in points] == [True, False, True]
    assert points[1]["style"] == "left: 50.0%; bottom: 50.0%"
    texts = [one["alt"] for one in page.all("img")]
    assert texts == [f"{HOSTILE}, {name}: denoised" for name in (HOSTILE, "c")]
    (slider,) = page.all("input")
    assert slider["max"] == "1" and slider["aria-label"]
    assert "no test images" not in "".join(page.text)


def test_config_with_closing_tags_stays_inside_its_box():
    page = Page(build_report(data(config={"note": "</pre></script><script>alert(1)</script>"})))
    assert len(page.all("script")) == 1 and not page.misnested
    assert "note: </pre></script>" in "".join(page.text)


def test_an_empty_study_has_sentences_instead_of_gaps():
    empty = ReportData(title="Empty", study={}, config={})
    page = Page(build_report(empty))
    text = "".join(page.text)
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    for sentence in ("No ranking", "no tables", "no figures", "no test images", "No run times"):
        assert sentence in text


def decode(attributes):
    return Image.open(io.BytesIO(base64.b64decode(attributes["src"].partition(",")[2])))


def test_slider_shares_one_intensity_window_and_cuts_large_images():
    noisy = np.zeros((600, 700), np.float32)
    noisy[:, 350:] = 100
    denoised = np.full((600, 700), 50.0)
    denoised[0, 0] = np.nan
    labels = np.zeros((600, 700), np.uint16)
    labels[300:320, 300:320] = 8
    pair = Example("large", noisy, denoised, labels)
    images = Page(build_report(data(comparisons=[pair], figures=[]))).all("img")
    left, middle, painted = (decode(attributes) for attributes in images)
    assert left.size == middle.size == painted.size == (512, 512)
    assert (left.mode, painted.mode) == ("RGB", "RGBA")
    assert left.getextrema() == ((0, 255),) * 3
    assert middle.getextrema() == ((128, 128),) * 3
    assert painted.getextrema()[3] == (0, 255)
    known = Example("known", noisy, denoised, clean=noisy)
    images = Page(build_report(data(comparisons=[known], figures=[]))).all("img")
    assert [one["alt"].split(", ")[1] for one in images] == ["noisy input", "denoised", "clean"]
    assert decode(images[2]).getextrema() == ((0, 255),) * 3


@pytest.mark.parametrize(
    "limit, side", [(10**6, 512), (6 * 10**5, 384), (15 * 10**4, 192), (1, 96)]
)
def test_many_large_images_are_cropped_further(monkeypatch, limit, side):
    """Noise cannot be compressed: a pixel takes a byte, and in base64 a third more."""
    noise = np.random.default_rng(0).integers(0, 255, (600, 600))
    monkeypatch.setattr(page_of_report, "LIMIT", limit)
    html = build_report(data(comparisons=[Example(name, noise) for name in "ab"]))
    sizes = {decode(one).size for one in Page(html).all("img") if "noisy" in one["alt"]}
    assert sizes == {(side, side)}
    assert len(html.encode()) <= limit or side == 96


def test_figures_lose_detail_rather_than_the_page_its_limit(monkeypatch, tmp_path):
    pixels = np.random.default_rng(0).normal(128, 20, (400, 400)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    shown = data(figures=[ReportFigure("f", "c", tmp_path / "a.png")], comparisons=[])
    whole = build_report(shown)
    monkeypatch.setattr(page_of_report, "LIMIT", len(whole) * 9 // 10)
    smaller = build_report(shown)
    assert len(smaller) < page_of_report.LIMIT
    (source,) = [one for one in Page(smaller).all("img") if one["alt"].startswith("f:")]
    seen = np.asarray(decode(source).convert("L"), float)
    assert seen.shape == (280, 280)
    assert abs(seen.mean() - pixels.mean()) < 1


def test_figures_come_from_text_or_files_and_nothing_else(tmp_path):
    (tmp_path / "a.svg").write_text(SVG)
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 4), dtype=np.uint8)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "b.png")
    figures = [ReportFigure(str(i), "c", image) for i, image in
               enumerate([SVG, tmp_path / "a.svg", str(tmp_path / "b.png")])]  # fmt: skip
    sources = [
        one["src"] for one in Page(build_report(data(figures=figures, comparisons=[]))).all("img")
    ]
    assert sources[0] == sources[1]
    assert sources[2].startswith("data:image/webp;base64,")
    assert (np.asarray(decode({"src": sources[2]}).convert("RGBA")) == pixels).all()
    with pytest.raises(ValueError, match=r"c\.pdf"):
        build_report(data(figures=[ReportFigure("c", "c", tmp_path / "c.pdf")]))


def test_the_same_data_give_the_same_page():
    assert build_report(data()) == build_report(data())


def test_summary_shows_fewest_and_most_labels_and_lists_all_settings():
    verdicts = [verdict(n_annotated=count) for count in (2, 4, 8)]
    page = Page(build_report(data(verdicts=verdicts)))
    text = "".join(page.text)
    assert [text.count(f"With {count} annotated") for count in (2, 4, 8)] == [1, 0, 1]
    assert [text.count("0.500 ± 0.100")] == [2 + 3]


def test_torch_and_pyplot_stay_unloaded():
    modules = ("figures.curves", "figures.panels", "page", "study_report")
    code = (
        f"import sys, {', '.join(f'denoiseg_flow.reporting.{module}' for module in modules)}; "
        "print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_gains_are_in_the_summary():
    gain = AnnotationGain("d", "n", "m", 4, 8, 0.1, 0.05, 0.15, 0.01)
    page = build_report(data(verdicts=[verdict()], gains=[gain]))
    assert "Would more annotated images help?" in page
    assert gain.sentence in page
    assert "Would more" not in build_report(data(verdicts=[verdict()]))


def trust(name="simulated", **changes):
    values = {
        "dataset": name,
        "noise": "n10",
        "labels": Run(name, "n10", "denoiseg", 4, 1),
        "denoised": Run(name, "n10", "n2v", 0, 1),
        "checks": [Finding("warning", "saturation", f"Too bright: {name}.", ("a", "b"))],
        "findings": [Finding("problem", "x", "A problem."), Finding("note", "y", "All is well.")],
        "images": pd.DataFrame(
            {"image": ["a", "b"], "subset": "test", "AP": [0.25, np.nan], "PSNR": np.nan}
        ),
        "figures": [ReportFigure("removed", "a caption", SVG)],
    }
    return ReportTrust(**(values | changes))


def test_what_speaks_against_the_results():
    page = Page(build_report(data(trust=[trust(), trust(HOSTILE)])))
    text = "".join(page.text)
    assert text.count("2 warnings, see Trust") == 2
    for words in ("Problem: x.", "A problem.", "Note: y.", "Too bright: simulated.", "a, b",
                  "Examined: labels of denoiseg with 4 annotated images, seed 1; denoised images "
                  "of n2v, seed 1.", "0.250"):  # fmt: skip
        assert words in text
    assert "PSNR" not in "".join(page.text).partition("worst predictions")[2].partition("Tables")[0]
    assert not page.misnested and not page.open
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and {"trust-1", "trust-2"} <= set(ids)


def test_without_scores_the_least_confident_images_are_shown():
    names = ["doubtful", "sure"]
    images = pd.DataFrame({"image": names, "subset": "test", "AP": np.nan, "confidence": [0.2, 1]})
    doubted = trust(images=images, origin="From simulated images.")
    page = Page(build_report(data(trust=[doubted], comparisons=[])))
    text = "".join(page.text)
    assert "Least confident images" in text and "worst predictions" not in text
    assert text.index("doubtful") < text.index("sure")
    assert "Confidence: how well" in text and "Smoothed" not in text
    assert text.count("From simulated images.") == 1, "no labels below"
    shown = data(trust=[trust(origin="From simulated images.")] * 2)
    assert build_report(shown).count("From simulated images.") == 3


def test_warnings_lead_to_what_they_are_about():
    sure = trust("sure", checks=[], findings=[])
    page = Page(build_report(data(trust=[sure, trust("unsure")])))
    links = {link["href"] for link in page.all("a")}
    assert "#trust-2" in links and "#trust-1" not in links


def test_notes_cause_no_warning_in_the_summary():
    page = build_report(data(trust=[trust(checks=[], findings=[Finding("note", "y", "Well.")])]))
    assert "see <a href" not in page and "Well." in page


def test_what_to_annotate_next():
    images = pd.DataFrame(
        {"rank": [1, 2], "image": ["cell 9", HOSTILE], "confidence": [0.123, 0.5]}
    )
    advice = ReportAdvice("d", "n", images, ReportFigure("next", "a caption", SVG))
    page = Page(build_report(data(advice=[advice])))
    text = "".join(page.text)
    assert "The first 2 images to annotate" in text and "cell 9 (confidence 0.12)" in text
    assert f"{HOSTILE} (confidence 0.50)" in text
    nothing = ReportAdvice("d", "n", images.iloc[:0], ReportFigure("next", "a caption", SVG))
    assert "No suggestions" in build_report(data(advice=[nothing]))


def test_recommendations_are_in_the_summary():
    each = Recommendation("d", "n", "labels", "m", f"Use {HOSTILE}.")
    assert f"Use {HOSTILE}." in "".join(Page(build_report(data(recommendations=[each]))).text)
