"""Check that recipes, datasets and noise levels have what the methods of a study need."""

from denoiseg_flow.data.noise import describe, draws_noise, standard_deviation
from denoiseg_flow.data.sources import (
    dimensions,
    has_masks,
    has_repeats,
    in_colour,
    is_grouped,
    sizes_in_advance,
    split_in_advance,
)
from denoiseg_flow.data.splitting import folds
from denoiseg_flow.errors import InputError, shown
from denoiseg_flow.methods.classical import HOW_TO_INSTALL_BM3D, is_available
from denoiseg_flow.methods.consistency import check_size
from denoiseg_flow.methods.definition import Method
from denoiseg_flow.methods.initial_model import check_dimensions
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.study.grid import Grid, Run


def check_feasible(grid: Grid) -> None:
    """Raise InputError if a method of a study cannot be used with its data, noise or recipe."""
    _check_recipes(grid)
    _check_masks(grid)
    _check_cross_validation(grid)
    for dataset, noise, name in dict.fromkeys(
        (run.dataset, run.noise, run.method) for run in grid.runs
    ):
        _check_dataset(grid, grid.methods[name], dataset)
        _check_noise(grid, grid.methods[name], dataset, noise)
        _check_installed(grid.methods[name])
    _check_new_images(grid)


def check_subsets(grid: Grid) -> None:
    """Raise InputError if a split has no images for a subset or fold that methods need.

    The config passed :func:`~denoiseg_flow.data.sources.check_sources`.
    """
    datasets = grid.config["datasets"]
    for name in grid.config["grid"]["datasets"]:
        runs = [run for run in grid.runs if run.dataset == name and _needs_others(grid, run)]
        sizes = sizes_in_advance(datasets[name]) if datasets[name]["source"] != "combine" else None
        if sizes is None or not runs:
            continue
        if sizes.cross and is_grouped(datasets, name):
            for n_annotated, seed in dict.fromkeys((run.n_annotated, run.seed) for run in runs):
                folds(split_in_advance(datasets[name], seed), n_annotated)
        elif not sizes.cross and not (sizes.train and sizes.val):
            lacking, what = ("val", "validation") if sizes.train else ("train", "training")
            raise InputError(
                f"dataset '{name}' has no {what} images, but method '{runs[0].method}' needs some; "
                f"put images into the subset {lacking} with 'split: val' and 'split: test' or the "
                "table of its split, or remove the method from grid.methods"
            )


def _needs_others(grid: Grid, run: Run) -> bool:
    """Return whether a method is trained on other images than those that it predicts."""
    return grid.methods[run.method].trained and not grid.methods[run.method].each_image


def _check_recipes(grid: Grid) -> None:
    for name in dict.fromkeys(run.method for run in grid.runs):
        method = grid.methods[name]
        key = f"recipes.{grid.recipe_name(method)}"
        check_size(method, grid.methods, grid.recipe_of, key)
        if initial := grid.initial_model(name):
            initial.check_network(method, grid.recipe_of(method))


def _check_masks(grid: Grid) -> None:
    axes = grid.config["grid"]
    learning = [name for name in axes["methods"] if grid.uses_masks(name)]
    needing = [name for name in learning if grid.needs_masks(name)]
    if axes["n_annotated"] == [0] and needing and needing == learning:
        raise InputError(
            "config key 'grid.n_annotated' is 0, but no method of grid.methods starts from a "
            "pretrained network; set another number, e.g. [4], or add a method with "
            f"'init: {next(iter(PRETRAINED))}'"
        )
    for dataset in axes["datasets"]:
        masks = has_masks(grid.config["datasets"], dataset)
        if masks and learning and not axes["n_annotated"]:
            raise InputError(
                f"config key 'grid.n_annotated' is missing, but method '{learning[0]}' learns "
                "from annotated images; set their number, e.g. [4]"
            )
        if not masks and needing == axes["methods"]:
            raise InputError(
                f"dataset '{dataset}' has no masks, but all methods of grid.methods learn from "
                f"masks; set 'datasets.{dataset}.masks', or add a method that only denoises or has "
                f"'init: {next(iter(PRETRAINED))}'"
            )


