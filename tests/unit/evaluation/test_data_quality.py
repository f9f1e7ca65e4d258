"""What is found in a dataset before training."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from denoiseg_flow.data import manifest
from denoiseg_flow.data.layout import PreparedData
from denoiseg_flow.data.store import write_array
from denoiseg_flow.evaluation import data_quality
from denoiseg_flow.evaluation.data_quality import check_dataset
from denoiseg_flow.evaluation.noise_structure import CENTRE
from denoiseg_flow.findings import Finding, worst
from denoiseg_flow.reporting.checks_page import checks_page

SUBSETS = ["train", "train", "train", "val", "test", "test"]


class Study:
    """Six images of 40x48 pixels with two objects each, to be spoiled by a test."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        self.folder = folder
        self.images = {name: rng.normal(100, 10, (40, 48)).astype("f4") for name in "abcdef"}
        labels = np.zeros((40, 48), np.int32)
        labels[4:14, 6:20], labels[20:30, 10:30] = 1, 2
        self.masks = {name: labels.copy() for name in "abcdef"}

    def check(self):
        names = list(self.images)
        for name in names:
            write_array(self.folder / "noisy" / f"{name}.tif", self.images[name].astype("f4"))
        for name, mask in self.masks.items():
            write_array(self.folder / "prepared/masks" / f"{name}.tif", mask.astype(np.int32))
        dtypes = [str(self.images[name].dtype) for name in names]
        table = pd.DataFrame({"image": names, "dtype": dtypes})
        table = table.reindex(columns=list(manifest.MANIFEST_COLUMNS), fill_value=0)
        manifest.write(table, self.folder / "prepared/manifest.tsv")
        split = pd.DataFrame({"image": names, "subset": SUBSETS[: len(names)]})
        split["annotated"] = [int(name in self.masks) for name in names]
        return check_dataset(PreparedData(self.folder / "prepared"), self.folder / "noisy", split)

    def findings(self):
        return {each.topic: each for each in worst(self.check().findings)}


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path)


def test_nothing_is_wrong_with_good_images(study):
    checks = study.check()
    assert worst(checks.findings) == []
    sentences = {each.topic: each.sentence for each in checks.findings}
    assert sentences["images"].startswith("6 images of 40x48 pixels, 6 of them annotated; grey")
    assert sentences["objects"] == ("12 objects in 6 annotated images, median size 170 pixels.")
    assert "independent between pixels" in sentences["noise structure"]
    table = checks.images.set_index("image")
    assert table.loc["a", ["height", "width", "objects", "tiny"]].tolist() == [40, 48, 2, 0]
    assert table["noise_sigma"].to_numpy() == pytest.approx(10, rel=0.15)


def test_files_that_were_left_out(study, monkeypatch):
    finding = Finding("warning", "files left out", "Not read: 1 file")
    monkeypatch.setattr(data_quality, "about_files", lambda prepared: [finding])
    assert study.findings()["files left out"] == finding


def pixel_types(study):
    study.images["b"] = study.images["b"].clip(0, 255).astype(np.uint8)
    return "pixel types", "warning", ("b",), "(5 of float32, 1 of uint8)"


def intensities(study):
    study.images["c"] = study.images["c"] * 20
    return "intensities", "warning", ("c",), "grey levels of 1 image is more than 8 times"


def saturation(study):
    study.images["d"] = study.images["d"].clip(None, 110)
    return "saturation", "warning", ("d",), "In 1 image, more than 1% of the pixels"


def black_level(study):
    for name in "ae":
        study.images[name] = study.images[name].clip(95, None)
    return "black level", "warning", ("a", "e"), "In 2 images, more than 20% of the pixels"


def binary_masks(study):
    study.masks["a"] = 255 * (study.masks["a"] > 0)
    return "binary masks", "problem", ("a",), "Set 'binary_masks: connected_components'"


def shared_number(study):
    study.masks["a"][35:39, 35:45] = 1
    return "objects in pieces", "warning", ("a",), "1 object in 1 image with several separate "


def slip_of_the_brush(study):
    study.masks["f"][0, :3] = 7
    return "tiny objects", "warning", ("f",), "1 object in 1 image with fewer than 10 pix"


def copy_across_subsets(study):
    study.images["e"] = study.images["a"].copy()
    return "leakage", "problem", ("a", "e"), "1 pair of identical or nearly identical images in t"


def near_copy_across_subsets(study):
    shape = 30 * np.sin(np.arange(48) / 5) * np.cos(np.arange(40) / 7)[:, None]
    study.images["d"] = study.images["d"] + shape.astype("f4") * 3
    rng = np.random.default_rng(1)
    study.images["f"] = study.images["d"] + rng.normal(0, 2, (40, 48)).astype("f4")
    return "leakage", "problem", ("d", "f"), "(d = f)"


