"""From the config to the runs: none dropped, none twice, and clear words for what is wrong."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from denoiseg_flow.errors import InputError
from denoiseg_flow.methods import classical
from denoiseg_flow.study import configuration
from denoiseg_flow.study.grid import PURPOSES, SHORT, Grid, Run


def message(config):
    with pytest.raises(InputError) as caught:
        Grid(config)
    return str(caught.value)


def select(config, **axes):
    config["grid"] |= axes
    return Grid(config)


def test_one_run_for_each_combination(config):
    config["datasets"]["more"] = config["datasets"]["nuclei"]
    grid = select(
        config,
        datasets=["nuclei", "more"],
        noises=["n0", "n10", "n20"],
        methods=["baseline", "denoiseg"],
        n_annotated=[2, 4, 8, 16, 32],
        seeds=[1, 2, 3, 4, 5, 6, 7],
    )
    assert len(grid.runs) == 2 * 3 * 2 * 5 * 7
    assert set(grid.runs) == {
        Run(dataset, noise, method, n_annotated, seed)
        for dataset in ("nuclei", "more")
        for noise in ("n0", "n10", "n20")
        for method in ("baseline", "denoiseg")
        for n_annotated in (2, 4, 8, 16, 32)
        for seed in (1, 2, 3, 4, 5, 6, 7)
    }


def test_methods_without_labels_run_once(config):
    grid = select(config, methods=["n2v"], n_annotated=[1, 2, 3], seeds=[5, 6], noises=["n10"])
    assert grid.runs == [Run("nuclei", "n10", "n2v", 0, seed) for seed in (5, 6)]


@pytest.mark.parametrize("methods", [["sequential"], ["denoiseg_warm"]])
def test_upstream_runs_come_along_once_and_first(config, methods):
    grid = select(config, methods=methods, n_annotated=[4, 16], seeds=[1, 2], noises=["n20"])
    n2v = {seed: Run("nuclei", "n20", "n2v", 0, seed) for seed in (1, 2)}
    assert sorted(run for run in grid.runs if run.method == "n2v") == list(n2v.values())
    assert len(grid.runs) == 2 + 2 * 2
    assert grid.method_names == methods
    assert {run.method for run in grid.scored_runs} == set(methods)
    for run in grid.scored_runs:
        assert grid.upstream(run) == [n2v[run.seed]]
        assert grid.runs.index(n2v[run.seed]) < grid.runs.index(run)


def test_input_and_init_runs(config):
    grid = Grid(config)
    n2v = Run("nuclei", "n10", "n2v", 0, 2)
    found = {
        method: (grid.input_run(run), grid.init_run(run))
        for method in grid.method_names
        for run in [Run("nuclei", "n10", method, 4, 2)]
    }
    assert found == {
        "n2v": (None, None),
        "baseline": (None, None),
        "sequential": (n2v, None),
        "denoiseg": (None, None),
        "denoiseg_warm": (None, n2v),
    }


def test_predicts_all_images_where_others_train_on_them(config):
    grid = Grid(config)
    subsets = {method: grid.predicted_subsets(method) for method in grid.method_names}
    assert sorted(subsets.pop("n2v")) == ["cross", "test", "train", "val"]
    assert set(map(tuple, subsets.values())) == {("test", "cross")}
    grid = select(config, methods=["n2v", "denoiseg_warm"])
    assert grid.predicted_subsets("n2v") == ["test", "cross"]
    config["predicted_images"] = "all"
    assert sorted(Grid(config).predicted_subsets("baseline")) == ["cross", "test", "train", "val"]


def test_denoisers_behind_labels_depend_on_labels(config):
    """Noise2Void on the output of DenoiSeg is another one for every label count."""
    config["methods"]["twice"] = {"input": "denoiseg", "target": "blind_spot", "alpha": 1}
    grid = select(config, methods=["twice"], n_annotated=[4, 16], seeds=[1], noises=["n10"])
    assert grid.runs == [
        Run("nuclei", "n10", method, count, 1) for count in (4, 16) for method in DEPENDENT
    ]


DEPENDENT = ("denoiseg", "twice")


def test_what_two_others_build_on_runs_once(config):
    config["methods"]["both"] = {"input": "denoiseg", "init": "n2v", "alpha": 0}
    config["methods"]["denoiseg"]["init"] = "n2v"
    grid = select(config, methods=["both"], n_annotated=[4], seeds=[1], noises=["n10"])
    assert [run.method for run in grid.runs] == ["n2v", "denoiseg", "both"]


def test_no_method_is_dropped(config):
    """A method that another one pulled in first must still be shown, in any order."""
    names = list(config["methods"])
    for methods in (names, names[::-1]):
        grid = select(config, methods=methods, seeds=[1], n_annotated=[4], noises=["n10"])
        assert {run.method for run in grid.scored_runs} == set(names)
        assert len(grid.runs) == len(names)


def test_how_many_annotated_images_each_dataset_needs(config):
    config["datasets"]["lines"] = {"source": "simulate", "structure": "filaments"}
    grid = select(config, datasets=["nuclei", "lines"], n_annotated=[4, 16, 8])
    assert grid.n_annotated == {"nuclei": 16, "lines": 0}
    assert select(config, datasets=["nuclei"], methods=["n2v"]).n_annotated == {"nuclei": 0}


def test_a_recipe_of_its_own_or_that_of_the_study(config):
    config["methods"]["n2v"]["recipe"] = "other"
    grid = Grid(config)
    found = {name: grid.recipe_of(method) for name, method in grid.methods.items()}
    assert found.pop("n2v") == grid.recipes["other"] != grid.recipes["fast"]
    assert set(found.values()) == {grid.recipes["fast"]}


N2S = {"target": "blind_spot", "masking": "grid_interpolate", "alpha": 1}


def test_a_network_for_each_image_that_is_predicted(config):
    config["methods"] |= {
        "single": N2S | {"each_image": True},
        "seg": {"input": "single", "alpha": 0},
    }
    grid = select(config, methods=["single", "n2v"])
    assert grid.own_subsets("single") == ["test", "cross"]
    assert grid.own_subsets("n2v") == []
    # Its J-invariant prediction is of what it was trained on, all but one subset of the pixels.
    assert grid.judged_subsets("nuclei", "single") == ["test", "cross"]
    assert grid.judged_subsets("nuclei", "n2v") == []
    grid = select(config, methods=["single", "seg"])
    assert grid.own_subsets("single") == ["train", "val", "test", "cross"]


def test_only_methods_that_may_know_it_are_told_the_noise(config):
    """Otherwise a change of the level's words would train all others again."""
    config["methods"] |= {
        "n2n": {"target": "second_noisy", "alpha": 1},
        "nlm": {"classical": "nlm", "noise_sigma": "known"},
        "tv": {"classical": "tv"},
    }
    grid = Grid(config)
    told = {name: grid.noise_level(name, "n20") for name in grid.methods}
    assert {name for name, level in told.items() if level} == {"n2n", "nlm"}
    assert told["nlm"] == config["noises"]["n20"]


