"""Whether datasets, noise levels and recipes have what the methods need."""

import pytest

from denoiseg_flow.errors import InputError
from denoiseg_flow.methods import classical
from denoiseg_flow.models.model_file import save_model
from denoiseg_flow.study.feasibility import check_feasible, check_subsets
from denoiseg_flow.study.grid import Grid


def message(config):
    grid = Grid(config)
    with pytest.raises(InputError) as caught:
        check_feasible(grid)
    return str(caught.value)


def accept(config, **axes):
    config["grid"] |= axes
    grid = Grid(config)
    check_feasible(grid)
    return grid


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
        "'datasets.own.clean', or remove new from grid.methods"
    )
    config["datasets"]["own"] = FOLDER | {"clean": "clean"}
    accept(config)


def test_a_second_copy_needs_noise(config):
    assert message(with_method(config, N2N, noises=["n10", "n0"])) == (
        "config key 'methods.new.target' is 'second_noisy', but noise level 'n0' adds no noise, so "
        "there is no second noisy copy; remove new from grid.methods, or n0 from grid.noises"
    )
    accept(config, noises=["n10"])


def test_a_second_acquisition_needs_none(config):
    config["datasets"]["own"] = FOLDER
    assert message(with_method(config, N2N, datasets=["own"], noises=["n0"])).endswith(
        "so there is no second noisy copy; name second acquisitions under 'datasets.own.second' "
        "(or their axis under 'repeats'), remove new from grid.methods, or n0 from grid.noises"
    )
    for further in ({"second": "second"}, {"repeats": "T"}):
        config["datasets"]["own"] = FOLDER | further
        accept(config)
        accept(config, noises=["n0", "n10"])


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
        "single standard deviation; set 'noise_sigma: estimated'"
    )
    accept(config, noises=["n10"])


def test_a_missing_package_is_named_with_the_way_to_install_it(config, monkeypatch):
    monkeypatch.setattr(classical.importlib.util, "find_spec", lambda name: None)
    assert message(with_method(config, {"classical": "bm3d"})) == (
        "config key 'methods.new.classical' is 'bm3d', but that package is not installed; install "
        "it with `python -m pip install -c constraints.txt -e '.[bm3d]'`"
    )
    accept(config, methods=["n2v"])
    monkeypatch.setattr(classical.importlib.util, "find_spec", lambda name: name)
    accept(config, methods=["new"])


def test_what_others_build_on_is_checked_too(config):
    config["methods"]["supervised"] = SUPERVISED
    config["datasets"]["own"] = FOLDER
    fields = {"input": "supervised", "alpha": 0}
    assert "'methods.supervised.target' is 'clean'" in message(
        with_method(config, fields, datasets=["own"])
    )


def test_masks_are_needed_if_all_methods_segment(config):
    config["datasets"]["lines"] = {"source": "folder", "images": "images"}
    segmenting = ["baseline", "sequential", "denoiseg"]
    config["grid"] |= {"datasets": ["nuclei", "lines"], "methods": segmenting}
    assert message(config) == (
        "dataset 'lines' has no masks, but all methods of grid.methods learn from masks; set "
        "'datasets.lines.masks', or add a method that only denoises or has 'init: "
        "simulated_objects'"
    )
    accept(config, methods=[*segmenting, "n2v"])


@pytest.mark.parametrize("methods", [["baseline"], ["n2v", "baseline"]])
def test_label_counts_are_needed_by_methods_that_segment(config, methods):
    config["grid"] |= {"n_annotated": [], "methods": methods}
    assert message(config) == (
        "config key 'grid.n_annotated' is missing, but method 'baseline' learns from annotated "
        "images; set their number, e.g. [4]"
    )
    config["grid"]["methods"] = ["baseline"]
    assert len(accept(config, n_annotated=[4, 16]).runs) == 2 * 2 * 2


def test_cross_validation_needs_two_images(config):
    config["datasets"]["nuclei"] |= {"n_images": 12, "annotated": 5}
    config["datasets"]["nuclei"]["split"] |= {"cross_validate_below": 8}
    config["grid"]["n_annotated"] = [1]
    assert message(config) == (
        "config key 'grid.n_annotated' contains 1, but the annotated images of dataset 'nuclei' "
        "are cross-validated: each is predicted by a network that was trained on the others; use "
        "at least 2"
    )


@pytest.mark.usefixtures("elsewhere")
def test_bm3d_of_volumes_only_plane_by_plane(config):
    config["datasets"]["nuclei"]["depth"] = 8
    config["methods"]["bm3d"] = {"classical": "bm3d"}
    config["grid"]["methods"] = ["bm3d"]
    assert message(config).startswith(
        "config key 'methods.bm3d.classical' is 'bm3d', which is defined for planes only, but "
        "dataset 'nuclei' is 3D; set 'planes: true'"
    )
    config["methods"]["bm3d"]["planes"] = True
    accept(config)