def _check_cross_validation(grid: Grid) -> None:
    for run in grid.runs:
        if run.n_annotated == 1 and grid.is_cross_validated(run.dataset):
            raise InputError(
                "config key 'grid.n_annotated' contains 1, but the annotated images of dataset "
                f"'{run.dataset}' are cross-validated: each is predicted by a network that was "
                "trained on the others; use at least 2"
            )


def _check_dataset(grid: Grid, method: Method, dataset: str) -> None:
    if method.target == "clean" and not grid.has_clean_truth(dataset):
        raise InputError(
            f"config key 'methods.{method.name}.target' is 'clean', but dataset '{dataset}' has "
            f"no clean images; set 'datasets.{dataset}.clean', or remove {method.name} from "
            "grid.methods"
        )
    volumes = dimensions(grid.config["datasets"], dataset) == 3
    if method.classical == "bm3d" and volumes and not method.planes:
        raise InputError(
            f"config key 'methods.{method.name}.classical' is 'bm3d', which is defined for planes "
            f"only, but dataset '{dataset}' is 3D; set 'planes: true' to denoise each z-slice "
            f"separately, or remove {method.name} from grid.methods"
        )
    if initial := grid.initial_model(method.name):
        check_dimensions(method, initial.dimensions, dataset, 3 if volumes else 2)
    pretrained = PRETRAINED.get(method.rehearsed or "")
    key = "init" if method.init in PRETRAINED else "rehearse"
    if pretrained and in_colour(grid.config["datasets"], dataset):
        raise InputError(
            f"config key 'methods.{method.name}.{key}' is '{method.rehearsed}', which is for "
            f"grey images, but dataset '{dataset}' is in colour; remove {method.name} from "
            f"grid.methods, or leave out its '{key}'"
        )
    if pretrained and pretrained.dimensions != (found := 3 if volumes else 2):
        fitting = next(name for name, each in PRETRAINED.items() if each.dimensions == found)
        raise InputError(
            f"config key 'methods.{method.name}.{key}' is '{method.rehearsed}', which is for "
            f"{pretrained.dimensions}D images, but dataset '{dataset}' is {found}D; replace "
            f"{method.name} in grid.methods by a method with '{key}: {fitting}'"
        )


def _check_noise(grid: Grid, method: Method, dataset: str, noise: str) -> None:
    level, datasets = grid.config["noises"][noise], grid.config["datasets"]
    if (
        method.target == "second_noisy"
        and not draws_noise(level)
        and not has_repeats(datasets, dataset)
    ):
        own = datasets[dataset]["source"] == "folder"
        fix = (
            f"name second acquisitions under 'datasets.{dataset}.second' (or their axis under "
            "'repeats'), "
            if own
            else ""
        )
        raise InputError(
            f"config key 'methods.{method.name}.target' is 'second_noisy', but noise level "
            f"'{noise}' adds no noise, so there is no second noisy copy; {fix}remove {method.name} "
            f"from grid.methods, or {noise} from grid.noises"
        )
    if method.noise_sigma == "known" and standard_deviation(level) is None:
        raise InputError(
            f"config key 'methods.{method.name}.noise_sigma' is 'known', but noise level "
            f"'{noise}' ({describe(level)}) has no single standard deviation; set "
            "'noise_sigma: estimated'"
        )


def _check_installed(method: Method) -> None:
    if method.classical and not is_available(method.classical):
        raise InputError(
            f"config key 'methods.{method.name}.classical' is '{method.classical}', but that "
            f"package is not installed; {HOW_TO_INSTALL_BM3D}"
        )


def _check_new_images(grid: Grid) -> None:
    name = grid.config["predict"]["method"]
    if name is not None and name not in grid.method_names:
        raise InputError(
            f"config key 'predict.method' is {shown(name)}, which is not in grid.methods; "
            f"available: {', '.join(grid.method_names)}"
        )