def test_runs_are_plain_values(config):
    assert Run("a", "n0", "m", 4, 1).as_dict() == {
        "dataset": "a",
        "noise": "n0",
        "method": "m",
        "n_annotated": 4,
        "seed": 1,
    }


@pytest.mark.parametrize(
    "axis, kind, available",
    [
        ("methods", "method", "n2v, baseline, sequential, denoiseg, denoiseg_warm"),
        ("noises", "noise", "n0, n10, n20"),
        ("datasets", "dataset", "nuclei"),
    ],
)
def test_unknown_names(config, axis, kind, available):
    config["grid"][axis] = [*config["grid"][axis], "n2s2"]
    expected = f"unknown {kind} 'n2s2'; available: {available} (config key grid.{axis})"
    assert message(config) == expected


def test_unknown_recipe(config):
    config["recipe"] = "fsat"
    assert message(config) == "unknown recipe 'fsat'; available: fast, other (config key recipe)"


def test_unknown_reference(config):
    config["grid"]["reference"] = "denoisag"
    assert message(config).startswith("unknown method 'denoisag'; available: n2v, baseline, ")
    assert message(config).endswith("(config key grid.reference)")


# Whether datasets and noise levels have what the methods need

FOLDER = {"source": "folder", "images": "images", "masks": "masks"}
N2N = {"target": "second_noisy", "alpha": 1}
SUPERVISED = {"target": "clean", "alpha": 1}


def with_method(config, fields, **axes):
    """Study one more method alone."""
    config["methods"]["new"] = fields
    config["grid"] |= {"methods": ["new"]} | axes
    return config


def test_clean_targets_need_clean_images(config):
    config["datasets"]["own"] = FOLDER
    assert message(with_method(config, SUPERVISED, datasets=["nuclei", "own"])) == (
        "config key 'methods.new.target' is 'clean', but dataset 'own' has no clean images; set "
        "'datasets.own.clean', or leave new out of grid.methods"
    )
    config["datasets"]["own"] = FOLDER | {"clean": "clean"}
    Grid(config)


