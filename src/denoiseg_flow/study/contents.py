"""The contents of a report: names of tables and figures, notes, and the axes of the study."""

from collections.abc import Iterator
from typing import Any

from denoiseg_flow.data.noise import describe
from denoiseg_flow.data.sources import dimensions, has_masks, has_repeats, is_grouped
from denoiseg_flow.errors import plain
from denoiseg_flow.findings import count
from denoiseg_flow.methods.classical import DENOISERS
from denoiseg_flow.methods.consistency import needed_methods
from denoiseg_flow.study.grid import Grid, Run

#: Trainings with fewer steps are too short to compare methods.
SHORT = 400

# Datasets of the DenoiSeg paper, whose tables have a form of their own.
_DENOISEG = {"dsb", "flywing", "mouse"}


def summary(grid: Grid) -> dict[str, list[str]]:
    """Return the axes of a study as text, for the head of the report."""
    axes = grid.config["grid"]
    return {
        "datasets": list(axes["datasets"]),
        "noise levels": list(axes["noises"]),
        "methods": list(axes["methods"]),
        "annotated images": [str(count) for count in axes["n_annotated"]],
        "seeds": [str(seed) for seed in axes["seeds"]],
        "recipe": [grid.config["recipe"]],
    }


def notes(grid: Grid) -> list[str]:
    """Return notes on the data and trainings, for the top of the report."""
    datasets = grid.config["grid"]["datasets"]
    groups = grouped(grid)
    cross_validated = [
        f"The few annotated images of {dataset} were cross-validated: each was predicted and "
        f"scored by a network that was trained without {'its group' if dataset in groups else 'it'}"
        ". A threshold that was chosen on all of them makes their scores slightly optimistic. "
        f"Images without annotation{' in other groups' if dataset in groups else ''} were "
        "predicted by the network that was trained on all annotated images."
        for dataset in datasets
        if grid.is_cross_validated(dataset)
    ]
    found = [
        *grid.config["notes"],
        *_pretrained(grid),
        *_initial_models(grid),
        *_short_trainings(grid),
        *_acquisitions(grid),
        *cross_validated,
    ]
    if groups:
        found.append(
            f"The images of {', '.join(groups)} belong to groups, which were divided as a whole: "
            "no group is on both sides. Means, confidence intervals and tests are over groups, not "
            "over images."
        )
    volumes = [name for name in datasets if dimensions(grid.config["datasets"], name) == 3]
    if volumes:
        found.append(
            f"{', '.join(volumes)}: figures show the middle z-slice of each volume, and residuals "
            "and noise are examined there. Objects and scores are those of the whole volume."
        )
    return found


def grouped(grid: Grid) -> list[str]:
    """Return the names of the datasets whose images belong to groups."""
    datasets = grid.config["datasets"]
    return [name for name in grid.config["grid"]["datasets"] if is_grouped(datasets, name)]


def _acquisitions(grid: Grid) -> Iterator[str]:
    axes, datasets = grid.config["grid"], grid.config["datasets"]
    repeated = [name for name in axes["datasets"] if has_repeats(datasets, name)]
    learning = [each for each in grid.method_names if grid.methods[each].target == "second_noisy"]
    if repeated and learning:
        yield (
            f"{', '.join(learning)} learned from several acquisitions of each field of "
            f"{', '.join(repeated)}, all other methods from the first. All denoise the first."
        )
    unknown = [name for name in repeated if not grid.has_clean_truth(name)]
    if unknown and any(grid.methods[each].denoises for each in grid.method_names):
        yield (
            f"The clean images of {', '.join(unknown)} are unknown. The mean of the other "
            "acquisitions of a field takes their place (PSNR_mean_of_repeats). It still contains "
            "noise, and with only one other acquisition as much as the image itself."
        )


def _pretrained(grid: Grid) -> Iterator[str]:
    names = [name for name in grid.method_names if grid.is_pretrained(name)]
    if names:
        yield (
            f"Labels of {', '.join(names)}: the network was first trained on simulated images and, "
            "where the number of annotated images is 0, learned segmentation from no others."
        )


def _initial_models(grid: Grid) -> Iterator[str]:
    """Yield a note for each method that starts from a model file or package."""
    for name in dict.fromkeys(run.method for run in grid.runs):
        if model := grid.initial_model(name):
            told = [f"{axis} {plain(value)}" for axis, value in model.identity.items()]
            origin = ", ".join([*told, f"SHA-256 {model.sha256[:12]}"])
            yield (
                f"{name} started from the model {grid.methods[name].init} ({origin}). Its scores "
                "are too good on images that this model had been trained on."
            )


def origin_of_labels(grid: Grid, run: Run) -> str:
    """Return a sentence about labels that depend on images of another kind; empty for others."""
    first = grid.first_method(run.method)
    if first.init_file and not run.n_annotated:
        return f"The labels of {run.method} are those of {first.init}, as it was before this study."
    if first.init_file:
        images = count(run.n_annotated, "annotated image")
        return (
            f"The labels of {run.method} come from a network that started from {first.init} before "
            f"it learned from {images}."
        )
    if not grid.is_pretrained(run.method):
        return ""
    labels = f"The labels of {run.method} come from a network that learned segmentation from"
    if not run.n_annotated:
        return f"{labels} simulated images only, not from any annotated image."
    images = count(run.n_annotated, "annotated image")
    return f"{labels} simulated images before it learned from {images}."


