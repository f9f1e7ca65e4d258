"""Compare the quality of this package and its peers by minutes of training.

All train on the same noisy images with the same masks, and are scored by the same code on the same
test images. An interrupted run resumes where it stopped.
"""

import argparse
import itertools
import json
import math
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import quality_figure
import record
import yaml
from pace import Pace
from systems import (
    CELLPOSE,
    OURS,
    REFERENCE,
    STARDIST,
    System,
    add_peers,
    ours,
    parser,
    peer_python,
    read_method,
    read_recipe_of,
    run,
    run_workflow,
)

from denoiseg_flow.data import manifest, splitting
from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.data.store import open_labels, write_array, write_labels
from denoiseg_flow.evaluation.scoring import score_run
from denoiseg_flow.methods.instances import label_instances
from denoiseg_flow.methods.pretrained import PRETRAINED
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.threshold import choose_threshold

PEERS = (REFERENCE, STARDIST, CELLPOSE)
GIVEN = {STARDIST: "folder", CELLPOSE: "file"}  # what a pretrained model of a peer is
DATASET = "dsb2018"
METRICS = {"AP": "ap", "SEG": "seg", "PSNR": "psnr"}
COLUMNS = ["budget", "minutes", "step", *METRICS.values(), "software"]
INSTANCES = "components"  # how the reference makes objects; ours does as the recipe says
PROBE_STEPS = (5, 30)  # per epoch, of the two trainings that the pace is measured by
PROBE_EPOCHS = (1, 3)  # of those of Cellpose
CELLPOSE_IMAGES = 8  # in an epoch at least, as its documentation advises for few images


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__, "benchmarks/results/quality")
    add_peers(options, *PEERS)
    for peer, what in GIVEN.items():
        options.add_argument(
            f"--{peer}-model",
            type=Path,
            help=f"{what} of a pretrained model, to be measured as well; nothing is downloaded",
        )
    options.add_argument(
        "--clock",
        default="wall",
        choices=["wall", "processor"],
        help="what is counted: time, or time of all processors together",
    )
    options.add_argument("--images", type=Path, required=True, help="folder of clean images")
    options.add_argument("--masks", type=Path, required=True, help="folder of their masks")
    options.add_argument("--noise", default="n20", help="level, as config/config.yaml names it")
    options.add_argument("--n-annotated", type=int, nargs="+", default=[10])
    options.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3], help="seeds")
    options.add_argument(
        "--minutes",
        type=float,
        nargs="+",
        default=[1, 2, 3, 5, 10],
        help="of all but the reference",
    )
    options.add_argument(
        "--reference-minutes", type=float, nargs="+", default=[1, 2, 3, 5, 10, 20, 30]
    )
    options.add_argument(
        "--methods", nargs="+", default=["denoiseg"], help="of config/config.yaml, for ours"
    )
    options.add_argument("--recipe", default="fast", help="of config/config.yaml, for ours")
    options.add_argument(
        "--depth", type=int, default=2, help="of the U-Net of ours and the reference"
    )
    options.add_argument("--filters", type=int, default=16)
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="for ours")
    options.add_argument("--reference-batch", type=int, default=16)
    options.add_argument(
        "--reference-epoch-steps", type=int, default=100, help="steps between two validations"
    )
    options.add_argument(
        "--reference-validation-patches", type=int, default=64, help="of 128x128 pixels, at most"
    )
    options.add_argument(
        "--stardist-patch", type=int, default=256, help="side of the patches of StarDist, at most"
    )
    options.add_argument("--cellpose-batch", type=int, default=8)
    options.add_argument(
        "--peer-validation-images", type=int, default=32, help="of StarDist and Cellpose, at most"
    )
    return options.parse_args()


def check_methods(names: list[str]) -> None:
    """Refuse methods that are more, or less, than the training of one network."""
    for name in names:
        method = read_method(name)
        needs_another = method["input"] != "noisy" or method["init"] not in (None, *PRETRAINED)
        if needs_another or method["classical"] or method["segmenter"] or method["each_image"]:
            raise SystemExit(
                f"--methods cannot be '{name}', which is not the training of one network; compare "
                "it with others by a study"
            )