def test_a_second_copy_needs_noise(config):
    assert message(with_method(config, N2N, noises=["n10", "n0"])) == (
        "config key 'methods.new.target' is 'second_noisy', but noise level 'n0' adds no noise, so "
        "that there is no second copy to draw; leave new out of grid.methods, or n0 out of "
        "grid.noises"
    )
    select(config, noises=["n10"])


@pytest.mark.parametrize(
    "level, words",
    [
        ({"kind": "poisson", "photons": 2}, "poisson, photons 2"),
        ({"kind": "gaussian_factor", "factor": 0.5}, "gaussian_factor, factor 0.5"),
        ({"kind": "none"}, "none"),
    ],
)
def test_known_noise_needs_a_standard_deviation(config, level, words):
    config["noises"]["odd"] = level
    fields = {"classical": "nlm", "noise_sigma": "known"}
    assert message(with_method(config, fields, noises=["n10", "odd"])) == (
        f"config key 'methods.new.noise_sigma' is 'known', but noise level 'odd' ({words}) has no "
        "single standard deviation; write 'noise_sigma: estimated'"
    )
    select(config, noises=["n10"])


def test_a_missing_package_is_named_with_the_way_to_install_it(config, monkeypatch):
    monkeypatch.setattr(classical.importlib.util, "find_spec", lambda name: None)
    assert message(with_method(config, {"classical": "bm3d"})) == (
        "config key 'methods.new.classical' is 'bm3d', but that package is not installed; install "
        "it with `python -m pip install -c constraints.txt -e '.[bm3d]'`"
    )
    select(config, methods=["n2v"])
    monkeypatch.setattr(classical.importlib.util, "find_spec", lambda name: name)
    select(config, methods=["new"])


def test_what_others_build_on_is_checked_too(config):
    config["methods"]["supervised"] = SUPERVISED
    config["datasets"]["own"] = FOLDER
    fields = {"input": "supervised", "alpha": 0}
    assert "'methods.supervised.target' is 'clean'" in message(
        with_method(config, fields, datasets=["own"])
    )


# Datasets without masks

LINES = {"source": "simulate", "structure": "filaments", "split": {"val": 0.2, "test": 0.2}}


def test_methods_that_segment_are_left_out_where_there_are_no_masks(config):
    """Those behind labels as well; the other datasets keep them all."""
    config["datasets"]["lines"] = LINES
    config["methods"]["behind"] = {"input": "denoiseg", "target": "blind_spot", "alpha": 1}
    names = [*config["methods"]]
    grid = select(
        config, datasets=["lines", "nuclei"], methods=names, n_annotated=[4], seeds=[1, 2]
    )
    found = {
        dataset: {run.method for run in grid.runs if run.dataset == dataset}
        for dataset in ("lines", "nuclei")
    }
    assert found == {"lines": {"n2v"}, "nuclei": set(names)}
    assert [run for run in grid.runs if run.dataset == "lines"] == [
        Run("lines", noise, "n2v", 0, seed) for noise in ("n10", "n20") for seed in (1, 2)
    ]


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
    assert grid.tables == ["denoising", "self_supervision", "paired"]
    assert grid.figures("lines") == ["denoising_levels", "training_curves", "calibration"]
    assert grid.n_annotated == {"lines": 0}
    assert grid.summary["annotated images"] == []
    assert grid.candidates("lines", "n10", "denoised")[0].method == "n2v"
    assert grid.candidates("lines", "n10", "labels") == []


def test_masks_are_needed_if_all_methods_segment(config):
    config["datasets"]["lines"] = {"source": "folder", "images": "images"}
    segmenting = ["baseline", "sequential", "denoiseg"]
    config["grid"] |= {"datasets": ["nuclei", "lines"], "methods": segmenting}
    assert message(config) == (
        "dataset 'lines' has no masks, but all methods of grid.methods learn from masks; set "
        "'datasets.lines.masks', or add a method that only denoises"
    )
    select(config, methods=[*segmenting, "n2v"])


@pytest.mark.parametrize("methods", [["baseline"], ["n2v", "baseline"]])
def test_label_counts_are_needed_by_methods_that_segment(config, methods):
    config["grid"] |= {"n_annotated": [], "methods": methods}
    assert message(config) == (
        "config key 'grid.n_annotated' is missing, but method 'baseline' learns from annotated "
        "images; say how many, such as [4]"
    )
    config["grid"]["methods"] = ["baseline"]
    assert len(select(config, n_annotated=[4, 16]).runs) == 2 * 2 * 2


