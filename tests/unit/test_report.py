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

from denoiseg_flow.figures.examples import Example
from denoiseg_flow.findings import Finding
from denoiseg_flow.grid import Run
from denoiseg_flow.report import (
    CITATIONS,
    ReportAdvice,
    ReportData,
    ReportFigure,
    ReportTable,
    ReportTrust,
    build_report,
)
from denoiseg_flow.tables.verdicts import (
    LabelGain,
    Recommendation,
    Verdict,
    best_methods,
    label_gains,
    recommend,
)

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


def data(name="simulated", **changes):
    image = np.linspace(-5, 300, 40 * 30).reshape(40, 30)
    labels = np.zeros((40, 30), int)
    labels[5:12, 5:12] = 1
    values = {
        "title": f"Study of {name}",
        "study": {"data sets": [name], "methods": [name, "denoiseg"]},
        "config": {"grid": {"datasets": [name], "seeds": [1]}},
        "verdicts": [Verdict(name, name, 2, name, 0.5, 0.01, 3, tied=[name])],
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


def test_config_with_closing_tags_stays_inside_its_box():
    page = Page(build_report(data(config={"note": "</pre></script><script>alert(1)</script>"})))
    assert len(page.all("script")) == 1 and not page.misnested
    assert "note: </pre></script>" in "".join(page.text)


def test_an_empty_study_has_sentences_instead_of_gaps():
    empty = ReportData(title="Empty", study={}, config={})
    page = Page(build_report(empty))
    text = "".join(page.text)
    assert [attributes["id"] for attributes in page.all("section")] == SECTIONS
    for sentence in ("so there is no ranking", "no tables", "no figures", "without test images",
                     "No run times"):  # fmt: skip
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
    assert (left.mode, painted.mode) == ("L", "RGBA")
    assert left.getextrema() == (0, 255)
    assert middle.getextrema() == (128, 128)
    assert painted.getextrema()[3] == (0, 255)
    known = Example("known", noisy, denoised, clean=noisy)
    images = Page(build_report(data(comparisons=[known], figures=[]))).all("img")
    assert [one["alt"].split(", ")[1] for one in images] == ["noisy input", "denoised", "clean"]
    assert decode(images[2]).getextrema() == (0, 255)


def test_figures_come_from_text_or_files_and_nothing_else(tmp_path):
    (tmp_path / "a.svg").write_text(SVG)
    (tmp_path / "b.png").write_bytes(b"png")
    figures = [ReportFigure(str(i), "c", image) for i, image in
               enumerate([SVG, tmp_path / "a.svg", str(tmp_path / "b.png")])]  # fmt: skip
    sources = [
        one["src"] for one in Page(build_report(data(figures=figures, comparisons=[]))).all("img")
    ]
    assert sources[0] == sources[1]
    assert sources[2] == "data:image/png;base64," + base64.b64encode(b"png").decode()
    with pytest.raises(ValueError, match=r"c\.pdf"):
        build_report(data(figures=[ReportFigure("c", "c", tmp_path / "c.pdf")]))


def test_the_same_data_give_the_same_page():
    assert build_report(data()) == build_report(data())


def scores(differences, seeds=4, images=10, n_labelled=2):
    """AP rows: method ``best`` at 0.8, and others below it by a draw of (mean, spread)."""
    random = np.random.default_rng(0)
    rows = []
    for method, (mean, spread) in {"best": (0, 0), **differences}.items():
        draws = random.normal(0, spread, (seeds, images)) if spread else np.zeros((seeds, images))
        values = 0.8 - mean - (draws - draws.mean())
        rows += [
            ("d", "n", method, n_labelled, seed, f"i{image}", "AP", values[seed, image])
            for seed in range(seeds)
            for image in range(images)
        ]
    columns = ["dataset", "noise", "method", "n_labelled", "seed", "image", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def test_verdicts_claim_only_what_the_paired_interval_allows():
    metrics = scores({"worse": (0.2, 0.01), "similar": (0.005, 0.1)})
    (verdict,) = best_methods(metrics, 0)
    assert (verdict.method, verdict.above, verdict.tied) == ("best", ["worse"], ["similar"])
    assert verdict.mean == pytest.approx(0.8)
    assert "better than worse" in verdict.sentence
    assert "cannot be told apart from similar" in verdict.sentence


def test_a_single_pair_is_not_a_test_and_a_single_method_not_a_comparison():
    (verdict,) = best_methods(scores({"other": (0.2, 0)}, seeds=1, images=1), 0)
    assert verdict.untested == ["other"] and verdict.value == "0.800"
    assert "could not be tested" in verdict.sentence and "(1 seed)" in verdict.sentence
    (alone,) = best_methods(scores({}, n_labelled=1), 0)
    assert "no other method" in alone.sentence and "1 annotated image," in alone.sentence


def test_summary_shows_fewest_and_most_labels_and_lists_all_settings():
    verdicts = [Verdict("d", "n", count, "m", 0.5, 0.1, 3) for count in (2, 4, 8)]
    page = Page(build_report(data(verdicts=verdicts)))
    text = "".join(page.text)
    assert [text.count(f"With {count} annotated") for count in (2, 4, 8)] == [1, 0, 1]
    assert [text.count("0.500 ± 0.100")] == [2 + 3]


def test_without_segmentation_methods_are_ranked_by_psnr():
    metrics = scores({"other": (0.2, 0)}, n_labelled=0).assign(metric="PSNR")
    (verdict,) = best_methods(metrics, 0)
    assert (verdict.metric, verdict.method, verdict.value) == ("PSNR", "best", "0.80 ± 0.00")
    assert verdict.sentence.startswith("best has the highest mean PSNR, 0.80")
    assert "by PSNR on the test images" in build_report(data(verdicts=[verdict]))
    assert best_methods(metrics.assign(metric="SSIM"), 0) == []


@pytest.mark.parametrize("module", ["figures.curves", "figures.panels", "report"])
def test_torch_and_pyplot_stay_unloaded(module):
    code = (
        f"import sys, denoiseg_flow.{module}; "
        "print(sorted({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def gain_of(mean, spread, **sizes):
    """Gains where one method has 0.8 with 8 annotated images, and that much less with 4 and 2."""
    tables = [
        scores({}, n_labelled=8, **sizes),
        *(
            scores({"best_below": (mean, spread)}, n_labelled=count, **sizes).query(
                "method == 'best_below'"
            )
            for count in (2, 4)
        ),
    ]
    metrics = pd.concat(tables).assign(method="m")
    other = scores({}, n_labelled=8).assign(method="other", value=0.5)
    return label_gains(pd.concat([metrics, other]), 0)


def test_whether_more_annotated_images_helped():
    (gain,) = gain_of(0.2, 0.01)
    assert (gain.dataset, gain.noise, gain.method, gain.fewer, gain.more) == ("d", "n", "m", 4, 8)
    assert gain.difference == pytest.approx(0.2)
    assert 0.18 < gain.low < gain.difference < gain.high < 0.22
    assert gain.sentence.startswith("From 4 to 8 annotated images, AP of m changed by +0.200 (95 %")
    assert gain.sentence.endswith("still more annotated images are likely to help.")


def test_no_gain_is_no_promise():
    (unclear,), (harmful,) = gain_of(0.005, 0.2), gain_of(-0.1, 0.01)
    assert unclear.low < 0 < unclear.high
    assert unclear.sentence.endswith("does not show that more of them would help.")
    assert harmful.sentence.endswith("did harm; check their masks.")
    (untested,) = gain_of(0.2, 0, seeds=1, images=1)
    assert untested.sentence.endswith("could not be tested.")


def test_gains_need_two_numbers_of_annotated_images():
    assert label_gains(scores({"other": (0.1, 0.1)}), 0) == []
    assert label_gains(scores({}).assign(metric="PSNR"), 0) == []


def test_gains_are_in_the_summary():
    gain = LabelGain("nuclei", "n10", "m", 4, 8, 0.1, 0.05, 0.15)
    verdict = Verdict("nuclei", "n10", 8, "m", 0.5, 0.1, 3)
    page = build_report(data(verdicts=[verdict], gains=[gain]))
    assert "Would more annotated images help?" in page
    assert gain.sentence in page
    assert "Would more" not in build_report(data(verdicts=[verdict]))


def trust(name="simulated", **changes):
    values = {
        "run": Run(name, "n10", "denoiseg", 4, 1),
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
    assert text.count("2 reasons to be careful") == 2
    for words in ("Problem: x.", "A problem.", "Note: y.", "Too bright: simulated.", "a, b",
                  "denoiseg with 4 annotated images, seed 1", "0.250"):  # fmt: skip
        assert words in text
    assert "PSNR" not in "".join(page.text).partition("worst predictions")[2].partition("Tables")[0]
    assert not page.misnested and not page.open
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids)) and {"trust-1", "trust-2"} <= set(ids)


def test_warnings_lead_to_what_they_are_about():
    sure = trust("sure", checks=[], findings=[])
    page = Page(build_report(data(trust=[sure, trust("unsure")])))
    links = {link["href"] for link in page.all("a")}
    assert "#trust-2" in links and "#trust-1" not in links


def test_no_doubts_no_warning():
    page = build_report(data(trust=[trust(checks=[], findings=[Finding("note", "y", "Well.")])]))
    assert "to be careful" not in page and "Well." in page


def test_what_to_annotate_next():
    images = pd.DataFrame({"rank": [1, 2], "image": ["cell 9", HOSTILE]})
    advice = ReportAdvice("d", "n", images, ReportFigure("next", "a caption", SVG))
    page = Page(build_report(data(advice=[advice])))
    text = "".join(page.text)
    assert "The first 2 images to annotate" in text and "cell 9" in text and HOSTILE in text
    nothing = ReportAdvice("d", "n", images.iloc[:0], ReportFigure("next", "a caption", SVG))
    assert "There is nothing to suggest" in build_report(data(advice=[nothing]))


def sentences(metrics):
    return {each.purpose: each.sentence for each in recommend(metrics, 0)}


def test_a_clear_recommendation_has_numbers_and_interval():
    (each,) = recommend(scores({"worse": (0.2, 0.01), "worst": (0.4, 0.01)}), 0)
    assert (each.dataset, each.noise, each.purpose) == ("d", "n", "Labels")
    assert each.sentence.startswith(
        "Use best: AP 0.800 ± 0.000, better than worse, the next best, by 0.200 (95 % interval 0.1"
    )


def test_what_cannot_be_told_apart_is_not_recommended():
    sentence = sentences(scores({"similar": (0.005, 0.1), "worse": (0.3, 0.01)}))["Labels"]
    assert sentence.startswith("best and similar cannot be told apart: best is ahead with AP 0.800")
    assert "over similar by 0.005 (95 % interval \N{MINUS SIGN}0.0" in sentence


def test_too_little_for_a_recommendation():
    few = scores({"other": (0.2, 0)}, seeds=1, images=1)
    assert "too few to tell whether it is better than other" in sentences(few)["Labels"]
    assert sentences(scores({}))["Labels"] == "Only best was measured: AP 0.800 ± 0.000."
    assert recommend(scores({}).assign(metric="SEG"), 0) == []


def test_the_most_annotated_images_decide_and_methods_without_labels_take_part():
    few = scores({"other": (0.2, 0.01)}, n_labelled=2)
    many = scores({"other": (-0.1, 0.01)}, n_labelled=8)
    free = scores({"n2v": (-0.15, 0.01)}, n_labelled=0).query("method == 'n2v'")
    metrics = pd.concat([few, many, free.assign(metric="PSNR"), many.assign(metric="PSNR")])
    found = sentences(metrics)
    assert found["Labels"].startswith("Use other: AP 0.900")
    assert found["Denoised images"].startswith("Use n2v: PSNR 0.95 ± 0.00, better than other")


def test_without_clean_images_the_least_loss_is_best():
    losses = scores({"worse": (-0.2, 0.01)}, n_labelled=0).assign(metric="loss_self_supervised")
    sentence = sentences(losses)["Denoised images"]
    assert sentence.startswith("Use best: self-supervised loss 0.800 ± 0.000, better than worse")
    assert "by 0.200 (95 % interval 0.1" in sentence
    (verdict,) = best_methods(losses, 0)
    assert verdict.above == ["worse"]
    assert "has the lowest mean self-supervised loss" in verdict.sentence
    page = build_report(data(verdicts=[verdict], recommendations=recommend(losses, 0)))
    assert "ranked by self-supervised loss" in page and "Which method for these images?" in page


def test_recommendations_are_in_the_summary():
    each = Recommendation("d", "n", "Labels", f"Use {HOSTILE}.")
    assert f"Use {HOSTILE}." in "".join(Page(build_report(data(recommendations=[each]))).text)
