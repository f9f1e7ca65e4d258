"""From the config to the runs of the grid: pure functions of plain values, without torch."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from denoiseg_flow.data.manifest import SUBSETS
from denoiseg_flow.errors import InputError
from denoiseg_flow.methods import NOISY, Method, Recipe


@dataclass(frozen=True, order=True)
class Run:
    """One training: the values of its five axes.

    ``n_labelled`` is 0 for methods that do not depend on annotated images, so that one such run
    serves every label count.
    """

    dataset: str
    noise: str
    method: str
    n_labelled: int
    seed: int

    @classmethod
    def of(cls, wildcards: Mapping[str, str]) -> "Run":
        """Return the run that the wildcards of a job describe."""
        axes = dict(wildcards.items())
        return cls(**axes | {"n_labelled": int(axes["n_labelled"]), "seed": int(axes["seed"])})

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
    recipe
        The recipe by which all runs are trained.
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
                _look_up(config[section], name, axis.removesuffix("s"), f"grid.{axis}")
        _look_up(config["recipes"], config["recipe"], "recipe", "recipe")
        self.recipe = Recipe(**config["recipes"][config["recipe"]])
        if self.recipe.patch_size % 2**self.recipe.depth:
            raise InputError(
                f"config key 'recipes.{config['recipe']}.patch_size' is {self.recipe.patch_size}, "
                f"but depth {self.recipe.depth} needs a multiple of {2**self.recipe.depth}"
            )
        self.methods = {
            name: Method(name=name, **{key: fields[key] for key in fields if key != "published"})
            for name, fields in config["methods"].items()
        }
        _look_up(self.methods, axes["reference"], "method", "grid.reference")
        for method in self.methods.values():
            self._check(method)
        self.runs = list(dict.fromkeys(self._expand()))

    @property
    def method_names(self) -> list[str]:
        """Names of the methods in the tables, in the order of the config."""
        return list(self.config["grid"]["methods"])

    @property
    def scored_runs(self) -> list[Run]:
        """The runs that the tables show: those of methods that the grid selects."""
        return [run for run in self.runs if run.method in self.method_names]

    def upstream(self, run: Run) -> list[Run]:
        """Return the runs that ``run`` needs first."""
        return [needed for needed in (self.input_run(run), self.init_run(run)) if needed]

    def input_run(self, run: Run) -> Run | None:
        """Return the run whose denoised images ``run`` reads; None: it reads the noisy images."""
        return self._run_beside(run, self.methods[run.method].input)

    def init_run(self, run: Run) -> Run | None:
        """Return the run whose weights ``run`` starts from, or None."""
        return self._run_beside(run, self.methods[run.method].init)

    def predicted_subsets(self, method: str) -> list[str]:
        """Return which subsets a method predicts: all, where another method trains on them."""
        feeds_others = any(self.methods[run.method].input == method for run in self.runs)
        return list(SUBSETS) if feeds_others or self.config["predict"] == "all" else ["test"]

    def has_clean_truth(self, dataset: str) -> bool:
        """Whether the clean images of a dataset are known, so that PSNR can be told."""
        spec = self.config["datasets"][dataset]
        made = spec["source"] == "simulate" or spec.get("format") == "denoiseg_npz"
        return made or bool(spec.get("clean"))

    @property
    def tables(self) -> list[str]:
        """Names of the tables that this study can fill."""
        axes = self.config["grid"]
        truth = any(self.has_clean_truth(dataset) for dataset in axes["datasets"])
        possible = {
            "segmentation": any(self.methods[name].segments for name in self.method_names),
            "denoising": truth and any(self.methods[name].denoises for name in self.method_names),
            "paired": axes["reference"] in self.method_names and len(self.method_names) > 1,
            "published": bool(self.published_datasets),
        }
        return [name for name, wanted in possible.items() if wanted]

    @property
    def comparison(self) -> dict[str, Any]:
        """What :func:`comparison.comparison_tables` needs to know, as plain values."""
        return {
            "tables": self.tables,
            "methods": self.method_names,
            "noises": list(self.config["grid"]["noises"]),
            "reference": self.config["grid"]["reference"],
            "published_datasets": self.published_datasets,
            "published_methods": self.published_methods,
        }

    def figures(self, dataset: str) -> list[str]:
        """Names of the figures that this study can draw for a dataset."""
        tables = self.tables
        possible = {
            "label_curves": "segmentation" in tables,
            "denoising_levels": "denoising" in tables and self.has_clean_truth(dataset),
            "training_curves": True,
        }
        return [name for name, wanted in possible.items() if wanted]

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
        axes = self.config["grid"]
        n_labelled, seed = axes["n_labelled"][0], axes["seeds"][0]
        return [self._run(dataset, noise, name, n_labelled, seed) for name in self.method_names]

    def showcase_run(self, dataset: str, noise: str) -> Run:
        """Return the run whose results the report shows image by image."""
        runs = {run.method: run for run in self.example_runs(dataset, noise)}
        return runs.get(self.config["grid"]["reference"], list(runs.values())[-1])

    @property
    def summary(self) -> dict[str, list[str]]:
        """The axes of the study in words, for the head of the report."""
        axes = self.config["grid"]
        return {
            "data sets": list(axes["datasets"]),
            "noise levels": list(axes["noises"]),
            "methods": list(axes["methods"]),
            "annotated images": [str(count) for count in axes["n_labelled"]],
            "seeds": [str(seed) for seed in axes["seeds"]],
            "recipe": [self.config["recipe"]],
        }

    def _expand(self) -> Iterator[Run]:
        axes = self.config["grid"]
        for dataset in axes["datasets"]:
            for noise in axes["noises"]:
                for method in axes["methods"]:
                    for n_labelled in axes["n_labelled"]:
                        for seed in axes["seeds"]:
                            run = self._run(dataset, noise, method, n_labelled, seed)
                            yield from self._with_upstream(run)

    def _with_upstream(self, run: Run) -> Iterator[Run]:
        for needed in self.upstream(run):
            yield from self._with_upstream(needed)
        yield run

    def _run(self, dataset: str, noise: str, method: str, n_labelled: int, seed: int) -> Run:
        return Run(dataset, noise, method, n_labelled if self._uses_labels(method) else 0, seed)

    def _run_beside(self, run: Run, method: str | None) -> Run | None:
        """The run of another method in the same place of the grid; None for no method."""
        if method in (None, NOISY):
            return None
        return self._run(run.dataset, run.noise, method, run.n_labelled, run.seed)

    def _uses_labels(self, name: str) -> bool:
        method = self.methods[name]
        return method.segments or any(map(self._uses_labels, self._needed(method)))

    def _needed(self, method: Method) -> list[str]:
        """Names of the methods that a method builds on, as far as they are defined."""
        return [name for name in (method.input, method.init) if name in self.methods]

    def _check(self, method: Method) -> None:
        key = f"methods.{method.name}"
        if method.denoises and method.target == "none":
            raise InputError(
                f"config key '{key}' has alpha {method.alpha} but nothing to learn denoising from; "
                "set 'target: blind_spot', or 'alpha: 0' to segment only"
            )
        if not method.denoises and method.target != "none":
            raise InputError(
                f"config key '{key}' has target '{method.target}' but alpha 0, so that nothing "
                "would be denoised; set alpha above 0, or 'target: none'"
            )
        if method.input != NOISY:
            source = _look_up(self.methods, method.input, "method", f"{key}.input")
            if not source.denoises:
                raise InputError(
                    f"config key '{key}.input' names '{source.name}', which does not denoise "
                    "(alpha 0); name a method with alpha above 0"
                )
        if method.init is not None:
            _look_up(self.methods, method.init, "method", f"{key}.init")
        self._check_ends(method)

    def _check_ends(self, method: Method) -> None:
        """Methods that build on each other must not form a circle."""
        waiting, seen = [method.name], []
        while waiting:
            current = self.methods[waiting.pop()]
            seen.append(current.name)
            needed = self._needed(current)
            if method.name in needed:
                raise InputError(
                    f"config key 'methods.{method.name}' builds on itself, through "
                    f"{' and '.join(seen)}; change 'input' or 'init' of one of them"
                )
            waiting += [name for name in needed if name not in seen]


def _look_up(section: Mapping[str, Any], name: str, kind: str, key: str) -> Any:
    if name not in section:
        raise InputError(
            f"unknown {kind} '{name}'; available: {_listed(section)} (config key {key})"
        )
    return section[name]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