# Tables and figures


def test_methods_are_checked_even_if_not_selected(config):
    config["methods"]["idle"] = {"target": "none", "alpha": 1}
    assert "'methods.idle'" in message(config)


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
    assert select(config, methods=methods).tables == tables


def test_no_denoising_table_without_truth(config):
    config["datasets"]["own"] = {"source": "folder", "images": "images", "masks": "masks"}
    grid = select(config, datasets=["own"])
    assert grid.tables == ["segmentation", "self_supervision", "paired"]
    assert grid.figures("own") == ["label_curves", "training_curves"]
    grid = select(config, datasets=["own", "nuclei"])
    assert "denoising" in grid.tables
    assert grid.figures("own") == ["label_curves", "training_curves"]
    assert grid.figures("nuclei") == ["label_curves", "denoising_levels", "training_curves"]


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
    assert grid.tables == ["denoising", "self_supervision"]
    assert grid.judged_subsets("nuclei", "median") == []
    assert grid.judged_subsets("own", "median") == ["test", "cross"]
    figures = ["denoising_levels", "training_curves", "calibration"]
    assert (grid.figures("nuclei"), grid.figures("own")) == (figures, figures[1:])
    assert grid.calibrated_denoisers == {"median": "median", "tv": "tv"}
    assert grid.noise_sigmas == {"nlm": "known", "tv": "estimated"}
    grid = select(config, methods=["nlm", "raw"], datasets=["nuclei"])
    assert (grid.tables, grid.figures("nuclei")) == (["denoising"], ["denoising_levels"])


@pytest.mark.parametrize("paper", [None, "noise2self"])
def test_a_table_in_the_shape_of_a_paper_is_asked_for(config, paper):
    grid = Grid(config | {"paper": paper})
    assert ("paper" in grid.tables) == (paper is not None)
    assert grid.comparison["paper"] == paper


def test_published_tables_are_those_of_the_denoiseg_paper(config):
    for name, wanted in [("bsd68", False), ("camera", False), ("flywing", True)]:
        config["datasets"]["nuclei"]["published"] = name
        grid = Grid(config)
        assert ("published" in grid.tables) == wanted
        assert grid.published_datasets == {"nuclei": name}


@pytest.mark.parametrize(
    "spec, known",
    [
        ({"source": "simulate"}, True),
        ({"source": "folder", "images": "a"}, False),
        ({"source": "folder", "images": "a", "clean": None}, False),
        ({"source": "folder", "images": "a", "clean": "b"}, True),
        ({"source": "remote", "url": "u", "format": "denoiseg_npz"}, True),
        ({"source": "remote", "url": "u", "format": "folder", "images": "a"}, False),
        ({"source": "remote", "url": "u", "format": "folder", "images": "a", "clean": "b"}, True),
    ],
)
def test_where_the_clean_truth_is_known(config, spec, known):
    config["datasets"]["nuclei"] = spec
    assert Grid(config).has_clean_truth("nuclei") is known


def test_published_numbers(config):
    assert Grid(config).published_datasets == {}
    config["datasets"]["nuclei"]["published"] = "dsb"
    config["datasets"]["idle"] = {"source": "simulate", "published": "mouse"}
    grid = select(config, methods=["denoiseg_warm", "denoiseg", "n2v"])
    assert grid.published_datasets == {"nuclei": "dsb"}
    assert grid.published_methods == {"denoiseg": "denoiseg_alpha0.5", "n2v": "n2v"}
    assert grid.tables[-1] == "published"
    assert grid.comparison == {
        "tables": ["segmentation", "denoising", "paired", "published"],
        "paper": None,
        "methods": ["denoiseg_warm", "denoiseg", "n2v"],
        "noises": {"n10": "gaussian, sigma 10", "n20": "gaussian, sigma 20"},
        "noise_sigmas": {},
        "untrained": [],
        "reference": "denoiseg",
        "published_datasets": grid.published_datasets,
        "published_methods": grid.published_methods,
    }


def test_examples_are_runs_of_the_study(config):
    grid = Grid(config)
    runs = grid.example_runs("nuclei", "n20")
    assert [run.method for run in runs] == grid.method_names
    assert {run.n_annotated for run in runs} == {0, 4}
    assert set(runs) <= set(grid.runs)


