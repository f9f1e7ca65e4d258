"""Measure the quality of segmentation trained on partly annotated images.

Training images keep only the annotation inside boxes or along brush strokes. Validation and test
images are fully annotated, and the same for all.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import record
import skimage as ski
import yaml
from systems import parser, run_workflow

from denoiseg_flow.data.files.reader import read_image
from denoiseg_flow.data.folders import find
from denoiseg_flow.data.store import write_labels
from denoiseg_flow.data.validation import check_mask
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.reporting.tables.statistics import read_metrics_csv, summarise

BOX = 32  # side in pixels
STROKE, WIDTH = 64, 3  # length and width in pixels


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__, "benchmarks/results/scribbles")
    options.add_argument("--images", type=Path, required=True, help="folder of clean images")
    options.add_argument("--masks", type=Path, required=True, help="folder of their masks")
    options.add_argument("--share", type=float, default=0.05, help="of the pixels of an image")
    options.add_argument("--method", default="denoiseg", help="of config/config.yaml")
    options.add_argument("--recipe", default="fast", help="of config/config.yaml")
    options.add_argument("--noise", default="n20", help="of config/config.yaml")
    options.add_argument("--n-annotated", type=int, default=10)
    options.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    return options.parse_args()


def boxes(shape: tuple[int, int], share: float, rng: np.random.Generator) -> np.ndarray:
    """Return where boxes lie that cover at least a share of the pixels: (y, x), bool."""
    painted = np.zeros(shape, bool)
    while painted.mean() < share:
        top, left = (rng.integers(max(1, size - BOX + 1)) for size in shape)
        painted[top : top + BOX, left : left + BOX] = True
    return painted


def strokes(shape: tuple[int, int], share: float, rng: np.random.Generator) -> np.ndarray:
    """Return where straight strokes lie that cover at least a share of the pixels: (y, x), bool."""
    painted = np.zeros(shape, bool)
    while painted.mean() < share:
        middle, angle = rng.uniform(0, shape), rng.uniform(0, np.pi)
        step = STROKE / 2 * np.array([np.sin(angle), np.cos(angle)])
        ends = np.rint([middle - step, middle + step]).astype(int)
        line = np.zeros(shape, bool)
        rows, columns = ski.draw.line(*ends[0], *ends[1])
        inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
        line[rows[inside], columns[inside]] = True
        painted |= ski.morphology.dilation(line, np.ones((WIDTH, WIDTH), bool))
    return painted


KINDS: dict[str, Callable[..., np.ndarray]] = {"boxes": boxes, "strokes": strokes}


def paint(options: argparse.Namespace, training: set[str]) -> dict[str, Path]:
    """Write a folder of masks for each kind; return them by kind."""
    folders = {kind: options.out / kind for kind in KINDS}
    for source in find(options.images, options.masks):
        labels = check_mask(read_image(source.mask, indexed=True), str(source.mask))
        for kind, draw in KINDS.items():
            mask = labels
            if source.name in training:
                rng = generator(0, "scribbles", kind, source.name)
                mask = np.where(draw(labels.shape, options.share, rng), labels, -1)
            if (mask >= 0).any():
                path = folders[kind] / f"{source.name}.tif"
                write_labels(path, mask.astype(np.int32))
    return folders


def run_study(options: argparse.Namespace) -> pd.DataFrame:
    """Run the workflow, or what is missing of it; return mean and error per kind and metric."""
    study = options.out / "study"
    study.mkdir(parents=True, exist_ok=True)
    images = str(options.images.resolve())

    def dataset(masks: Path) -> dict[str, str]:
        return {
            "source": "folder", "images": images, "masks": str(masks.resolve()), "clean": images,
        }  # fmt: skip

    changes = {
        "recipe": options.recipe,
        "datasets": {"full": dataset(options.masks)},
        "grid": {
            "datasets": ["full"],
            "noises": [options.noise],
            "methods": [options.method],
            "n_annotated": [options.n_annotated],
            "seeds": options.seeds,
            "reference": options.method,
        },
    }
    config = study / "scribbles.yaml"
    config.write_text(yaml.safe_dump(changes))
    # Which images are for training is decided by their names, and so the same for all kinds.
    table = f"results/data/full/split/seed{options.seeds[0]}.tsv"
    run_workflow(study, config, options.threads, [table])
    split = pd.read_csv(study / table, sep="\t", dtype={"image": str})
    folders = paint(options, set(split.loc[split["subset"] == "train", "image"]))
    changes["datasets"] |= {kind: dataset(folder) for kind, folder in folders.items()}
    changes["grid"]["datasets"] += list(folders)
    config.write_text(yaml.safe_dump(changes))
    run_workflow(study, config, options.threads, ["results/tables/metrics.csv"])
    return summarise(read_metrics_csv(study / "results/tables/metrics.csv"))


def compare(summary: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return a row of text per kind: AP and SEG, mean ± standard error, and the share of AP."""
    cells = summary.set_index(["dataset", "metric"])[["mean", "sem"]]
    return [
        (
            "full masks" if kind == "full" else kind,
            *("{:.3f} ± {:.3f}".format(*cells.loc[kind, metric]) for metric in ("AP", "SEG")),
            f"{cells.loc[(kind, 'AP'), 'mean'] / cells.loc[('full', 'AP'), 'mean']:.0%}",
        )
        for kind in ("full", *KINDS)
    ]


def main() -> None:
    """Measure and write ``scribbles.csv`` and ``scribbles.md``."""
    options = read_options()
    notes = record.machine(options.threads)
    summary = run_study(options)
    columns = ("annotation", "AP", "SEG", "share of the AP of full masks")
    body = record.markdown_table(columns, compare(summary))
    notes.append(
        f"Method {options.method}, recipe `{options.recipe}`, {options.noise}, "
        f"{options.n_annotated} annotated images of which {options.share:.0%} of the pixels are "
        f"annotated, in boxes of {BOX}x{BOX} pixels or along strokes of {STROKE}x{WIDTH} pixels; "
        f"mean ± standard error over seeds {', '.join(map(str, options.seeds))}, each with its own "
        "draw of images. Validation and test images are annotated in full."
    )
    record.write(options.out / "scribbles", "A part of the pixels annotated", summary, body, notes)


if __name__ == "__main__":
    main()
