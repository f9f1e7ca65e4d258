"""What a study shows: tables, figures, notes and the head of its report."""

import pytest

from denoiseg_flow.jobs.checksums import digest
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.study import configuration, contents
from denoiseg_flow.study.contents import SHORT
from denoiseg_flow.study.grid import Grid, Run

FOLDER = {"source": "folder", "images": "images", "masks": "masks"}
N2S = {"target": "blind_spot", "masking": "grid_interpolate", "alpha": 1}


def select(config, **axes):
    config["grid"] |= axes
    return Grid(config)


LINES = {"source": "simulate", "structure": "filaments", "split": {"val": 0.2, "test": 0.2}}


@pytest.mark.parametrize(
    "spec", [LINES, {"source": "folder", "images": "images", "clean": "images"}]
)
def test_a_study_of_denoising_alone(config, schema, spec):
    """Nothing about segmentation, also where nobody says how many images are annotated."""
    config["datasets"]["lines"] = spec
    config["methods"] |= {"n2s": N2S, "median": {"classical": "median"}}
    config["grid"] |= {
        "datasets": ["lines"], "methods": ["n2v", "n2s", "median"], "reference": "n2v",
    }  # fmt: skip
    del config["grid"]["n_annotated"]
    configuration.check(config, schema)
    configuration.fill_defaults(config, schema)
    grid = Grid(config)
    assert {run.n_annotated for run in grid.runs} == {0}
    assert len(grid.runs) == 3 * 2 * 2
    assert contents.tables(grid) == ["denoising", "self_supervision", "paired"]
    assert contents.figures(grid, "lines") == ["denoising_levels", "training_curves", "calibration"]
    assert grid.n_annotated == {"lines": 0}
    assert contents.summary(grid)["annotated images"] == []
    assert grid.candidates("lines", "n10", "denoised")[0].method == "n2v"
    assert grid.candidates("lines", "n10", "labels") == []


@pytest.mark.parametrize(
    "methods, tables",
    [
        (["n2v", "baseline", "denoiseg"], ["segmentation", "denoising", "paired"]),
        (["n2v"], ["denoising"]),
        (["baseline"], ["segmentation"]),
        (["baseline", "sequential"], ["segmentation"]),
        (["denoiseg"], ["segmentation", "denoising"]),
    ],
)
def test_tables_that_a_study_can_fill(config, methods, tables):
    assert contents.tables(select(config, methods=methods)) == tables


def test_no_denoising_table_without_truth(config):
    config["datasets"]["own"] = {"source": "folder", "images": "images", "masks": "masks"}
    grid = select(config, datasets=["own"])
    assert contents.tables(grid) == ["segmentation", "self_supervision", "paired"]
    assert contents.figures(grid, "own") == ["label_curves", "training_curves", "precision"]
    grid = select(config, datasets=["own", "nuclei"])
    assert "denoising" in contents.tables(grid)
    assert contents.figures(grid, "own") == ["label_curves", "training_curves", "precision"]
    assert contents.figures(grid, "nuclei") == [
        "label_curves",
        "denoising_levels",
        "training_curves",
        "precision",
    ]


def test_methods_that_are_not_trained(config):
    """Their results do not vary between seeds, unless they read those of a network."""
    config["methods"] |= {
        "gaussian": {"classical": "gaussian"},
        "otsu": {"segmenter": "otsu", "input": "gaussian"},
        "otsu_n2v": {"segmenter": "otsu", "input": "n2v"},
        "forest": {"segmenter": "pixel_classifier"},
    }
    grid = select(config, methods=["otsu", "otsu_n2v", "forest", "gaussian"])
    assert contents.comparison(grid)["untrained"] == ["otsu", "gaussian"]
    assert "segmentation" in contents.tables(grid)
    figures = ["label_curves", "denoising_levels", "calibration", "precision"]
    assert contents.figures(grid, "nuclei") == figures
    assert {run.method for run in contents.precision_runs(grid, "nuclei")} == {"forest"}


def test_tables_and_figures_of_denoisers(config):
    config["datasets"]["own"] = FOLDER
    config["methods"] |= {
        "n2s": N2S,
        "median": {"classical": "median", "parameter": [1, 2]},
        "nlm": {"classical": "nlm", "parameter": 0.8, "noise_sigma": "known"},
        "tv": {"classical": "tv"},
        "raw": {"classical": "raw"},
    }
    grid = select(config, methods=["n2s", "median", "nlm", "tv", "raw"], datasets=["nuclei", "own"])
    assert contents.tables(grid) == ["denoising", "self_supervision"]
    assert grid.judged_subsets("nuclei", "median") == []
    assert grid.judged_subsets("own", "median") == ["test", "cross"]
    figures = ["denoising_levels", "training_curves", "calibration"]
    assert (contents.figures(grid, "nuclei"), contents.figures(grid, "own")) == (
        figures,
        figures[1:],
    )
    assert contents.calibrated_denoisers(grid) == {"median": "median", "tv": "tv"}
    assert contents.comparison(grid)["noise_sigmas"] == {"nlm": "known", "tv": "estimated"}
    grid = select(config, methods=["nlm", "raw"], datasets=["nuclei"])
    assert (contents.tables(grid), contents.figures(grid, "nuclei")) == (
        ["denoising"],
        ["denoising_levels"],
    )