def test_candidates_are_the_runs_with_the_most_annotated_images(config):
    """The reference method first, which is taken where nothing is scored, or else the last one."""
    grid = Grid(config)
    found = {purpose: grid.candidates("nuclei", "n20", purpose) for purpose in PURPOSES}
    assert found["labels"][0] == Run("nuclei", "n20", "denoiseg", 16, 1)
    assert {run.n_annotated for run in found["labels"]} == {16}
    segmenting = ["denoiseg", "denoiseg_warm", "sequential", "baseline"]
    assert [run.method for run in found["labels"]] == segmenting
    denoising = ["denoiseg", "denoiseg_warm", "n2v"]
    assert [run.method for run in found["denoised"]] == denoising
    assert Run("nuclei", "n20", "n2v", 0, 1) in found["denoised"]
    assert [run.method for run in grid.examined("nuclei", "n20")] == [*segmenting, "n2v"]
    grid = select(config, methods=["n2v", "baseline"])
    assert [run.method for run in grid.candidates("nuclei", "n20", "labels")] == ["baseline"]
    grid = select(config, methods=["baseline", "sequential"])
    (read,) = grid.candidates("nuclei", "n20", "denoised")
    assert read.method == "n2v"  # what sequential segments
    grid = select(config, methods=["baseline"])
    assert grid.candidates("nuclei", "n20", "denoised") == []


def test_short_trainings_are_not_for_judging_methods(config):
    """A kind of trainings, whatever the recipe is called; what is not trained has none."""
    fast = config["recipes"]["fast"]
    fast |= {"epochs": SHORT - 1, "steps_per_epoch": 1}
    (note,) = Grid(config).notes
    assert note.startswith(f"The recipe fast trains networks for {SHORT - 1} steps only")
    fast["epochs"] = SHORT
    assert Grid(config).notes == []
    fast["epochs"] = 1
    config["methods"]["median"] = {"classical": "median"}
    assert select(config, methods=["median"], reference="median").notes == []


def test_summary_names_every_axis(config):
    assert Grid(config).summary == {
        "datasets": ["nuclei"],
        "noise levels": ["n10", "n20"],
        "methods": ["n2v", "baseline", "sequential", "denoiseg", "denoiseg_warm"],
        "annotated images": ["4", "16"],
        "seeds": ["1", "2"],
        "recipe": ["fast"],
    }