def check_models(options: argparse.Namespace) -> None:
    """Refuse a pretrained model that is not on this machine."""
    for peer, what in GIVEN.items():
        path = getattr(options, f"{peer}_model")
        if path is None:
            continue
        if getattr(options, f"{peer}_python") is None:
            raise SystemExit(f"--{peer}-model needs --{peer}-python as well")
        complete = path.is_file()
        if peer == STARDIST:
            complete = (path / "config.json").is_file() and any(path.glob("*.h5"))
        if not complete:
            raise SystemExit(
                f"--{peer}-model {path} is not the {what} of a model; give one that is on this "
                "machine, because nothing is downloaded"
            )


def keep_settings(options: argparse.Namespace) -> None:
    """Refuse to mix parts that were measured differently."""
    free = {"out", "n_annotated", "draws", "minutes", "reference_minutes", "methods", "recipe"}
    free |= {f"{peer}_python" for peer in PEERS}
    settings = {key: str(value) for key, value in vars(options).items() if key not in free}
    settings["method"] = str([read_method(name) for name in options.methods])
    settings["recipe"] = str([read_recipe_of(name, options.recipe) for name in options.methods])
    path = options.out / "settings.json"
    if path.exists() and (found := json.loads(path.read_text())) != settings:
        changed = [key for key in settings if found.get(key) != settings[key]]
        raise SystemExit(
            f"{path.parent} holds results with another {' and '.join(changed)}; name another "
            "folder with --out"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n")


class Data:
    """What the workflow prepared."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.study = options.out / "study"
        folder = self.study / "results" / "data" / DATASET
        self.masks = folder / "prepared" / "masks"
        self.clean = folder / "prepared" / "clean"
        self.noisy = folder / "noisy" / options.noise
        self.splits = folder / "split"

    def split_file(self, draw: int) -> Path:
        """Return the split of a draw."""
        return self.splits / f"seed{draw}.tsv"

    def prepare(self, options: argparse.Namespace) -> None:
        """Run the workflow's own rules, in a folder of their own."""
        self.study.mkdir(parents=True, exist_ok=True)
        images, masks = (str(path.resolve()) for path in (options.images, options.masks))
        folders = {"images": images, "masks": masks, "clean": images}
        config = self.study / "folders.yaml"
        axes = {
            "noises": [options.noise],
            "n_annotated": options.n_annotated,
            "seeds": options.draws,
        }
        config.write_text(yaml.safe_dump({"datasets": {DATASET: folders}, "grid": axes}))
        targets = [self.masks.parent, self.noisy, *map(self.split_file, options.draws)]
        targets = [str(target.relative_to(self.study)) for target in targets]
        run_workflow(self.study, config, options.threads, targets)

    def names(self, draw: int, n_annotated: int) -> dict[str, list[str]]:
        """Return the names of training, revealed, validation and test images."""
        split = manifest.read(self.split_file(draw))
        names = {key: list(part["image"]) for key, part in split.groupby("subset")}
        return names | {"revealed": splitting.annotated_images(split, n_annotated)}

    def score(self, draw: int, predictions: Path) -> dict[str, float]:
        """Return the mean of each metric over the test images."""
        run = Run(DATASET, noise="", method="", n_annotated=0, seed=draw)
        prepared = PreparedData(self.masks.parent)
        split = manifest.read(self.split_file(draw))
        scores = score_run(run, split, prepared, self.noisy, Predictions(predictions))
        means = scores.groupby("metric")["value"].mean()
        return {column: float(means.get(metric, math.nan)) for metric, column in METRICS.items()}


def measure_pace(
    options: argparse.Namespace,
    system: System,
    n_annotated: int,
    probes: tuple[int, int],
    job_of: Callable[[int], Mapping[str, Any]],
) -> Pace:
    """Return the pace of a training; measured once, then read.

    Parameters
    ----------
    probes
        Lengths of two short trainings.
    job_of
        Returns the job of a training of such a length.
    """
    name = f"{system.name.replace(' ', '_')}_annotated{n_annotated}"
    path = options.out / "parts" / f"pace_{name}.json"
    if not path.exists():
        trainings = []
        for length in probes:
            report = run(system, "train", {**job_of(length), "predictions": None}, options)
            trainings.append((report["steps"], report["seconds"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(Pace.of_two(*trainings))))
    return Pace(**json.loads(path.read_text()))


def our_job(
    options: argparse.Namespace,
    data: Data,
    draw: int,
    n_annotated: int,
    method: str,
    steps_per_epoch: int,
) -> dict[str, Any]:
    """Return the job of one of our trainings."""
    changes = {"steps_per_epoch": steps_per_epoch}
    if read_method(method)["init"] not in PRETRAINED:
        changes |= {"depth": options.depth, "filters": options.filters}
    return {
        "clock": options.clock,
        "split": str(data.split_file(draw)),
        "noisy": str(data.noisy),
        "masks": str(data.masks),
        "noise": options.noise,
        "n_annotated": n_annotated,
        "seed": draw,
        "method": read_method(method),
        "recipe": read_recipe_of(method, options.recipe) | changes,
        "device": options.device,
    }


def measure_ours(
    options: argparse.Namespace,
    data: Data,
    draw: int,
    n_annotated: int,
    method: str,
    budget: float,
) -> list[dict[str, Any]]:
    """One training of our own per time point, because its schedule ends with it."""
    system = ours(f"{OURS} {method}")
    first = partial(our_job, options, data, options.draws[0], n_annotated, method)
    pace = measure_pace(options, system, n_annotated, PROBE_STEPS, first)
    epochs = read_recipe_of(method, options.recipe)["epochs"]
    steps = pace.steps_per_epoch(budget, epochs)
    job = our_job(options, data, draw, n_annotated, method, steps)
    return (
        train_once(options, data, draw, system, budget, job) if steps else no_step(system, budget)
    )


def no_step(system: System, budget: float) -> list[dict[str, Any]]:
    """Say that a budget is too short, and return no row."""
    print(f"{system.name}, {budget:g} minutes: no step fits", file=sys.stderr)
    return []


def train_once(
    options: argparse.Namespace,
    data: Data,
    draw: int,
    system: System,
    budget: float,
    job: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """One training of a known length, and the row of its scores."""
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=options.out) as folder:
        report = run(system, "train", {**job, "predictions": folder}, options)
        scores = data.score(draw, Path(folder))
    times = {"minutes": report["seconds"] / 60, "step": report["steps"]}
    return [{"budget": budget, **times, **scores, "software": record.versions(report["versions"])}]


def train_along(
    options: argparse.Namespace,
    system: System,
    job: Mapping[str, Any],
    score: Callable[[Path], dict[str, float]],
) -> list[dict[str, Any]]:
    """One long training, and the row of scores of each of its time points.

    Parameters
    ----------
    score
        Returns the scores of the predictions in a folder.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=options.out) as folder:
        report = run(system, "train", {**job, "predictions": folder}, options)
        software = record.versions(report["versions"])
        return [
            {
                **{"budget": point, "minutes": minutes, "step": step},
                **score(Path(folder, f"{point:g}")),
                "software": software,
            }
            for point, minutes, step in report["points"]
        ]


def peer_job(
    options: argparse.Namespace, data: Data, draw: int, n_annotated: int
) -> dict[str, Any]:
    """Return what the jobs of all peers hold."""
    return {
        "clock": options.clock,
        "noisy": str(data.noisy),
        "masks": str(data.masks),
        "seed": draw,
        **data.names(draw, n_annotated),
    }


def segmenter_job(
    options: argparse.Namespace, data: Data, draw: int, n_annotated: int, model: Path | None
) -> dict[str, Any]:
    """Return what the jobs of StarDist and Cellpose hold: fewer validation images, and a model."""
    job = peer_job(options, data, draw, n_annotated)
    order = np.random.default_rng(draw).permutation(len(job["val"]))
    chosen = sorted(order[: options.peer_validation_images])
    path = str(model.resolve()) if model else None
    return job | {"val": [job["val"][number] for number in chosen], "model": path}


def measure_stardist(
    options: argparse.Namespace,
    data: Data,
    draw: int,
    n_annotated: int,
    system: System,
    model: Path | None,
) -> list[dict[str, Any]]:
    """One long training; a given model is also judged before it, at minute 0."""
    points = [0.0, *options.minutes] if model else options.minutes
    job = segmenter_job(options, data, draw, n_annotated, model) | {"points": points}
    job["patch_size"] = options.stardist_patch
    return train_along(options, system, job, partial(data.score, draw))


def measure_cellpose(
    options: argparse.Namespace,
    data: Data,
    draw: int,
    n_annotated: int,
    system: System,
    model: Path | None,
    budget: float,
) -> list[dict[str, Any]]:
    """One training per time point, because its schedule ends with it; none for minute 0."""
    job = segmenter_job(options, data, draw, n_annotated, model)
    job["batch_size"] = options.cellpose_batch
    job["images_per_epoch"] = max(CELLPOSE_IMAGES, n_annotated)
    if not budget:
        return train_once(options, data, draw, system, budget, job | {"epochs": 0})
    pace = measure_pace(
        options, system, n_annotated, PROBE_EPOCHS, lambda epochs: job | {"epochs": epochs}
    )
    steps_per_epoch = -(-job["images_per_epoch"] // job["batch_size"])
    epochs = pace.steps_per_epoch(budget, steps_per_epoch)
    if not epochs:
        return no_step(system, budget)
    return train_once(options, data, draw, system, budget, job | {"epochs": epochs})


def measure_reference(
    options: argparse.Namespace, data: Data, draw: int, n_annotated: int, system: System
) -> list[dict[str, Any]]:
    """One long training, whose best weights so far are judged at every time point."""
    names = data.names(draw, n_annotated)
    job = {
        **peer_job(options, data, draw, n_annotated),
        "points": options.reference_minutes,
        "depth": options.depth,
        "filters": options.filters,
        "batch_size": options.reference_batch,
        "epoch_steps": options.reference_epoch_steps,
        "validation_patches": options.reference_validation_patches,
    }
    return train_along(options, system, job, partial(judge, data, draw, names))


def judge(data: Data, draw: int, names: dict[str, list[str]], outputs: Path) -> dict[str, float]:
    """Choose the threshold on validation images, label the test images with it, and score them."""

    def output(name: str) -> Any:
        return np.load(outputs / f"{name}.npz")

    threshold = choose_threshold(
        (
            (output(name)["probabilities"], open_labels(data.masks / f"{name}.tif"))
            for name in names["val"]
        ),
        INSTANCES,
    )
    predictions = outputs / "scored"
    for name in names["test"]:
        result = output(name)
        write_array(predictions / "denoised" / f"{name}.tif", result["denoised"])
        chosen = ([threshold.value], INSTANCES, threshold.prominence)
        labels = next(label_instances(result["probabilities"], *chosen))
        write_labels(predictions / "labels" / f"{name}.tif", labels)
    scores = data.score(draw, predictions)
    shutil.rmtree(outputs)
    return scores


Measurement = tuple[str, str, Callable[..., list[dict[str, Any]]]]


def measurements(options: argparse.Namespace, pythons: Mapping[str, Path]) -> Iterator[Measurement]:
    """Yield, for each part of the results, the system, its minutes, and what measures them."""
    if REFERENCE in pythons:
        system = System(REFERENCE, REFERENCE, pythons[REFERENCE], {})
        minutes = "-".join(f"{point:g}" for point in options.reference_minutes)
        yield REFERENCE, minutes, partial(measure_reference, system=system)
    for peer in (STARDIST, CELLPOSE):
        if peer not in pythons:
            continue
        given = getattr(options, f"{peer}_model")
        for model in (None, given) if given else (None,):
            system = System(f"{peer} pretrained" if model else peer, peer, pythons[peer], {})
            points = [0.0, *options.minutes] if model else options.minutes
            if peer == STARDIST:
                minutes = "-".join(f"{point:g}" for point in points)
                yield (
                    system.name, minutes,
                    partial(measure_stardist, system=system, model=model),
                )  # fmt: skip
                continue
            for budget in points:
                yield (
                    system.name, f"{budget:g}",
                    partial(measure_cellpose, system=system, model=model, budget=budget),
                )  # fmt: skip
    for method, budget in itertools.product(options.methods, options.minutes):
        yield (
            f"{OURS} {method}", f"{budget:g}",
            partial(measure_ours, method=method, budget=budget),
        )  # fmt: skip


def parts(options: argparse.Namespace, data: Data, pythons: Mapping[str, Path]) -> pd.DataFrame:
    """Measure whatever is missing, and return all rows."""
    tables = []
    for n_annotated, draw in itertools.product(options.n_annotated, options.draws):
        for system, minutes, measure in measurements(options, pythons):
            name = f"{system.replace(' ', '_')}_annotated{n_annotated}_draw{draw}_{minutes}"
            path = options.out / "parts" / f"{name}.csv"
            if not path.exists():
                print(f"{system}, {n_annotated} annotated, draw {draw}, {minutes} min", flush=True)
                rows = measure(options, data, draw, n_annotated)
                table = pd.DataFrame(rows, columns=COLUMNS)
                table.insert(0, "system", system)
                table.insert(1, "draw", draw)
                table.insert(2, "n_annotated", n_annotated)
                path.parent.mkdir(parents=True, exist_ok=True)
                table.to_csv(f"{path}.partial", index=False)
                Path(f"{path}.partial").replace(path)
            tables.append(pd.read_csv(path))
    return pd.concat(tables, ignore_index=True)


def summary(table: pd.DataFrame) -> str:
    """Return means over draws with their standard errors, one Markdown table per label count."""
    blocks = []
    for n_annotated, part in table.groupby("n_annotated"):
        rows = []
        for (budget, system), group in part.groupby(["budget", "system"]):
            values = [mean_and_error(group[column]) for column in METRICS.values()]
            times = (f"{group['minutes'].mean():.2f}", f"{group['step'].mean():,.0f}")
            rows.append((system, f"{budget:g}", *times, *values, len(group)))
        columns = ("system", "budget (min)", "used (min)", "steps", *METRICS, "draws")
        blocks += [
            f"## {n_annotated} annotated images",
            record.markdown_table(columns, rows),
        ]
    return "\n\n".join(blocks)


def mean_and_error(values: pd.Series) -> str:
    """Return "mean ± standard error", or the mean of a single value, or "-" without any."""
    if values.isna().all():
        return "-"  # not measured: most peers do not denoise
    digits = 2 if values.mean() > 2 else 3
    error = f" ± {values.sem():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}"


def describe(options: argparse.Namespace, pythons: Mapping[str, Path]) -> list[str]:
    """Return sentences about what was compared."""
    clock = {"wall": "wall-clock time", "processor": "processor time of all threads"}
    notes = [
        f"Noise {options.noise}; minutes are {clock[options.clock]}; mean ± standard error over "
        "draws of the annotated images; test images, metrics as in docs/reference/metrics.md. "
        "All thresholds: best AP on validation images.",
        f"ours: recipe `{options.recipe}` (`finetune` of it for pretrained networks), U-Net of "
        f"depth {options.depth} with {options.filters} filters unless it is pretrained, one "
        "training per budget, timed as a whole with reading the images, simulated images and "
        "choosing the threshold.",
    ]
    if REFERENCE in pythons:
        notes.append(
            "reference: the same U-Net, one training, weights of the lowest validation loss so "
            "far; its time is that of training and validation alone, without cutting and "
            "augmenting patches before it and choosing the threshold after it. Batches of "
            f"{options.reference_batch}, validation every {options.reference_epoch_steps} steps on "
            f"at most {options.reference_validation_patches} patches of 128x128, patience of its "
            "schedule kept at 4000 steps, otherwise its defaults. Its objects are connected "
            "components, as in its package; those of ours are made as the recipe says."
        )
    few = f"Thresholds from at most {options.peer_validation_images} validation images"
    if STARDIST in pythons:
        notes.append(
            "stardist: one training, weights of the lowest validation loss so far; its time is "
            "that of training and validation alone. 32 rays on every second pixel, patches of "
            f"{options.stardist_patch}x{options.stardist_patch} at most, augmented as in its "
            "notebooks, validation every 20 steps on at most 16 patches, patience of its schedule "
            f"kept at 4000 steps, otherwise its defaults. {few}."
        )
    if CELLPOSE in pythons:
        notes.append(
            "cellpose: one training per budget, timed as a whole with the flows of the masks; "
            f"epochs of at least {CELLPOSE_IMAGES} images, batches of {options.cellpose_batch}, "
            "otherwise its defaults. Images are scaled by the mean "
            f"diameter in the annotated ones. {few}."
        )
    if any(getattr(options, f"{peer}_model") for peer in GIVEN if peer in pythons):
        notes.append("pretrained: the given model as it is (0 minutes), and trained further.")
    return notes


def main() -> None:
    """Measure and write ``quality.csv``, ``quality.md`` and the figure ``quality.svg``."""
    options = read_options()
    check_methods(options.methods)
    check_models(options)
    keep_settings(options)
    notes = record.machine(options.threads)
    data = Data(options)
    data.prepare(options)
    found = {peer: peer_python(options, peer) for peer in PEERS}
    pythons = {peer: python for peer, (python, _) in found.items() if python}
    table = parts(options, data, pythons)
    if table.empty:
        raise SystemExit("nothing was measured: no step fits into --minutes; give more")
    software = table.groupby("system", sort=False)["software"].first()
    notes += [f"{name}: {text}." for name, text in software.items()]
    notes += describe(options, pythons)
    notes += [sentence for _, missing in found.values() for sentence in missing]
    stem = options.out / "quality"
    record.write(stem, "Quality against training time", table, summary(table), notes)
    quality_figure.draw(table, stem)


if __name__ == "__main__":
    main()