def test_a_network_pretrained_on_planes_is_not_for_volumes(config):
    size = {"depth": 4, "filters": 16, "instances": "distance"}
    config["recipes"]["fast"] |= size
    config["methods"]["pretrained"] = {"init": "simulated_objects", "recipe": "fast"}
    config["datasets"]["stacks"] = {"source": "simulate", "depth": 8}
    config["grid"] |= {"datasets": ["stacks"], "methods": ["pretrained"], "n_annotated": [0, 4]}
    assert message(config) == (
        "config key 'methods.pretrained.init' is 'simulated_objects', which is for 2D "
        "images, but dataset 'stacks' is 3D; replace pretrained in grid.methods by a method with "
        "'init: simulated_volumes'"
    )
    accept(config, methods=["baseline"], n_annotated=[4])
    accept(config, datasets=["nuclei"], methods=["pretrained"])


def test_a_model_of_planes_is_not_for_volumes(config, tmp_path, make_model):
    save_model(make_model(depth=2, filters=4), tmp_path / "a.pt")
    config["methods"]["new"] = {"init": str(tmp_path / "a.pt")}
    config["datasets"]["stacks"] = {"source": "simulate", "depth": 8}
    accept(config, datasets=["nuclei"], methods=["new"])
    config["grid"] |= {"datasets": ["stacks"], "methods": ["new"]}
    assert "a.pt', a network for 2D images, but dataset 'stacks' is 3D; write" in message(config)
    config["methods"]["new"]["planes"] = True
    accept(config)


def test_0_annotated_images_are_for_pretrained_networks(config):
    config["grid"]["n_annotated"] = [0]
    assert message(config) == (
        "config key 'grid.n_annotated' is 0, but no method of grid.methods starts from a "
        "pretrained network; set another number, e.g. [4], or add a method with 'init: "
        "simulated_objects'"
    )
    config["grid"]["n_annotated"] = [0, 4]
    accept(config)
    config["grid"] |= {"n_annotated": [0], "methods": ["n2v"], "reference": "n2v"}
    accept(config)


def test_pretrained_networks_know_no_colours(config):
    config["datasets"]["own"] = FOLDER | {"colour": "rgb"}
    config["recipes"]["fast"] |= {"depth": 4, "filters": 16, "instances": "distance"}
    fields = {"alpha": 0, "init": "simulated_objects", "recipe": "fast"}
    assert message(with_method(config, fields, datasets=["own"])) == (
        "config key 'methods.new.init' is 'simulated_objects', which is for grey images, "
        "but dataset 'own' is in colour; remove new from grid.methods, or leave out its 'init'"
    )
    config["recipes"]["fast"] |= {"rehearsal": 0.5}
    fields = {"alpha": 0, "rehearse": "simulated_objects", "recipe": "fast"}
    assert message(with_method(config, fields, datasets=["own"])).endswith(
        "leave out its 'rehearse'"
    )
    accept(config, methods=["n2v", "baseline"])


@pytest.mark.parametrize(
    ("split", "methods", "what"),
    [
        ({"val": 0}, ["n2v"], "has no validation images, but method 'n2v' needs some; put"),
        ({"val": 0, "test": 1}, ["n2v"], "has no training images, but method 'n2v' needs some; pu"),
        ({"val": 0, "test": 1}, ["new"], None),
        ({}, ["n2v"], None),
    ],
)
def test_methods_need_training_and_validation_images(config, split, methods, what):
    with_method(config, {"classical": "median"}, methods=methods)
    config["datasets"]["nuclei"]["split"] |= split
    grid = Grid(config)
    if what is None:
        check_subsets(grid)
        return
    with pytest.raises(InputError) as caught:
        check_subsets(grid)
    assert str(caught.value).startswith(f"dataset 'nuclei' {what}")


def test_masks_of_one_group_cannot_be_cross_validated(config, tmp_path):
    table = tmp_path / "splits.csv"
    rows = [f"sim_{k:04d},{'ABC'[k // 2]},{k + 1 if k < 6 else ''}" for k in range(6)]
    rows += [f"sim_{k:04d},D," for k in range(6, 12)]
    table.write_text("\n".join(["image,group,rank", *rows]))
    few = config["datasets"]["nuclei"]
    few |= {"n_images": 12, "annotated": 6}
    few["split"] |= {"cross_validate_below": 8, "file": str(table)}
    config["grid"] |= {"methods": ["baseline"], "n_annotated": [2]}
    with pytest.raises(InputError, match="the first 2 annotated images are all of group 'A'"):
        check_subsets(Grid(config))
    config["grid"]["n_annotated"] = [3]
    check_subsets(Grid(config))
