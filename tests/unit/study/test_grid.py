"""From the config to the runs: none dropped, none twice, and clear words for what is wrong."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.study import configuration, contents
from denoiseg_flow.study.grid import PURPOSES, Grid, Run


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


def test_files_of_a_run_are_made_up_to_where_they_are_needed(config):
    """Scores of what the tables show, predictions of what others read, models of the rest."""
    grid = select(config, methods=["sequential", "denoiseg_warm"])
    rules = {run.method: grid.rules_of(run) for run in grid.runs}
    every = ["train", "predict_run", "score"]
    assert rules == {"n2v": every[:2], "sequential": every, "denoiseg_warm": every}
    grid = select(config, methods=["denoiseg_warm"])
    assert {run.method: grid.rules_of(run) for run in grid.runs}["n2v"] == ["train"]


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


def test_only_segmenters_that_learn_depend_on_annotated_images(config):
    config["methods"] |= {
        "otsu": {"segmenter": "otsu", "input": "n2v"},
        "otsu_denoiseg": {"segmenter": "otsu", "input": "denoiseg"},
        "forest": {"segmenter": "pixel_classifier"},
    }
    grid = select(config, methods=["otsu", "otsu_denoiseg", "forest"], noises=["n10"], seeds=[1])
    assert {(run.method, run.n_annotated) for run in grid.runs} == {
        *(("otsu", 0), ("n2v", 0), ("otsu_denoiseg", 4), ("otsu_denoiseg", 16)),
        *(("denoiseg", 4), ("denoiseg", 16), ("forest", 4), ("forest", 16)),
    }
    assert [run.method for run in grid.candidates("nuclei", "n10", "labels")] == [
        "forest", "otsu_denoiseg", "otsu",
    ]  # fmt: skip
    assert [run.method for run in grid.candidates("nuclei", "n10", "probabilities")] == ["forest"]
    assert grid.predicts_probabilities("nuclei", "n10")
    grid = select(config, methods=["otsu"])
    assert not grid.predicts_probabilities("nuclei", "n10")
    config["datasets"]["nuclei"] = {"source": "folder", "images": "images"}
    assert {run.method for run in Grid(config).runs} == {"otsu", "n2v"}


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


def test_methods_are_checked_even_if_not_selected(config):
    config["methods"]["idle"] = {"target": "none", "alpha": 1}
    assert "'methods.idle'" in message(config)


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
    assert contents.tables(grid) == ["segmentation", "denoising", "paired", "published"]


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


def test_all_annotated_images_of_an_archive_are_not_known_yet(few):
    few["datasets"]["far"] = {
        "source": "remote", "url": "https://a.b/c.zip", "format": "denoiseg_npz", "split": "given",
    }  # fmt: skip
    few["grid"] |= {"datasets": ["far"], "n_annotated": ["all"]}
    assert message(few) == (
        "config key 'grid.n_annotated' contains 'all', but the number of masks of dataset 'far' is "
        "unknown until it is prepared; use numbers, e.g. [4]"
    )


def test_the_folders_are_left_alone_where_nothing_asks_for_numbers(config):
    config["datasets"]["nuclei"] = {"source": "folder", "images": "nowhere", "masks": "nowhere"}
    assert Grid(config).runs


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


def test_a_pixel_classifier_predicts_no_distance(config):
    config["methods"]["forest"] = {"segmenter": "pixel_classifier"}
    grid = Grid(config)
    ways = [grid.recipe_of(grid.methods[name]).instances for name in ("baseline", "forest")]
    assert ways == ["distance", "watershed"]
    config["recipes"]["fast"]["instances"] = "components"
    assert Grid(config).recipe_of(grid.methods["forest"]).instances == "components"


def test_only_methods_from_a_pretrained_network_run_without_annotated_images(config):
    config["methods"]["pretrained"] = {"alpha": 0, "init": "simulated_objects"}
    config["recipes"]["fast"]["finetune"] = "other"
    config["grid"] |= {"methods": ["baseline", "pretrained", "n2v"], "n_annotated": [0, 4]}
    grid = Grid(config)
    counts = {name: set() for name in grid.method_names}
    for run in grid.runs:
        counts[run.method].add(run.n_annotated)
        assert grid.init_run(run) is None
    assert counts == {"baseline": {4}, "pretrained": {0, 4}, "n2v": {0}}
    assert [grid.recipe_name(grid.methods[name]) for name in counts] == ["fast", "other", "fast"]
    config["datasets"]["nuclei"] = {"source": "folder", "images": "images", "split": {}}
    assert {run.method for run in Grid(config).runs} == {"pretrained", "n2v"}


@pytest.mark.parametrize(
    ("fields", "own", "counts"),
    [
        ({}, {}, {0, 4}),
        ({"target": "blind_spot", "alpha": 0.5}, {}, {4}),
        ({"target": "blind_spot", "alpha": 1}, {}, {0}),
        ({"recipe": "other"}, {}, {4}),
        ({}, {"target": "blind_spot", "alpha": 1}, {4}),
    ],
    ids=["itself", "joint", "denoises", "other_instances", "from_a_denoiser"],
)
def test_a_model_that_segments_runs_without_annotated_images(
    config, tmp_path, make_model, fields, own, counts
):
    save_model(make_model(Method("own", **own)), tmp_path / "a.pt")
    config["recipes"]["fast"]["instances"] = "components"
    config["recipes"]["other"]["instances"] = "watershed"
    config["methods"]["new"] = {"init": str(tmp_path / "a.pt")} | fields
    config["methods"]["continued"] = {"init": "new"} | fields
    config["grid"] |= {"methods": ["new", "continued"], "n_annotated": [0, 4]}
    grid = Grid(config)
    assert {run.n_annotated for run in grid.runs if run.method == "new"} == counts
    for run in grid.runs:
        assert (grid.init_run(run) is None) == (run.method == "new")
        assert not grid.rehearses(run)
        assert grid.recipe_name(grid.methods[run.method]) == fields.get("recipe", "fast")
    assert grid.initial_model("new").identity["method"] == "own"
    assert grid.initial_model("continued") is None
    assert grid.first_method("continued").name == "new"