@pytest.mark.parametrize("paper", [None, "noise2self"])
def test_a_table_in_the_shape_of_a_paper_is_asked_for(config, paper):
    grid = Grid(config | {"paper": paper})
    assert ("paper" in contents.tables(grid)) == (paper is not None)
    assert contents.comparison(grid)["paper"] == paper


def test_published_tables_are_those_of_the_denoiseg_paper(config):
    for name, wanted in [("bsd68", False), ("camera", False), ("flywing", True)]:
        config["datasets"]["nuclei"]["published"] = name
        grid = Grid(config)
        assert ("published" in contents.tables(grid)) == wanted
        assert contents.comparison(grid)["published_datasets"] == {"nuclei": name}


def test_published_numbers(config):
    assert contents.comparison(Grid(config))["published_datasets"] == {}
    config["datasets"]["nuclei"]["published"] = "dsb"
    config["datasets"]["idle"] = {"source": "simulate", "published": "mouse"}
    grid = select(config, methods=["denoiseg_warm", "denoiseg", "n2v"])
    assert contents.tables(grid)[-1] == "published"
    assert contents.comparison(grid) == {
        "tables": ["segmentation", "denoising", "paired", "published"],
        "paper": None,
        "methods": ["denoiseg_warm", "denoiseg", "n2v"],
        "noises": {"n10": "gaussian, sigma 10", "n20": "gaussian, sigma 20"},
        "noise_sigmas": {},
        "untrained": [],
        "grouped": [],
        "reference": "denoiseg",
        "published_datasets": {"nuclei": "dsb"},
        "published_methods": {"denoiseg": "denoiseg_alpha0.5", "n2v": "n2v"},
    }


def test_short_trainings_are_not_for_judging_methods(config):
    """A kind of trainings, whatever the recipe is called; what is not trained has none."""
    fast = config["recipes"]["fast"]
    fast |= {"epochs": SHORT - 1, "steps_per_epoch": 1}
    (note,) = contents.notes(Grid(config))
    assert note.startswith(f"The recipe fast trains networks for only {SHORT - 1} steps.")
    fast["epochs"] = SHORT
    assert contents.notes(Grid(config)) == []
    fast["epochs"] = 1
    config["methods"]["median"] = {"classical": "median"}
    assert contents.notes(select(config, methods=["median"], reference="median")) == []


def test_summary_names_every_axis(config):
    assert contents.summary(Grid(config)) == {
        "datasets": ["nuclei"],
        "noise levels": ["n10", "n20"],
        "methods": ["n2v", "baseline", "sequential", "denoiseg", "denoiseg_warm"],
        "annotated images": ["4", "16"],
        "seeds": ["1", "2"],
        "recipe": ["fast"],
    }


def test_the_report_says_which_images_were_cross_validated(config):
    few = config["datasets"]["nuclei"]
    few |= {"n_images": 12, "annotated": 5}
    few["split"] |= {"cross_validate_below": 8}
    config["notes"] = ["Mine."]
    config["recipes"]["fast"]["epochs"] = SHORT
    config["datasets"]["more"] = few | {"annotated": 12}
    own, note = contents.notes(select(config, datasets=["nuclei", "more"]))
    assert own == "Mine."
    assert note.startswith("The few annotated images of nuclei were cross-validated")
    assert config["notes"] == ["Mine."]


def test_the_report_says_what_is_over_groups(config):
    config["recipes"]["fast"]["epochs"] = SHORT
    grouped = config["datasets"]["nuclei"]
    config["datasets"]["crops"] = grouped | {"split": grouped["split"] | {"group": r"(\d)\.tif"}}
    grid = select(config, datasets=["nuclei", "crops"])
    (note,) = contents.notes(grid)
    assert note.startswith("The images of crops belong to groups, which were divided as a whole")
    assert note.endswith("intervals and tests are over groups, not over images.")
    assert contents.comparison(grid)["grouped"] == ["crops"]


def test_the_report_says_what_learned_from_two_acquisitions(config):
    config["recipes"]["fast"]["epochs"] = SHORT
    config["methods"]["n2n"] = {"target": "second_noisy", "alpha": 1}
    config["datasets"]["pairs"] = {"source": "folder", "images": "one", "second": "other"}
    assert contents.notes(select(config, methods=["n2v", "n2n"])) == []
    for further in ({"second": "other"}, {"repeats": "T"}):
        config["datasets"]["pairs"] = {"source": "folder", "images": "one"} | further
        grid = select(config, datasets=["nuclei", "pairs"], methods=["n2v", "n2n"])
        learned, truth = contents.notes(grid)
        assert learned.startswith("n2n learned from several acquisitions of each field of pairs, ")
        assert truth.startswith("The clean images of pairs are unknown. The mean of the other")
        assert "denoising" in contents.tables(select(config, datasets=["pairs"]))
    assert contents.notes(select(config, methods=["n2v"])) == [truth]
    config["datasets"]["pairs"]["clean"] = "clean"
    assert contents.notes(select(config, methods=["n2v"])) == []


