"""From the config to the runs of the grid: pure functions of plain values, without torch."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from denoiseg_flow.data.manifest import CROSS, SUBSETS, TESTED
from denoiseg_flow.data.noise import describe, draws_noise, standard_deviation
from denoiseg_flow.data.sources import (
    annotated_for_training,
    dimensions,
    has_clean_truth,
    has_masks,
    is_cross_validated,
)
from denoiseg_flow.errors import InputError, shown
from denoiseg_flow.methods.classical import DENOISERS, HOW_TO_INSTALL_BM3D, is_available
from denoiseg_flow.methods.consistency import check_method, check_size, look_up, needed_methods
from denoiseg_flow.methods.definition import NOISY, Method, Recipe

#: What methods are used for, and recommended for: instance labels, and denoised images.
PURPOSES = LABELS, DENOISED = "labels", "denoised"

#: Steps of trainings that are too short to judge methods by.
SHORT = 400

# Datasets of the DenoiSeg paper, whose tables have a form of their own.
_DENOISEG = {"dsb", "flywing", "mouse"}


@dataclass(frozen=True, order=True)
class Run:
    """One training: the values of its five axes.

    ``n_annotated`` is 0 for methods that do not depend on annotated images, so that one such run
    serves every label count.
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


class Grid:
    """The study that a config describes.

    Parameters
    ----------
    config
        The checked config, with its defaults.

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
        for axis, section in [
            ("datasets", "datasets"),
            ("noises", "noises"),
            ("methods", "methods"),
        ]:
            for name in axes[axis]:
                look_up(config[section], name, axis.removesuffix("s"), f"grid.{axis}")
        look_up(config["recipes"], config["recipe"], "recipe", "recipe")
        self.recipes = {name: Recipe(**fields) for name, fields in config["recipes"].items()}
        self.methods = {
            name: Method(name=name, **{key: fields[key] for key in fields if key != "published"})
            for name, fields in config["methods"].items()
        }
        look_up(self.methods, axes["reference"], "method", "grid.reference")
        for method in self.methods.values():
            check_method(method, self.methods)
            self.recipe_of(method)
        self.runs = list(dict.fromkeys(self._expand()))
        self._check_runs()
        self._check_new_images()

    @property
    def method_names(self) -> list[str]:
        """Names of the methods in the tables, in the order of the config."""
        return list(self.config["grid"]["methods"])

    @cached_property
    def scored_runs(self) -> list[Run]:
        """The runs that the tables show: those of methods that the grid selects."""
        return [run for run in self.runs if run.method in self.method_names]

    @cached_property
    def read_methods(self) -> set[str]:
        """Names of the methods whose denoised images other runs read."""
        return {self.methods[run.method].input for run in self.runs} - {NOISY}

    def recipe_of(self, method: Method) -> Recipe:
        """Return the recipe that a method is trained by."""
        name = method.recipe or self.config["recipe"]
        return look_up(self.recipes, name, "recipe", f"methods.{method.name}.recipe")

    def noise_level(self, method: str, noise: str) -> dict[str, Any] | None:
        """Return a noise level for a method that may know it, None for the others.

        It may know it to draw a second noisy copy, or to be told how strong the noise is.
        """
        chosen = self.methods[method]
        told = chosen.target == "second_noisy" or chosen.noise_sigma == "known"
        return self.config["noises"][noise] if told else None

    def upstream(self, run: Run) -> list[Run]:
        """Return the runs that ``run`` needs first."""
        return [needed for needed in (self.input_run(run), self.init_run(run)) if needed]

    def input_run(self, run: Run) -> Run | None:
        """Return the run whose denoised images ``run`` reads; None: it reads the noisy images."""
        return self._run_beside(run, self.methods[run.method].input)

    def init_run(self, run: Run) -> Run | None:
        """Return the run whose weights ``run`` starts from, or None."""
        return self._run_beside(run, self.methods[run.method].init)

    def own_subsets(self, method: str) -> list[str]:
        """Return the subsets on whose images a method trains one network each: mostly none."""
        return self.predicted_subsets(method) if self.methods[method].each_image else []

    def predicted_subsets(self, method: str) -> list[str]:
        """Return which subsets a method predicts: all, where another method trains on them."""
        everything = method in self.read_methods or self.config["predicted_images"] == "all"
        return [*SUBSETS, CROSS] if everything else list(TESTED)

    def judged_subsets(self, dataset: str, method: str) -> list[str]:
        """Return the subsets on which the self-supervised loss of a method is measured by itself.

        For methods that predict every pixel while it is hidden, and of which a clean image is
        known, it is that of this prediction instead.
        """
        return list(TESTED) if self._is_judged(dataset, self.methods[method]) else []

    def _is_judged(self, dataset: str, method: Method) -> bool:
        denoises = method.denoises and method.input == NOISY
        # A J-invariant prediction of what a network was trained on says nothing of its error.
        return denoises and (method.each_image or not self.has_clean_truth(dataset))

    def has_clean_truth(self, dataset: str) -> bool:
        """Whether the clean images of a dataset are known, so that PSNR can be told."""
        return has_clean_truth(self.config["datasets"], dataset)

    def is_cross_validated(self, dataset: str) -> bool:
        """Whether the annotated images of a dataset are trained on and scored, in turns."""
        return is_cross_validated(self.config["datasets"], dataset)

    @property
    def notes(self) -> list[str]:
        """What a reader of the report must know first."""
        datasets = self.config["grid"]["datasets"]
        notes = [
            f"The annotated images of {dataset} are few, and so were cross-validated: each was "
            "predicted and scored by a network that was trained without it, and together they "
            "chose the threshold, so that none was annotated for that alone; this flatters their "
            "scores a little. Images that are not annotated were predicted by the network that was "
            "trained on all of these."
            for dataset in datasets
            if self.is_cross_validated(dataset)
        ]
        volumes = [name for name in datasets if dimensions(self.config["datasets"], name) == 3]
        if volumes:
            notes.append(
                f"Pictures of {', '.join(volumes)} show the middle plane of a volume, and its "
                "residuals and noise are examined there; objects and scores are those of the whole."
            )
        return [*self.config["notes"], *self._short_trainings(), *notes]

    def _short_trainings(self) -> Iterator[str]:
        """What to know of recipes that stop long before the networks are what they could be."""
        trained = [self.methods[name] for name in self.method_names]
        recipes = {
            method.recipe or self.config["recipe"] for method in trained if not method.classical
        }
        for name in sorted(recipes):
            steps = self.recipes[name].epochs * self.recipes[name].steps_per_epoch
            if steps < SHORT:
                yield (
                    f"The recipe {name} trains networks for {steps} steps only: enough to see the "
                    "workflow at work, and not enough to judge methods by, because AP moves by up "
                    "to 0.05 with no more than the rounding of numbers."
                )

    @property
    def n_annotated(self) -> dict[str, int]:
        """How many annotated training images the runs of each dataset need."""
        return {
            dataset: max(run.n_annotated for run in self.runs if run.dataset == dataset)
            for dataset in self.config["grid"]["datasets"]
        }

    @property
    def tables(self) -> list[str]:
        """Names of the tables that this study can fill."""
        axes = self.config["grid"]
        scored = [(run.dataset, self.methods[run.method]) for run in self.scored_runs]
        possible = {
            "segmentation": any(method.segments for _, method in scored),
            "denoising": any(
                method.denoises and self.has_clean_truth(dataset) for dataset, method in scored
            ),
            "self_supervision": any(
                method.hides_grid or self._is_judged(dataset, method) for dataset, method in scored
            ),
            "paper": self.config["paper"] is not None,
            "paired": axes["reference"] in self.method_names and len(self.method_names) > 1,
            "published": bool(_DENOISEG & set(self.published_datasets.values())),
        }
        return [name for name, wanted in possible.items() if wanted]

    @property
    def comparison(self) -> dict[str, Any]:
        """What :func:`comparison.comparison_tables` needs to know, as plain values."""
        return {
            "tables": self.tables,
            "paper": self.config["paper"],
            "methods": self.method_names,
            "noises": self.noise_descriptions,
            "noise_sigmas": self.noise_sigmas,
            "untrained": [name for name in self.method_names if self.methods[name].classical],
            "reference": self.config["grid"]["reference"],
            "published_datasets": self.published_datasets,
            "published_methods": self.published_methods,
        }

    @property
    def noise_descriptions(self) -> dict[str, str]:
        """The noise levels of the grid, each with its kind and parameters in words."""
        levels = self.config["noises"]
        return {name: describe(levels[name]) for name in self.config["grid"]["noises"]}

    @property
    def calibrated_denoisers(self) -> dict[str, str]:
        """The methods of the grid whose parameter is chosen, and which denoiser each of them is."""
        methods = [self.methods[name] for name in self.method_names]
        return {
            method.name: method.classical
            for method in methods
            if method.classical and method.calibrated
        }

    @property
    def noise_sigmas(self) -> dict[str, str]:
        """Where those classical denoisers of the grid that need it know the noise level from."""
        methods = [self.methods[name] for name in self.method_names]
        return {
            method.name: method.noise_sigma
            for method in methods
            if method.classical and DENOISERS[method.classical].needs_noise
        }

    def figures(self, dataset: str) -> list[str]:
        """Names of the figures that this study can draw for a dataset."""
        runs = [run for run in self.scored_runs if run.dataset == dataset]
        methods = [self.methods[name] for name in dict.fromkeys(run.method for run in runs)]
        possible = {
            "label_curves": any(method.segments for method in methods),
            "denoising_levels": self.has_clean_truth(dataset)
            and any(method.denoises for method in methods),
            "training_curves": any(not method.classical for method in methods),
            "calibration": any(method.calibrated for method in methods),
            "training_sizes": next(iter(self.training_sizes(dataset)), None) == dataset
            and self.has_clean_truth(dataset),
        }
        return [name for name, wanted in possible.items() if wanted]

    def training_sizes(self, dataset: str) -> dict[str, int]:
        """Return the datasets of the grid that differ in the number of training images only.

        ``dataset`` is one of them; the values are these numbers. Empty if there are no others.
        """
        datasets = self.config["datasets"]
        family = {
            name: datasets[name]["n_train"]
            for name in self.config["grid"]["datasets"]
            if datasets[name].get("n_train") and datasets[name]["of"] == datasets[dataset].get("of")
        }
        return family if len(family) > 1 else {}

    @property
    def published_datasets(self) -> dict[str, str]:
        """Datasets of the grid that a paper has numbers for, and their names there."""
        datasets = {name: self.config["datasets"][name] for name in self.config["grid"]["datasets"]}
        return {name: spec["published"] for name, spec in datasets.items() if "published" in spec}

    @property
    def published_methods(self) -> dict[str, str]:
        """Methods of the grid that a paper has numbers for, and their names there."""
        methods = {name: self.config["methods"][name] for name in self.method_names}
        return {name: spec["published"] for name, spec in methods.items() if "published" in spec}

    def example_runs(self, dataset: str, noise: str) -> list[Run]:
        """Return one run of every method: first label count and first seed of the config."""
        first: dict[str, Run] = {}
        for run in self.scored_runs:
            if (run.dataset, run.noise) == (dataset, noise):
                first.setdefault(run.method, run)
        return list(first.values())

    def candidates(self, dataset: str, noise: str, purpose: str) -> list[Run]:
        """Return the runs of which the report examines and shows the one that came out best.

        Of every method that serves a purpose, one of :data:`PURPOSES`, the run with the most
        annotated images and the first seed. The first of them is that of the reference method, or
        else of the last one, for studies in which nothing can be scored. Where the denoised images
        are read by methods that segment, and compared with no others, they are of those that make
        them.
        """
        names = dict.fromkeys([self.config["grid"]["reference"], *reversed(self.method_names)])
        largest = [run for name in names if (run := self._largest_run(dataset, noise, name))]
        segmenting = [run for run in largest if self.methods[run.method].segments]
        if purpose == LABELS:
            return segmenting
        denoising = [run for run in largest if self.methods[run.method].denoises]
        inputs = [self.input_run(run) for run in segmenting]
        return denoising or list(dict.fromkeys(run for run in inputs if run))

    def examined(self, dataset: str, noise: str) -> list[Run]:
        """Return the candidates for all purposes."""
        runs = [run for purpose in PURPOSES for run in self.candidates(dataset, noise, purpose)]
        return list(dict.fromkeys(runs))

    def segments(self, dataset: str, noise: str) -> bool:
        """Whether any method segments the images of a dataset."""
        return bool(self.candidates(dataset, noise, LABELS))

    @property
    def new_images_run(self) -> Run:
        """The run whose model is used on new images."""
        axes, names = self.config["grid"], self.method_names
        known = axes["reference"] if axes["reference"] in names else names[-1]
        method = self.config["predict"]["method"] or known
        return next(
            run
            for dataset in axes["datasets"]
            if (run := self._largest_run(dataset, axes["noises"][0], method))
        )

    def _largest_run(self, dataset: str, noise: str, method: str) -> Run | None:
        """The run of a method with the most annotated images, and of these the first, if any."""
        runs = [
            run
            for run in self.scored_runs
            if (run.dataset, run.noise, run.method) == (dataset, noise, method)
        ]
        return max(runs, key=lambda run: run.n_annotated, default=None)

    @property
    def summary(self) -> dict[str, list[str]]:
        """The axes of the study in words, for the head of the report."""
        axes = self.config["grid"]
        return {
            "datasets": list(axes["datasets"]),
            "noise levels": list(axes["noises"]),
            "methods": list(axes["methods"]),
            "annotated images": [str(count) for count in axes["n_annotated"]],
            "seeds": [str(seed) for seed in axes["seeds"]],
            "recipe": [self.config["recipe"]],
        }

    def _expand(self) -> Iterator[Run]:
        axes = self.config["grid"]
        for dataset in axes["datasets"]:
            for noise in axes["noises"]:
                for method in axes["methods"]:
                    counts = self._counts(dataset) if self._uses_labels(method) else [0]
                    if counts != [0] and not has_masks(self.config["datasets"], dataset):
                        continue  # there is nothing to learn segmentation from
                    for n_annotated in counts:
                        for seed in axes["seeds"]:
                            run = self._run(dataset, noise, method, n_annotated, seed)
                            yield from self._with_upstream(run)

    def _counts(self, dataset: str) -> list[int]:
        """The numbers of annotated images that a dataset is studied with."""
        counts: list[Any] = self.config["grid"]["n_annotated"]
        if "all" not in counts or not has_masks(self.config["datasets"], dataset):
            return counts
        available = annotated_for_training(self.config["datasets"], dataset)
        if available is None:
            raise InputError(
                f"config key 'grid.n_annotated' has 'all', but how many masks dataset '{dataset}' "
                "has is not known before it is prepared; write numbers, such as [4]"
            )
        if not available:
            raise InputError(
                f"config key 'grid.n_annotated' has 'all', but dataset '{dataset}' has no "
                "annotated images left for training; annotate more, or lower 'val' and 'test' "
                "of its split"
            )
        return list(dict.fromkeys(available if count == "all" else count for count in counts))

    def _with_upstream(self, run: Run) -> Iterator[Run]:
        for needed in self.upstream(run):
            yield from self._with_upstream(needed)
        yield run

    def _run(self, dataset: str, noise: str, method: str, n_annotated: int, seed: int) -> Run:
        return Run(dataset, noise, method, n_annotated if self._uses_labels(method) else 0, seed)

    def _run_beside(self, run: Run, method: str | None) -> Run | None:
        """The run of another method in the same place of the grid; None for no method."""
        if method in (None, NOISY):
            return None
        return self._run(run.dataset, run.noise, method, run.n_annotated, run.seed)

    def _uses_labels(self, name: str) -> bool:
        method = self.methods[name]
        return method.segments or any(map(self._uses_labels, needed_methods(method, self.methods)))

    def _check_runs(self) -> None:
        """Whether recipes, data and noise levels have what the methods in use need."""
        for name in dict.fromkeys(run.method for run in self.runs):
            method = self.methods[name]
            key = f"recipes.{method.recipe or self.config['recipe']}"
            check_size(method, self.methods, self.recipe_of, key)
        axes = self.config["grid"]
        learning = [name for name in axes["methods"] if self._uses_labels(name)]
        for dataset in axes["datasets"]:
            masks = has_masks(self.config["datasets"], dataset)
            if masks and learning and not axes["n_annotated"]:
                raise InputError(
                    f"config key 'grid.n_annotated' is missing, but method '{learning[0]}' learns "
                    "from annotated images; say how many, such as [4]"
                )
            if not masks and learning == axes["methods"]:
                raise InputError(
                    f"dataset '{dataset}' has no masks, but all methods of grid.methods learn from "
                    f"masks; set 'datasets.{dataset}.masks', or add a method that only denoises"
                )
        for run in self.runs:
            if run.n_annotated == 1 and self.is_cross_validated(run.dataset):
                raise InputError(
                    f"grid.n_annotated asks for 1 annotated image, but the annotated images of "
                    f"dataset {run.dataset} are cross-validated, each by a network that was "
                    "trained on others: ask for 2 at least"
                )
        places = dict.fromkeys((run.dataset, run.noise, run.method) for run in self.runs)
        for dataset, noise, name in places:
            method, level = self.methods[name], self.config["noises"][noise]
            if method.target == "clean" and not self.has_clean_truth(dataset):
                raise InputError(
                    f"config key 'methods.{name}.target' is 'clean', but dataset '{dataset}' has "
                    f"no clean images; set 'datasets.{dataset}.clean', or leave {name} out of "
                    "grid.methods"
                )
            if method.target == "second_noisy" and not draws_noise(level):
                raise InputError(
                    f"config key 'methods.{name}.target' is 'second_noisy', but noise level "
                    f"'{noise}' adds no noise, so that there is no second copy to draw; leave "
                    f"{name} out of grid.methods, or {noise} out of grid.noises"
                )
            if method.noise_sigma == "known" and standard_deviation(level) is None:
                raise InputError(
                    f"config key 'methods.{name}.noise_sigma' is 'known', but noise level "
                    f"'{noise}' ({describe(level)}) has no single standard deviation; write "
                    "'noise_sigma: estimated'"
                )
            volumes = dimensions(self.config["datasets"], dataset) == 3
            if method.classical == "bm3d" and volumes and not method.planes:
                raise InputError(
                    f"config key 'methods.{name}.classical' is 'bm3d', which is defined for planes "
                    f"only, but dataset '{dataset}' is made of volumes; write 'planes: true' to "
                    f"denoise each plane by itself, or leave {name} out of grid.methods"
                )
            if method.classical and not is_available(method.classical):
                raise InputError(
                    f"config key 'methods.{name}.classical' is '{method.classical}', but that "
                    f"package is not installed; {HOW_TO_INSTALL_BM3D}"
                )

    def _check_new_images(self) -> None:
        name, methods = self.config["predict"]["method"], self.config["grid"]["methods"]
        if name is not None and name not in methods:
            raise InputError(
                f"config key 'predict.method' is {shown(name)}, which is not in grid.methods; "
                f"available: {', '.join(methods)}"
            )
