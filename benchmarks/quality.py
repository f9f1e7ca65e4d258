"""Compare the quality of this package and the reference implementation by minutes of training.

Both train `denoiseg` on the same noisy images with the same masks, and are scored by the same code
on the same test images. An interrupted run resumes where it stopped.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import quality_figure
import record
import yaml
from pace import Pace
from systems import (
    OURS,
    REFERENCE,
    System,
    add_peers,
    ours,
    parser,
    peer_python,
    read_method,
    read_recipe,
    run,
    run_workflow,
)

from denoiseg_flow.data import manifest, splitting
from denoiseg_flow.data.layout import Predictions, PreparedData
from denoiseg_flow.data.store import open_labels, write_array, write_labels
from denoiseg_flow.evaluation.scoring import score_run
from denoiseg_flow.methods.instances import label_instances
from denoiseg_flow.study.grid import Run
from denoiseg_flow.training.threshold import choose_threshold

DATASET = "dsb2018"
METRICS = {"AP": "ap", "SEG": "seg", "PSNR": "psnr"}
INSTANCES = "components"  # how the reference makes objects; ours does as the recipe says
PROBE_STEPS = (5, 30)  # per epoch, of the two trainings that the pace is measured by


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__, "benchmarks/results/quality")
    add_peers(options, REFERENCE)
    options.add_argument("--images", type=Path, required=True, help="folder of clean images")
    options.add_argument("--masks", type=Path, required=True, help="folder of their masks")
    options.add_argument("--noise", default="n20", help="level, as config/config.yaml names it")
    options.add_argument("--n-annotated", type=int, nargs="+", default=[10])
    options.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3], help="seeds")
    options.add_argument(
        "--minutes", type=float, nargs="+", default=[1, 2, 3, 5, 10], help="of ours"
    )
    options.add_argument(
        "--reference-minutes", type=float, nargs="+", default=[1, 2, 3, 5, 10, 20, 30]
    )
    options.add_argument("--method", default="denoiseg", help="of config/config.yaml, for ours")
    options.add_argument("--recipe", default="fast", help="of config/config.yaml, for ours")
    options.add_argument("--depth", type=int, default=2)
    options.add_argument("--filters", type=int, default=16)
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="for ours")
    options.add_argument("--reference-batch", type=int, default=16)
    options.add_argument(
        "--reference-epoch-steps", type=int, default=100, help="steps between two validations"
    )
    options.add_argument(
        "--reference-validation-patches", type=int, default=64, help="of 128x128 pixels, at most"
    )
    return options.parse_args()


def keep_settings(options: argparse.Namespace) -> None:
    """Refuse to mix parts that were measured differently."""
    free = {"out", "reference_python", "n_annotated", "draws", "minutes", "reference_minutes"}
    settings = {key: str(value) for key, value in vars(options).items() if key not in free}
    settings["method"] = str(read_method(options.method))
    settings["recipe"] = str(read_recipe(options.recipe))
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
        return {column: float(means[metric]) for metric, column in METRICS.items()}


def measure_pace(options: argparse.Namespace, data: Data, n_annotated: int) -> Pace:
    """Return the pace of our training; measured once, then read."""
    path = options.out / "parts" / f"pace_annotated{n_annotated}.json"
    if not path.exists():
        trainings = []
        for steps in PROBE_STEPS:
            job = our_job(options, data, options.draws[0], n_annotated, steps)
            report = run(ours(), "train", job | {"predictions": None}, options)
            trainings.append((report["steps"], report["seconds"]))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(Pace.of_two(*trainings))))
    return Pace(**json.loads(path.read_text()))


def our_job(
    options: argparse.Namespace, data: Data, draw: int, n_annotated: int, steps_per_epoch: int
) -> dict[str, Any]:
    """Return the job of one of our trainings."""
    changes = {
        "depth": options.depth,
        "filters": options.filters,
        "steps_per_epoch": steps_per_epoch,
    }
    return {
        "split": str(data.split_file(draw)),
        "noisy": str(data.noisy),
        "masks": str(data.masks),
        "noise": options.noise,
        "n_annotated": n_annotated,
        "seed": draw,
        "method": read_method(options.method),
        "recipe": read_recipe(options.recipe) | changes,
        "device": options.device,
    }


def measure_ours(
    options: argparse.Namespace, data: Data, draw: int, n_annotated: int, budget: float
) -> list[dict[str, Any]]:
    """One training of our own per time point, because its schedule ends with it."""
    pace = measure_pace(options, data, n_annotated)
    steps = pace.steps_per_epoch(budget, read_recipe(options.recipe)["epochs"])
    if not steps:
        print(f"ours, {budget:g} minutes: no step fits", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=options.out) as folder:
        job = our_job(options, data, draw, n_annotated, steps) | {"predictions": folder}
        report = run(ours(), "train", job, options)
        scores = data.score(draw, Path(folder))
    times = {"minutes": report["seconds"] / 60, "step": report["steps"]}
    return [{"budget": budget, **times, **scores, "software": record.versions(report["versions"])}]


def measure_reference(
    options: argparse.Namespace, data: Data, draw: int, n_annotated: int, python: Path
) -> list[dict[str, Any]]:
    """One long training, whose best weights so far are judged at every time point."""
    names = data.names(draw, n_annotated)
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=options.out) as folder:
        job = {
            "noisy": str(data.noisy),
            "masks": str(data.masks),
            "seed": draw,
            "points": options.reference_minutes,
            "depth": options.depth,
            "filters": options.filters,
            "batch_size": options.reference_batch,
            "epoch_steps": options.reference_epoch_steps,
            "validation_patches": options.reference_validation_patches,
            "predictions": folder,
            **names,
        }
        report = run(System(REFERENCE, REFERENCE, python, {}), "train", job, options)
        software = record.versions(report["versions"])
        rows = []
        for point, minutes, step in report["points"]:
            scores = judge(data, draw, names, Path(folder, f"{point:g}"))
            times = {"budget": point, "minutes": minutes, "step": step}
            rows.append({**times, **scores, "software": software})
        return rows


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


def parts(options: argparse.Namespace, data: Data, reference: Path | None) -> pd.DataFrame:
    """Measure whatever is missing, and return all rows."""
    tables = []

    def part(system: str, n_annotated: int, draw: int, name: str, measure: Any) -> None:
        path = options.out / "parts" / f"{system}_annotated{n_annotated}_draw{draw}_{name}.csv"
        if not path.exists():
            print(f"{system}, {n_annotated} annotated, draw {draw}, {name} minutes", flush=True)
            table = pd.DataFrame(measure())
            table.insert(0, "system", system)
            table.insert(1, "draw", draw)
            table.insert(2, "n_annotated", n_annotated)
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(f"{path}.partial", index=False)
            Path(f"{path}.partial").replace(path)
        tables.append(pd.read_csv(path))

    for n_annotated in options.n_annotated:
        for draw in options.draws:
            where = (options, data, draw, n_annotated)
            if reference:
                name = "-".join(f"{minutes:g}" for minutes in options.reference_minutes)
                part(
                    REFERENCE, n_annotated, draw, name,
                    lambda where=where: measure_reference(*where, reference),
                )  # fmt: skip
            for minutes in options.minutes:
                part(
                    OURS, n_annotated, draw, f"{minutes:g}",
                    lambda where=where, minutes=minutes: measure_ours(*where, minutes),
                )  # fmt: skip
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
    """Return "mean ± standard error", the error only where there is more than one value."""
    digits = 2 if values.mean() > 2 else 3
    error = f" ± {values.sem():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{error}"


def main() -> None:
    """Measure and write ``quality.csv``, ``quality.md`` and the figure ``quality.svg``."""
    options = read_options()
    keep_settings(options)
    notes = record.machine(options.threads)
    data = Data(options)
    data.prepare(options)
    reference, missing = peer_python(options, REFERENCE)
    table = parts(options, data, reference)
    if table.empty:
        raise SystemExit("nothing was measured: no step fits into --minutes; give more")
    software = table.groupby("system", sort=False)["software"].first()
    notes += [f"{name}: {text}." for name, text in software.items()]
    notes += [
        f"Noise {options.noise}, U-Net of depth {options.depth} with {options.filters} filters; "
        "mean ± standard error over draws of the annotated images; test images, metrics as in "
        "docs/reference/metrics.md.",
        f"ours: `{options.method}`, recipe `{options.recipe}`, one training per budget, timed as a "
        "whole with reading the images and choosing the threshold.",
        "reference: one training, weights of the lowest validation loss so far; its time is that "
        "of training and validation alone, without cutting and augmenting patches before it and "
        f"choosing the threshold after it. Batches of {options.reference_batch}, validation every "
        f"{options.reference_epoch_steps} steps on at most "
        f"{options.reference_validation_patches} patches of 128x128, patience of its schedule kept "
        "at 4000 steps, otherwise its defaults.",
        "Threshold of both: best AP on the validation images. The objects of the reference are "
        "connected components, as in its package; those of ours are made as the recipe says.",
        *missing,
    ]
    stem = options.out / "quality"
    record.write(stem, "Quality against training time", table, summary(table), notes)
    quality_figure.draw(table, stem)


if __name__ == "__main__":
    main()