def test_volumes_are_noted_for_the_reader(config):
    config["datasets"]["deep"] = {"source": "simulate", "depth": 8, "n_images": 48}
    config["recipes"]["fast"]["epochs"] = SHORT
    assert contents.notes(select(config)) == []
    config["datasets"]["deep"] |= {"split": config["datasets"]["nuclei"]["split"]}
    (note,) = contents.notes(select(config, datasets=["nuclei", "deep"]))
    assert note.startswith("deep: figures show the middle z-slice of each volume")


def pretrained(config, **axes):
    """A study with a network that was pretrained, one that continues from it, and another."""
    size = {"depth": 4, "filters": 16, "instances": "distance"}
    config["recipes"]["fast"] |= size
    config["methods"] |= {
        "pretrained": {"init": "simulated_objects", "recipe": "fast"},
        "continued": {"init": "pretrained"},
    }
    return select(config, methods=["pretrained", "continued", "baseline"], **axes)


def test_labels_that_depend_on_simulated_images_say_so(config):
    grid = pretrained(config, n_annotated=[0, 4])
    (note,) = [note for note in contents.notes(grid) if "simulated" in note]
    assert note.startswith("Labels of pretrained, continued: the network was first trained on")
    runs = [Run("nuclei", "n10", *rest, 1) for rest in (("pretrained", 0), ("continued", 4))]
    assert [contents.origin_of_labels(grid, run) for run in runs] == [
        "The labels of pretrained come from a network that learned segmentation from simulated "
        "images only, not from any annotated image.",
        "The labels of continued come from a network that learned segmentation from simulated "
        "images before it learned from 4 annotated images.",
    ]
    assert contents.origin_of_labels(grid, Run("nuclei", "n10", "baseline", 4, 1)) == ""
    others = contents.notes(select(config, methods=["baseline"]))
    assert not any("simulated" in note for note in others)


def test_nothing_about_scores_and_training_where_there_are_none(config):
    config["datasets"]["own"] = {"source": "folder", "images": "images"}
    grid = pretrained(config, datasets=["own"])
    grid = select(config, methods=["pretrained"])
    assert contents.tables(grid) == []
    assert contents.figures(grid, "own") == []
    grid = select(config, methods=["n2v", "pretrained"])
    assert contents.tables(grid) == ["self_supervision"]
    assert contents.figures(grid, "own") == ["training_curves"]
    grid = select(config, datasets=["nuclei"], methods=["pretrained"], n_annotated=[0])
    assert contents.figures(grid, "nuclei") == ["label_curves", "precision"]


def test_methods_that_share_no_score_are_not_paired(config):
    """One denoises and one segments; and nothing is scored without masks and clean images."""
    assert "paired" not in contents.tables(
        select(config, methods=["n2v", "baseline"], reference="n2v")
    )
    assert "paired" in contents.tables(select(config, methods=["n2v", "denoiseg"], reference="n2v"))
    config["datasets"]["own"] = {"source": "folder", "images": "images"}
    grid = select(config, datasets=["own"], methods=["n2v", "denoiseg"], reference="n2v")
    assert "paired" not in contents.tables(grid)


def test_the_report_names_the_model_that_a_method_started_from(config, tmp_path, make_model):
    save_model(make_model(Method("own")), tmp_path / "a.pt")
    config["recipes"]["fast"]["instances"] = "components"
    config["methods"] |= {"new": {"init": str(tmp_path / "a.pt")}, "continued": {"init": "new"}}
    grid = select(config, methods=["continued", "baseline"], n_annotated=[0, 4])
    (note,) = [note for note in contents.notes(grid) if "started from" in note]
    sha256 = digest(tmp_path / "a.pt")[:12]
    assert note == (
        f"new started from the model {tmp_path / 'a.pt'} (dataset nuclei, noise n10, method own, "
        f"n_annotated 4, seed 1, SHA-256 {sha256}). Its scores are too good on images that this "
        "model had been trained on."
    )
    runs = [Run("nuclei", "n10", *rest, 1) for rest in (("new", 0), ("continued", 4))]
    assert [contents.origin_of_labels(grid, run) for run in runs] == [
        f"The labels of new are those of {tmp_path / 'a.pt'}, as it was before this study.",
        f"The labels of continued come from a network that started from {tmp_path / 'a.pt'} before "
        "it learned from 4 annotated images.",
    ]
