"""From the config to the runs: none dropped, none twice, and clear words for what is wrong."""

import subprocess
import sys

import pytest

from denoiseg_flow import configuration
from denoiseg_flow.errors import InputError
from denoiseg_flow.grid import Grid, Run


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
        n_labelled=[2, 4, 8, 16, 32],
        seeds=[1, 2, 3, 4, 5, 6, 7],
    )
    assert len(grid.runs) == 2 * 3 * 2 * 5 * 7
    assert set(grid.runs) == {
        Run(dataset, noise, method, n_labelled, seed)
        for dataset in ("nuclei", "more")
        for noise in ("n0", "n10", "n20")
        for method in ("baseline", "denoiseg")
        for n_labelled in (2, 4, 8, 16, 32)
        for seed in (1, 2, 3, 4, 5, 6, 7)
    }


def test_methods_without_labels_run_once(config):
    grid = select(config, methods=["n2v"], n_labelled=[1, 2, 3], seeds=[5, 6], noises=["n10"])
    assert grid.runs == [Run("nuclei", "n10", "n2v", 0, seed) for seed in (5, 6)]


@pytest.mark.parametrize("methods", [["sequential"], ["denoiseg_warm"]])
def test_upstream_runs_come_along_once_and_first(config, methods):
    grid = select(config, methods=methods, n_labelled=[4, 16], seeds=[1, 2], noises=["n20"])
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
    assert sorted(subsets.pop("n2v")) == ["test", "train", "val"]
    assert set(map(tuple, subsets.values())) == {("test",)}
    grid = select(config, methods=["n2v", "denoiseg_warm"])
    assert grid.predicted_subsets("n2v") == ["test"]
    config["predict"] = "all"
    assert sorted(Grid(config).predicted_subsets("baseline")) == ["test", "train", "val"]


def test_patches_must_fit_the_depth(config):
    config["recipes"]["fast"] |= {"depth": 3, "patch_size": 36}
    assert message(config) == (
        "config key 'recipes.fast.patch_size' is 36, but depth 3 needs a multiple of 8"
    )


def test_denoisers_behind_labels_depend_on_labels(config):
    """Noise2Void on the output of DenoiSeg is another one for every label count."""
    config["methods"]["twice"] = {"input": "denoiseg", "target": "blind_spot", "alpha": 1}
    grid = select(config, methods=["twice"], n_labelled=[4, 16], seeds=[1], noises=["n10"])
    assert grid.runs == [
        Run("nuclei", "n10", method, count, 1) for count in (4, 16) for method in DEPENDENT
    ]


DEPENDENT = ("denoiseg", "twice")


def test_no_method_is_dropped(config):
    """A method that another one pulled in first must still be shown, in any order."""
    names = list(config["methods"])
    for methods in (names, names[::-1]):
        grid = select(config, methods=methods, seeds=[1], n_labelled=[4], noises=["n10"])
        assert {run.method for run in grid.scored_runs} == set(names)
        assert len(grid.runs) == len(names)