@pytest.mark.parametrize("name, expected", [("dsb2018", 1650), ("flywing", 825), ("mouse", 825)])
def test_paper_grids(read_config, schema, name, expected):
    """3 noise levels, 11 methods that segment, 5 seeds; 10 label counts, or 5."""
    config = read_config(f"paper/{name}.yaml")
    configuration.check(config, schema)
    configuration.fill_defaults(config, schema)
    grid = Grid(config)
    by_method = {
        method: [run for run in grid.runs if run.method == method] for method in grid.methods
    }
    assert len(by_method.pop("n2v")) == 3 * 5
    assert sum(map(len, by_method.values())) == expected
    used = {method: len(runs) for method, runs in by_method.items() if runs}
    assert len(used) == 11
    assert set(used.values()) == {expected // 11}
    for method in used:
        recipe = grid.recipe_of(grid.methods[method])
        assert (recipe.depth, recipe.filters, recipe.batch_size) == (4, 32, 128)
    assert grid.tables == ["segmentation", "denoising", "paired", "published"]


# Few annotated images


@pytest.fixture
def few(config):
    """Five annotated images of twelve, which are cross-validated."""
    config["datasets"]["nuclei"] |= {"n_images": 12, "annotated": 5}
    config["datasets"]["nuclei"]["split"] |= {"cross_validate_below": 8}
    return config


def counts(grid):
    return sorted({run.n_annotated for run in grid.runs if run.n_annotated})


@pytest.mark.parametrize(
    "annotated, below, wanted, expected",
    [
        (5, 8, ["all"], [5]),
        (5, 8, [2, "all"], [2, 5]),
        (5, 0, ["all"], [3]),
        (12, 8, ["all", 4], [4, 7]),
        (12, 8, ["all", 7], [7]),
    ],
)
def test_all_annotated_images(few, annotated, below, wanted, expected):
    few["datasets"]["nuclei"] |= {"annotated": annotated}
    few["datasets"]["nuclei"]["split"] |= {"cross_validate_below": below}
    grid = select(few, n_annotated=wanted)
    assert counts(grid) == expected
    assert grid.is_cross_validated("nuclei") == (annotated < below)


def refused(config, **axes):
    with pytest.raises(InputError) as caught:
        select(config, **axes)
    return str(caught.value)


def test_all_annotated_images_of_an_archive_are_not_known_yet(few):
    few["datasets"]["far"] = {
        "source": "remote", "url": "https://a.b/c.zip", "format": "denoiseg_npz", "split": "given",
    }  # fmt: skip
    assert refused(few, datasets=["far"], n_annotated=["all"]) == (
        "config key 'grid.n_annotated' has 'all', but how many masks dataset 'far' has is not "
        "known before it is prepared; write numbers, such as [4]"
    )


def test_the_report_says_which_images_were_cross_validated(few):
    few["notes"] = ["Mine."]
    few["recipes"]["fast"]["epochs"] = SHORT
    few["datasets"]["more"] = few["datasets"]["nuclei"] | {"annotated": 12}
    own, note = select(few, datasets=["nuclei", "more"]).notes
    assert own == "Mine."
    assert note.startswith("The annotated images of nuclei are few, and so were cross-validated")
    assert few["notes"] == ["Mine."]


def test_cross_validation_needs_two_images(few):
    assert refused(few, n_annotated=[1]) == (
        "grid.n_annotated asks for 1 annotated image, but the annotated images of dataset nuclei "
        "are cross-validated, each by a network that was trained on others: ask for 2 at least"
    )


def test_the_folders_are_left_alone_where_nothing_asks_for_numbers(config):
    config["datasets"]["nuclei"] = {"source": "folder", "images": "nowhere", "masks": "nowhere"}
    assert Grid(config).runs


def test_volumes_are_noted_for_the_reader(config):
    config["datasets"]["deep"] = {"source": "simulate", "depth": 8, "n_images": 48}
    config["recipes"]["fast"]["epochs"] = SHORT
    assert select(config).notes == []
    config["datasets"]["deep"] |= {"split": config["datasets"]["nuclei"]["split"]}
    (note,) = select(config, datasets=["nuclei", "deep"]).notes
    assert note.startswith("Pictures of deep show the middle plane of a volume")


@pytest.mark.usefixtures("elsewhere")
def test_bm3d_of_volumes_only_plane_by_plane(config):
    config["datasets"]["nuclei"]["depth"] = 8
    config["methods"]["bm3d"] = {"classical": "bm3d"}
    assert refused(config, methods=["bm3d"]).startswith(
        "config key 'methods.bm3d.classical' is 'bm3d', which is defined for planes only, but "
        "dataset 'nuclei' is made of volumes; write 'planes: true'"
    )
    config["methods"]["bm3d"]["planes"] = True
    assert select(config, methods=["bm3d"]).runs


# --- whatever the grid ---------------------------------------------------------------------------

METHODS = ["n2v", "baseline", "sequential", "denoiseg", "denoiseg_warm"]


def some(values):
    return st.lists(st.sampled_from(values), min_size=1, unique=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    noises=some(["n0", "n10", "n20"]),
    methods=some(METHODS),
    n_annotated=some([1, 2, 4, 8, 16]),
    seeds=some([0, 1, 2, 7]),
)
def test_every_grid_is_complete_without_repetition_and_in_order(config, **axes):
    grid = select(config, **axes)
    assert len(set(grid.runs)) == len(grid.runs)
    for place, run in enumerate(grid.runs):
        assert set(grid.upstream(run)) <= set(grid.runs[:place])
        assert (run.noise in axes["noises"]) and (run.seed in axes["seeds"])
    for method in axes["methods"]:
        counts = [0] if method == "n2v" else axes["n_annotated"]
        found = [run for run in grid.scored_runs if run.method == method]
        expected = {
            Run("nuclei", noise, method, count, seed)
            for noise in axes["noises"]
            for count in counts
            for seed in axes["seeds"]
        }
        assert len(found) == len(expected) and set(found) == expected
    # What is not asked for is there for others alone.
    extra = set(grid.runs) - set(grid.scored_runs)
    assert extra <= {needed for run in grid.runs for needed in grid.upstream(run)}
    assert grid.n_annotated == {"nuclei": max(run.n_annotated for run in grid.runs)}
    # In another order, the same runs; of a larger grid, they are a part.
    turned = select(config, **{axis: values[::-1] for axis, values in axes.items()})
    assert set(turned.runs) == set(grid.runs)
    larger = select(config, **axes | {"methods": METHODS})
    assert set(grid.runs) <= set(larger.runs)
