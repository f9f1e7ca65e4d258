"""The grid of a study: from the config to its runs, and questions about them."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from denoiseg_flow.data.manifest import CROSS, SUBSETS, TESTED
from denoiseg_flow.data.sources import (
    annotated_for_training,
    has_clean_truth,
    has_masks,
    is_cross_validated,
)
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods.consistency import check_method, look_up, needed_methods
from denoiseg_flow.methods.definition import NOISY, Method, Recipe
from denoiseg_flow.methods.initial_model import (
    InitialModel,
    describe_initial_model,
    find_source,
    named,
)
from denoiseg_flow.methods.pretrained import PRETRAINED

#: What methods are used for, and recommended for: instance labels, and denoised images.
PURPOSES = LABELS, DENOISED = "labels", "denoised"

#: What images to annotate next are suggested by; methods that segment by a threshold have none.
PROBABILITIES = "probabilities"


@dataclass(frozen=True, order=True)
class Run:
    """One training: the values of its five axes.

    ``n_annotated`` is 0 for methods that do not depend on annotated images: one such run serves
    all numbers of annotated images. It may be 0 for methods that start from a pretrained network.
    """

    dataset: str
    noise: str
    method: str
    n_annotated: int
    seed: int

    @classmethod
    def of(cls, wildcards: Mapping[str, str]) -> "Run":
        """Return the run that the wildcards of a job describe."""
        axes: dict[str, Any] = dict(wildcards.items())
        return cls(**axes | {"n_annotated": int(axes["n_annotated"]), "seed": int(axes["seed"])})

    @property
    def folder(self) -> str:
        """Where the files of the run are, below the folder of all runs."""
        replicate = f"annotated{self.n_annotated}/seed{self.seed}"
        return f"{self.dataset}/{self.noise}/{self.method}/{replicate}"

    def as_dict(self) -> dict[str, Any]:
        """Return the axes as plain values, for wildcards and for table columns."""
        return asdict(self)


def trained_runs(results: Path) -> list[Run]:
    """Return the runs in a folder of results that have a model, sorted by their folders."""
    return [_run_of(path) for path in sorted(results.glob("runs/*/*/*/annotated*/seed*/model.pt"))]


def _run_of(model: Path) -> Run:
    """Return the run of a model file, see :attr:`Run.folder`."""
    dataset, noise, method, annotated, seed = model.parent.parts[-5:]
    n_annotated = int(annotated.removeprefix("annotated"))
    return Run(dataset, noise, method, n_annotated, int(seed.removeprefix("seed")))


class Grid:
    """The study that a config describes.

    Parameters
    ----------
    config
        The checked config, with its defaults. Whether its study can be done is another question:
        :func:`~denoiseg_flow.study.feasibility.check_feasible`.

    Attributes
    ----------
    methods
        Every defined method by name.
    recipes
        Every defined recipe by name.
    runs
        Every run, in the order of the config, those that others build on included.

    Raises
    ------
    InputError
        If the config names something that it does not define, or a method contradicts itself.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        axes = config["grid"]
        for axis in ("datasets", "noises", "methods"):
            for name in axes[axis]:
                look_up(config[axis], name, axis.removesuffix("s"), f"grid.{axis}")
        look_up(config["recipes"], config["recipe"], "recipe", "recipe")
        self.recipes = {
            name: Recipe(**{key: fields[key] for key in fields if key != "finetune"})
            for name, fields in config["recipes"].items()
        }
        self.methods = {
            name: Method(name=name, **{key: fields[key] for key in fields if key != "published"})
            for name, fields in config["methods"].items()
        }
        look_up(self.methods, axes["reference"], "method", "grid.reference")
        for method in self.methods.values():
            check_method(method, self.methods)
            self.recipe_of(method)
        self._initial_models: dict[str, InitialModel] = {}
        self.runs = list(dict.fromkeys(self._expand()))

    @property
    def method_names(self) -> list[str]:
        """Names of the methods in the tables, in the order of the config."""
        return list(self.config["grid"]["methods"])

    @property
    def shown_methods(self) -> list[Method]:
        """These methods, with their fields."""
        return [self.methods[name] for name in self.method_names]

    @cached_property
    def scored_runs(self) -> list[Run]:
        """The runs that the tables show: those of methods that the grid selects."""
        return [run for run in self.runs if run.method in self.method_names]

    @property
    def settings(self) -> list[dict[str, str]]:
        """Every combination of dataset and noise level."""
        axes = self.config["grid"]
        return [
            {"dataset": dataset, "noise": noise}
            for dataset in axes["datasets"]
            for noise in axes["noises"]
        ]

    @cached_property
    def read_methods(self) -> set[str]:
        """Names of the methods whose denoised images are the input of other runs."""
        return {self.methods[run.method].input for run in self.runs} - {NOISY}

    def recipe_of(self, method: Method) -> Recipe:
        """Return the recipe that a method is trained by.

        A pixel classifier predicts no distance, and takes the watershed of its probabilities.
        """
        name, key = self._recipe_name_and_key(method)
        recipe: Recipe = look_up(self.recipes, name, "recipe", key)
        if recipe.predicts_distance and not method.has_network:
            return replace(recipe, instances="watershed")
        return recipe

    def recipe_name(self, method: Method) -> str:
        """Return the name of that recipe: the method's own, or the default of the study."""
        return self._recipe_name_and_key(method)[0]

    def _recipe_name_and_key(self, method: Method) -> tuple[str, str]:
        """Return the name of that recipe, and the config key that names it."""
        default: str = self.config["recipe"]
        if method.recipe:
            return method.recipe, f"methods.{method.name}.recipe"
        if method.init in PRETRAINED:
            return self.config["recipes"][default]["finetune"], f"recipes.{default}.finetune"
        return default, "recipe"

    def noise_level(self, method: str, noise: str) -> dict[str, Any] | None:
        """Return a noise level for a method that uses it, and None for other methods.

        It is used to draw a second noisy copy, or as the known standard deviation of the noise.
        """
        chosen = self.methods[method]
        knows_noise = chosen.target == "second_noisy" or chosen.noise_sigma == "known"
        return self.config["noises"][noise] if knows_noise else None

    def rules_of(self, run: Run) -> list[str]:
        """Return the rules that make the files of a run, in this order."""
        scored = run.method in self.method_names
        predicted = scored or run.method in self.read_methods
        return ["train", *["predict_run"] * predicted, *["score"] * scored]

    def upstream(self, run: Run) -> list[Run]:
        """Return the runs that ``run`` needs first."""
        return [needed for needed in (self.input_run(run), self.init_run(run)) if needed]

    def input_run(self, run: Run) -> Run | None:
        """Return the run whose denoised images ``run`` reads; None: it reads the noisy images."""
        return self._run_beside(run, self.methods[run.method].input)

    def init_run(self, run: Run) -> Run | None:
        """Return the run whose weights ``run`` starts from; None: weights from elsewhere."""
        method = self.methods[run.method]
        elsewhere = method.init in PRETRAINED or method.init_file
        return None if elsewhere else self._run_beside(run, method.init)

    def initial_model(self, name: str) -> InitialModel | None:
        """Return the model file or package that a method starts from; None: it starts otherwise.

        Raises
        ------
        InputError
            If it cannot be used.
        """
        method = self.methods[name]
        if method.init_file and name not in self._initial_models:
            source = find_source(Path(method.init_file), named(method))
            self._initial_models[name] = describe_initial_model(source, named(method))
        return self._initial_models.get(name)

    def rehearses(self, run: Run) -> bool:
        """Return whether the training of a run reads simulated images."""
        method = self.methods[run.method]
        return method.has_network and self.recipe_of(method).rehearses(method, run.n_annotated)

    def largest_patch(self, pretrained: str) -> tuple[int, ...]:
        """Return the shape of the largest patch of trainings that rehearse the same images."""
        methods = {run.method: self.methods[run.method] for run in self.runs}.values()
        recipes = [self.recipe_of(each) for each in methods if each.rehearsed == pretrained]
        dimensions = PRETRAINED[pretrained].dimensions
        return tuple(
            map(max, zip(*(each.patch_shape(dimensions) for each in recipes), strict=True))
        )

    def own_subsets(self, method: str) -> list[str]:
        """Return the subsets with one network per image; empty for most methods."""
        return self.predicted_subsets(method) if self.methods[method].each_image else []

    def predicted_subsets(self, method: str) -> list[str]:
        """Return the subsets that a method predicts: all, if another method reads them."""
        everything = method in self.read_methods or self.config["predicted_images"] == "all"
        return [*SUBSETS, CROSS] if everything else list(TESTED)

    def judged_subsets(self, dataset: str, method: str) -> list[str]:
        """Return the subsets with a separate measurement of a method's self-supervised loss.

        If clean images are known, the loss is that of the J-invariant prediction of methods that
        mask the pixels of a grid, which needs no separate measurement.
        """
        chosen = self.methods[method]
        denoises = chosen.denoises and chosen.input == NOISY
        # The J-invariant prediction of a network's own training image does not show its error.
        unknown = chosen.each_image or not self.has_clean_truth(dataset)
        return list(TESTED) if denoises and unknown else []

    def has_clean_truth(self, dataset: str) -> bool:
        """Return whether the clean images of a dataset are known, as PSNR needs them."""
        return has_clean_truth(self.config["datasets"], dataset)

    def is_cross_validated(self, dataset: str) -> bool:
        """Return whether the annotated images of a dataset are cross-validated."""
        return is_cross_validated(self.config["datasets"], dataset)

    def uses_masks(self, name: str) -> bool:
        """Return whether a method, or one that it builds on, learns from annotated images."""
        method = self.methods[name]
        needed = needed_methods(method, self.methods)
        return method.learns_segmentation or any(map(self.uses_masks, needed))

    def needs_masks(self, name: str) -> bool:
        """Return whether a method cannot be trained without annotated images.

        Methods that start from a network pretrained for segmentation can, and those that only
        segment if they start from a model that does so.
        """
        method, known = self.methods[name], self.initial_model(name)
        able = known is not None and known.segments_for(method, self.recipe_of(method))
        own = method.learns_segmentation and method.init not in PRETRAINED and not able
        return own or any(map(self.needs_masks, needed_methods(method, self.methods)))

    def is_pretrained(self, name: str) -> bool:
        """Return whether a method starts from a pretrained network, or from one that did."""
        return self.first_method(name).init in PRETRAINED

    def first_method(self, name: str) -> Method:
        """Return the method that a method starts from, through others, or the method itself."""
        method = self.methods[name]
        before = None if method.init_file else self.methods.get(method.init or "")
        return self.first_method(before.name) if before else method

    def is_training(self, run: Run) -> bool:
        """Return whether a run trains a network; without annotation, some keep pretrained weights.

        The threshold of a segmentation is chosen in any case.
        """
        method = self.methods[run.method]
        return method.has_network and method.learns_from(run.n_annotated)

    @property
    def n_annotated(self) -> dict[str, int]:
        """Number of annotated training images that the runs of each dataset need."""
        return {
            dataset: max(run.n_annotated for run in self.runs if run.dataset == dataset)
            for dataset in self.config["grid"]["datasets"]
        }

    def example_runs(self, dataset: str, noise: str) -> list[Run]:
        """Return one run per method: the first n_annotated and the first seed of the config."""
        first: dict[str, Run] = {}
        for run in self.scored_runs:
            if (run.dataset, run.noise) == (dataset, noise):
                first.setdefault(run.method, run)
        return list(first.values())

    def candidates(self, dataset: str, noise: str, purpose: str) -> list[Run]:
        """Return the runs among which the report examines and shows the best.

        That is one run per method for a purpose, one of :data:`PURPOSES` or :data:`PROBABILITIES`:
        the one with the most annotated images and the first seed. The reference method comes first,
        then the others from last to first: without scores, the first run is taken. If denoising
        methods are only the input of segmentation methods, their runs are the candidates for
        denoised images.
        """
        names = dict.fromkeys([self.config["grid"]["reference"], *reversed(self.method_names)])
        largest = [run for name in names if (run := self._largest_run(dataset, noise, name))]
        segmenting = [run for run in largest if self.methods[run.method].segments]
        if purpose == LABELS:
            return segmenting
        if purpose == PROBABILITIES:
            return [run for run in segmenting if self.methods[run.method].trained]
        denoising = [run for run in largest if self.methods[run.method].denoises]
        inputs = [self.input_run(run) for run in segmenting]
        return denoising or list(dict.fromkeys(run for run in inputs if run))

    def examined(self, dataset: str, noise: str) -> list[Run]:
        """Return the candidates for any purpose."""
        runs = [run for purpose in PURPOSES for run in self.candidates(dataset, noise, purpose)]
        return list(dict.fromkeys(runs))

    def predicts_probabilities(self, dataset: str, noise: str) -> bool:
        """Return whether any method predicts class probabilities for the images of a dataset."""
        return bool(self.candidates(dataset, noise, PROBABILITIES))

    @property
    def new_images_run(self) -> Run:
        """The run whose model predicts new images."""
        axes, names = self.config["grid"], self.method_names
        known = axes["reference"] if axes["reference"] in names else names[-1]
        method = self.config["predict"]["method"] or known
        return next(
            run
            for dataset in axes["datasets"]
            if (run := self._largest_run(dataset, axes["noises"][0], method))
        )

    def _largest_run(self, dataset: str, noise: str, method: str) -> Run | None:
        """Return the first of the runs of a method with the most annotated images, if any."""
        runs = [
            run
            for run in self.scored_runs
            if (run.dataset, run.noise, run.method) == (dataset, noise, method)
        ]
        return max(runs, key=lambda run: run.n_annotated, default=None)

    def _expand(self) -> Iterator[Run]:
        axes = self.config["grid"]
        for dataset in axes["datasets"]:
            for noise in axes["noises"]:
                for method in axes["methods"]:
                    for n_annotated in self._counts(dataset, method):
                        for seed in axes["seeds"]:
                            run = self._run(dataset, noise, method, n_annotated, seed)
                            yield from self._with_upstream(run)

    def _counts(self, dataset: str, method: str) -> list[int]:
        """Return the numbers of annotated images for the runs of a method."""
        if not self.uses_masks(method):
            return [0]
        if not has_masks(self.config["datasets"], dataset):
            return [] if self.needs_masks(method) else [0]
        least = 1 if self.needs_masks(method) else 0
        return [count for count in self._available(dataset) if count >= least]

    def _available(self, dataset: str) -> list[int]:
        """Return the numbers of annotated images for a dataset with masks."""
        counts: list[Any] = self.config["grid"]["n_annotated"]
        if "all" not in counts:
            return counts
        available = annotated_for_training(self.config["datasets"], dataset)
        if available is None:
            raise InputError(
                "config key 'grid.n_annotated' contains 'all', but the number of masks of dataset "
                f"'{dataset}' is unknown until it is prepared; use numbers, e.g. [4]"
            )
        if not available:
            raise InputError(
                f"config key 'grid.n_annotated' contains 'all', but dataset '{dataset}' has no "
                "annotated images left for training; annotate more images, or reduce 'val' and "
                "'test' of its split"
            )
        return list(dict.fromkeys(available if count == "all" else count for count in counts))

    def _with_upstream(self, run: Run) -> Iterator[Run]:
        for needed in self.upstream(run):
            yield from self._with_upstream(needed)
        yield run

    def _run(self, dataset: str, noise: str, method: str, n_annotated: int, seed: int) -> Run:
        return Run(dataset, noise, method, n_annotated if self.uses_masks(method) else 0, seed)

    def _run_beside(self, run: Run, method: str | None) -> Run | None:
        """Return the run of another method with the same other axes; None for no method."""
        if method in (None, NOISY):
            return None
        return self._run(run.dataset, run.noise, method, run.n_annotated, run.seed)