def _short_trainings(grid: Grid) -> Iterator[str]:
    """Yield a note for each recipe with fewer than :data:`SHORT` steps."""
    trained = [method for method in grid.shown_methods if method.has_network]
    for recipe in sorted({grid.recipe_name(method) for method in trained}):
        steps = grid.recipes[recipe].steps
        if steps < SHORT:
            yield (
                f"The recipe {recipe} trains networks for only {steps} steps. That is enough to "
                "try the workflow, but too few to compare methods: rounding errors alone change AP "
                "by up to 0.05."
            )


def tables(grid: Grid) -> list[str]:
    """Return the names of the tables of a study."""
    datasets = grid.config["datasets"]
    scored = [(run.dataset, grid.methods[run.method]) for run in grid.scored_runs]
    with_ap = {
        (dataset, method.name)
        for dataset, method in scored
        if method.segments and has_masks(grid.config["datasets"], dataset)
    }
    with_psnr = {
        (dataset, method.name)
        for dataset, method in scored
        if method.denoises and (grid.has_clean_truth(dataset) or has_repeats(datasets, dataset))
    }
    reference = grid.config["grid"]["reference"]
    compared = any(
        (dataset, reference) in known and name != reference
        for known in (with_ap, with_psnr)
        for dataset, name in known
    )
    possible = {
        "segmentation": bool(with_ap),
        "denoising": bool(with_psnr),
        "self_supervision": any(
            method.masks_grid or grid.judged_subsets(dataset, method.name)
            for dataset, method in scored
        ),
        "paper": grid.config["paper"] is not None,
        "paired": compared,
        "published": bool(_DENOISEG & set(_published(grid, "datasets").values())),
    }
    return [name for name, wanted in possible.items() if wanted]


def comparison(grid: Grid) -> dict[str, Any]:
    """Return what :func:`~denoiseg_flow.reporting.tables.comparison.comparison_tables` needs."""
    return {
        "tables": tables(grid),
        "paper": grid.config["paper"],
        "methods": grid.method_names,
        "noises": noise_descriptions(grid),
        "noise_sigmas": {
            method.name: method.noise_sigma
            for method in grid.shown_methods
            if method.classical and DENOISERS[method.classical].needs_noise
        },
        "untrained": [name for name in grid.method_names if not _is_trained(grid, name)],
        "reference": grid.config["grid"]["reference"],
        "grouped": grouped(grid),
        "published_datasets": _published(grid, "datasets"),
        "published_methods": _published(grid, "methods"),
    }


def _is_trained(grid: Grid, name: str) -> bool:
    """Return whether a method, or one that it builds on, is trained."""
    method = grid.methods[name]
    needed = needed_methods(method, grid.methods)
    return method.trained or any(_is_trained(grid, each) for each in needed)


def _published(grid: Grid, axis: str) -> dict[str, str]:
    """Return the published names of datasets or methods, for those with published numbers."""
    specs = {name: grid.config[axis][name] for name in grid.config["grid"][axis]}
    return {name: spec["published"] for name, spec in specs.items() if "published" in spec}


def noise_descriptions(grid: Grid) -> dict[str, str]:
    """Return the noise levels of a study with their kinds and parameters as text."""
    return {name: describe(grid.config["noises"][name]) for name in grid.config["grid"]["noises"]}


def figures(grid: Grid, dataset: str) -> list[str]:
    """Return the names of the curves and diagrams of a dataset."""
    runs = [run for run in grid.scored_runs if run.dataset == dataset]
    methods = [grid.methods[name] for name in dict.fromkeys(run.method for run in runs)]
    possible = {
        "label_curves": has_masks(grid.config["datasets"], dataset)
        and any(method.segments for method in methods),
        "denoising_levels": grid.has_clean_truth(dataset)
        and any(method.denoises for method in methods),
        "training_curves": any(map(grid.is_training, runs)),
        "calibration": any(method.calibrated for method in methods),
        "precision": bool(precision_runs(grid, dataset)),
        "training_sizes": next(iter(training_sizes(grid, dataset)), None) == dataset
        and grid.has_clean_truth(dataset),
    }
    return [name for name, wanted in possible.items() if wanted]


def precision_runs(grid: Grid, dataset: str) -> list[Run]:
    """Return the runs whose precision of objects by confidence is shown: those of the first seed.

    A dataset without masks has none.
    """
    if not has_masks(grid.config["datasets"], dataset):
        return []
    return [
        run
        for run in grid.scored_runs
        if run.dataset == dataset
        and run.seed == grid.config["grid"]["seeds"][0]
        and grid.methods[run.method].learns_segmentation
    ]


def training_sizes(grid: Grid, dataset: str) -> dict[str, int]:
    """Return the datasets that differ from a dataset only in their number of training images.

    The dataset itself is included. The values are the numbers; empty if there are no others.
    """
    datasets = grid.config["datasets"]
    family = {
        name: datasets[name]["n_train"]
        for name in grid.config["grid"]["datasets"]
        if datasets[name].get("n_train") and datasets[name]["of"] == datasets[dataset].get("of")
    }
    return family if len(family) > 1 else {}


def calibrated_denoisers(grid: Grid) -> dict[str, str]:
    """Return the denoisers of the methods whose parameter the workflow chooses, by method."""
    return {
        method.name: method.classical
        for method in grid.shown_methods
        if method.classical and method.calibrated
    }