def copy_within_a_subset(study):
    study.images["b"] = study.images["a"].copy()
    return "duplicates", "warning", ("a", "b"), "1 pair of identical or nearly identical images (a "


def stripes(study):
    rng = np.random.default_rng(2)
    for name in study.images:
        white = rng.normal(0, 10, (40, 50)).astype("f4")
        study.images[name] = 100 + white[:, :-2] + white[:, 1:-1] + white[:, 2:]
    return "noise structure", "warning", (), "structn2v with 'struct_mask: [[1, 1, 1, 1, 1]]'"


def blur(study):
    rng = np.random.default_rng(2)
    for name in study.images:
        white = rng.normal(100, 10, (41, 49)).astype("f4")
        study.images[name] = white[1:, 1:] + white[:-1, 1:] + white[1:, :-1] + white[:-1, :-1]
    return "noise structure", "warning", (), "correlated in both directions"


@pytest.mark.parametrize(
    "spoil",
    [
        *(pixel_types, intensities, saturation, black_level),
        *(binary_masks, shared_number, slip_of_the_brush),
        *(copy_across_subsets, near_copy_across_subsets, copy_within_a_subset),
        *(stripes, blur),
    ],
    ids=lambda function: function.__name__,
)
def test_what_is_wrong_is_found(study, spoil):
    topic, severity, images, words = spoil(study)
    found = study.findings()
    assert set(found) == {topic}
    assert (found[topic].severity, found[topic].images) == (severity, images)
    assert words in found[topic].sentence


@pytest.mark.parametrize("spoil", [stripes, blur])
def test_the_level_of_noise_that_is_not_independent(study, spoil):
    """It is estimated as if it were, and said so."""

    def level():
        (found,) = (each for each in study.check().findings if each.topic == "noise level")
        return found.sentence

    assert level().endswith("of the range of an image.")
    spoil(study)
    assert level().endswith("assumes independent pixels, but neighbouring pixels are correlated.")


def test_problems_come_first(study):
    saturation(study)
    copy_across_subsets(study)
    severities = [each.severity for each in study.check().findings]
    assert severities[:2] == ["problem", "warning"]
    assert set(severities[2:]) == {"note"}


def test_many_pairs_are_not_all_named(study):
    for name in "bcd":
        study.images[name] = study.images["a"].copy()
    assert study.findings()["duplicates"].sentence == (
        "6 pairs of identical or nearly identical images (a = b, a = c, a = d and 3 more)."
    )


def test_constant_images_are_no_twins(study):
    for name in "ae":
        study.images[name] = np.full((40, 48), ord(name), "f4")
    assert "leakage" not in study.findings()


def test_negative_examples_and_ignored_pixels(study):
    study.masks["a"][:] = 0
    study.masks["b"][:20] = -1
    notes = {each.topic: each.sentence for each in study.check().findings}
    assert "1 image without objects, assumed to be correct" in notes["objects"]
    assert notes["objects"].endswith("8.3% of the pixels are ignored.")


def test_scribbles_are_thin_and_interrupted(study):
    for mask in study.masks.values():
        mask[mask == 0] = -1
        mask[4, 6:9], mask[0] = -1, 0
        mask[30:34, 40:42] = 2
        mask[35, 5] = 3
    assert worst(study.check().findings) == []


def test_objects_that_touch(study):
    study.masks["a"][14:20, 6:20] = 3  # touches 1 above, and 2 below
    study.masks["b"][30, 30] = 3  # touches 2 diagonally
    checks = study.check()
    assert checks.images["touching"].tolist() == [3, 2, 0, 0, 0, 0]
    notes = {each.topic: each.sentence for each in checks.findings}
    assert notes["touching objects"].startswith("36% of the objects touch another one.")


def test_without_masks(study):
    study.masks.clear()
    checks = study.check()
    assert not any("objects" in each.topic for each in checks.findings)
    assert checks.images["objects"].isna().all()


def test_noise_of_large_images_is_read_off_their_centre(study):
    rng = np.random.default_rng(0)
    image = np.zeros((20, CENTRE + 400), "f4")
    image[:, 200:-200] = rng.normal(0, 5, (20, CENTRE))
    study.images, study.masks = {"a": image}, {}
    assert study.check().images.loc[0, "noise_sigma"] == pytest.approx(5, rel=0.1)


class Text(HTMLParser):
    """The words of a page, if it is well-formed."""

    def __init__(self, page):
        super().__init__()
        self.words, self.open = [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


def test_page(study):
    copy_across_subsets(study)
    del study.masks["c"]
    words = Text(checks_page(study.check(), "<mine>, noise n0")).words
    assert "Quality checks: <mine>, noise n0" in words
    assert "Problem: leakage." in words
    assert "a, e" in words
    assert "nan" not in words
    assert words.index("Problem: leakage.") < words.index("Note: images.")