def test_runs_are_plain_values(config):
    assert Run("a", "n0", "m", 4, 1).as_dict() == {
        "dataset": "a",
        "noise": "n0",
        "method": "m",
        "n_labelled": 4,
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


@pytest.mark.parametrize("field", ["input", "init"])
def test_unknown_upstream(config, field):
    config["methods"]["sequential"][field] = "care"
    assert message(config).startswith("unknown method 'care'; available: n2v, ")
    assert message(config).endswith(f"(config key methods.sequential.{field})")


@pytest.mark.parametrize(
    "links",
    [
        {"denoiseg": {"init": "denoiseg"}},
        {"denoiseg": {"input": "denoiseg"}},
        {"n2v": {"input": "denoiseg"}, "denoiseg": {"init": "n2v"}},
        {
            "n2v": {"init": "denoiseg"},
            "denoiseg": {"init": "baseline"},
            "baseline": {"input": "n2v"},
        },
    ],
)
def test_circles(config, links):
    for name, fields in links.items():
        config["methods"][name] |= fields
    text = message(config)
    assert "builds on itself, through " in text
    assert text.endswith("change 'input' or 'init' of one of them")
    named = text.split("through ")[1].split(";")[0].split(" and ")
    assert set(named) == set(links)


def test_a_circle_that_others_lead_into_is_found(config):
    """Whatever builds on a circle must not send the check round for ever."""
    config["methods"] = {
        "first": {"init": "n2v"},
        "n2v": {"target": "blind_spot", "alpha": 1, "init": "other"},
        "other": {"target": "blind_spot", "alpha": 1, "init": "n2v"},
    }
    config["grid"] |= {"methods": ["first"], "reference": "first"}
    assert "'methods.n2v' builds on itself, through n2v and other" in message(config)


def test_a_diamond_is_no_circle(config):
    config["methods"]["both"] = {"input": "denoiseg", "init": "n2v", "alpha": 0}
    config["methods"]["denoiseg"]["init"] = "n2v"
    grid = select(config, methods=["both"], n_labelled=[4], seeds=[1], noises=["n10"])
    assert [run.method for run in grid.runs] == ["n2v", "denoiseg", "both"]


def test_alpha_without_target(config):
    config["methods"]["denoiseg"] |= {"target": "none", "alpha": 0.3}
    assert message(config) == (
        "config key 'methods.denoiseg' has alpha 0.3 but nothing to learn denoising from; "
        "set 'target: blind_spot', or 'alpha: 0' to segment only"
    )


def test_target_without_alpha(config):
    config["methods"]["baseline"]["target"] = "blind_spot"
    assert message(config) == (
        "config key 'methods.baseline' has target 'blind_spot' but alpha 0, so that nothing would "
        "be denoised; set alpha above 0, or 'target: none'"
    )


def test_input_that_does_not_denoise(config):
    config["methods"]["sequential"]["input"] = "baseline"
    assert message(config) == (
        "config key 'methods.sequential.input' names 'baseline', which does not denoise (alpha 0); "
        "name a method with alpha above 0"
    )


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
    config["datasets"]["own"] = {"source": "folder", "images": "images"}
    grid = select(config, datasets=["own"])
    assert grid.tables == ["segmentation", "paired"]
    assert grid.figures("own") == ["label_curves", "training_curves"]
    grid = select(config, datasets=["own", "nuclei"])
    assert "denoising" in grid.tables
    assert grid.figures("own") == ["label_curves", "training_curves"]
    assert grid.figures("nuclei") == ["label_curves", "denoising_levels", "training_curves"]


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
        "methods": ["denoiseg_warm", "denoiseg", "n2v"],
        "noises": ["n10", "n20"],
        "reference": "denoiseg",
        "published_datasets": grid.published_datasets,
        "published_methods": grid.published_methods,
    }


def test_examples_are_runs_of_the_study(config):
    grid = Grid(config)
    runs = grid.example_runs("nuclei", "n20")
    assert [run.method for run in runs] == grid.method_names
    assert {run.n_labelled for run in runs} == {0, 4}
    assert set(runs) <= set(grid.runs)
    assert grid.showcase_run("nuclei", "n20") == Run("nuclei", "n20", "denoiseg", 4, 1)
    grid = select(config, methods=["n2v", "baseline"])
    assert grid.showcase_run("nuclei", "n20") == Run("nuclei", "n20", "baseline", 4, 1)


def test_summary_names_every_axis(config):
    assert Grid(config).summary == {
        "data sets": ["nuclei"],
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
    assert (grid.recipe.depth, grid.recipe.filters, grid.recipe.batch_size) == (4, 32, 128)
    assert grid.tables == ["segmentation", "denoising", "paired", "published"]


def test_planning_needs_no_torch():
    code = (
        "import sys, denoiseg_flow.grid, denoiseg_flow.configuration; print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
