"""Compare annotating the images that the workflow suggests with annotating random images.

For each draw, a network is trained on a few annotated images of a simulated pool and suggests
more. Then networks are trained on the first images plus the suggested ones, or plus as many random
ones. All are scored on other images.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import record
import yaml
from systems import parser, run_workflow

from denoiseg_flow.data.simulated import simulator
from denoiseg_flow.data.store import open_labels, write_array, write_labels
from denoiseg_flow.evaluation.scoring import segmentation_scores
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.models.predict_run import predict_folder

START, SUGGESTED, RANDOM = "start", "suggested", "random"
# Nuclei per image, fewest and most: of images that are all alike, and of a common and a rare kind.
ALIKE = (8, 22)
COMMON, RARE = (2, 6), (20, 30)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__, "benchmarks/results/suggestions")
    options.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    options.add_argument("--pool", type=int, default=60, help="images to choose from")
    options.add_argument("--test", type=int, default=40, help="other images, to judge by")
    options.add_argument(
        "--rare", type=float, default=0, help="share of crowded images, the others being sparse"
    )
    options.add_argument("--start", type=int, default=4, help="images annotated at first")
    options.add_argument("--add", type=int, default=6, help="images annotated next")
    options.add_argument("--random", type=int, default=3, help="random choices of these")
    options.add_argument("--method", default="denoiseg", help="of config/config.yaml")
    options.add_argument("--recipe", default="demo", help="of config/config.yaml")
    options.add_argument("--epochs", type=int, help="instead of those of the recipe")
    options.add_argument("--noise", default="n20", help="of config/config.yaml")
    return options.parse_args()


def simulate(n_images: int, seed: int, rare: float) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, image and mask of images that are all alike, or of two kinds."""
    n_rare = round(rare * n_images)
    kinds = [("common_", n_images - n_rare, COMMON), ("rare_", n_rare, RARE)]
    for place, (kind, count, n_nuclei) in enumerate(kinds if rare else [("", n_images, ALIKE)]):
        images = simulator.simulate(n_images=count, n_nuclei=n_nuclei, seed=seed + 1000 * place)
        for each in images:
            yield f"{kind}{each.name}", each.image, each.mask


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write an instance mask as tif."""
    write_labels(path, mask.astype(np.uint16))


class Study:
    """One folder, in which each pool with each choice of masks is a dataset of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = options.out / "study"
        self.datasets: dict[str, dict] = {}
        self.masks: dict[int, dict[str, np.ndarray]] = {}

    def add_pool(self, draw: int) -> None:
        """Simulate the images of a draw, and other ones to judge by."""
        options = self.options
        pool = list(simulate(options.pool, 2 * draw, options.rare))
        self.masks[draw] = {name: mask for name, _, mask in pool}
        for name, image, _ in pool:
            write_array(self.folder / f"pool{draw}" / f"{name}.tif", image)
        for name, image, mask in simulate(options.test, 2 * draw + 1, options.rare):
            write_array(self.folder / f"test{draw}" / f"{name}.tif", image)
            write_mask(self.folder / f"masks_test{draw}" / f"{name}.tif", mask)
        self.datasets[f"test{draw}"] = {
            "source": "folder",
            "images": f"test{draw}",
            "masks": f"masks_test{draw}",
        }

    def add_choice(self, draw: int, choice: str, annotated: Iterable[str]) -> None:
        """Define the dataset of a draw in which the images of these names are annotated."""
        folder = self.folder / f"masks_{choice}{draw}"
        for name in annotated:
            write_mask(folder / f"{name}.tif", self.masks[draw][name])
        self.datasets[f"{choice}{draw}"] = {
            "source": "folder",
            "images": f"pool{draw}",
            "masks": folder.name,
            "split": {"cross_validate_below": self.options.pool},
        }

    def run(self, targets: list[str]) -> None:
        """Let the workflow make files of the study."""
        options = self.options
        config = self.folder / "suggestions.yaml"
        grid = {
            "datasets": [name for name in self.datasets if not name.startswith("test")],
            "noises": [options.noise],
            "methods": [options.method],
            "n_annotated": ["all"],
            "seeds": [1],
            "reference": options.method,
        }
        study = {"recipe": options.recipe, "datasets": self.datasets, "grid": grid}
        if options.epochs is not None:
            study["recipes"] = {options.recipe: {"epochs": options.epochs}}
        config.write_text(yaml.safe_dump(study))
        run_workflow(self.folder, config, options.threads, targets)

    def model(self, draw: int, choice: str) -> str:
        """The file of the model that learned from a choice."""
        options = self.options
        count = options.start + (0 if choice == START else options.add)
        run = f"{choice}{draw}/{options.noise}/{options.method}/annotated{count}/seed1"
        return f"results/runs/{run}/model.pt"

    def suggestions(self, draw: int) -> str:
        """The file of the suggestions of a draw."""
        return f"results/suggestions/{START}{draw}_{self.options.noise}.csv"

    def test_images(self, draw: int) -> str:
        """The folder of the noisy images that a draw is judged by."""
        return f"results/data/test{draw}/noisy/{self.options.noise}"

    def average_precision(self, draw: int, choice: str) -> float:
        """Return the mean AP on the images of a draw that are for that."""
        model = load_model(self.folder / self.model(draw, choice))
        noisy = self.folder / self.test_images(draw)
        masks = self.folder / f"results/data/test{draw}/prepared/masks"
        names = sorted(path.stem for path in noisy.glob("*.tif"))
        with TemporaryDirectory() as folder:
            predict_folder(model, noisy, names, Path(folder), save_probabilities=False)
            scores = [
                segmentation_scores(
                    open_labels(masks / f"{name}.tif"),
                    open_labels(Path(folder, "labels", f"{name}.tif")),
                )
                for name in names
            ]
        return float(np.mean([each["AP"] for each in scores if each]))


def measure(options: argparse.Namespace) -> pd.DataFrame:
    """Run everything; return one row per draw and choice: draw, choice and AP."""
    study = Study(options)
    first = {}
    for draw in options.draws:
        study.add_pool(draw)
        names = sorted(study.masks[draw])
        rng = generator(draw, "suggestions", "start")
        first[draw] = [str(name) for name in rng.choice(names, options.start, replace=False)]
        study.add_choice(draw, START, first[draw])
    study.run(
        [path(draw) for draw in options.draws for path in (study.suggestions, study.test_images)]
    )
    choices = [SUGGESTED, *(f"{RANDOM}{number}_" for number in range(options.random))]
    for draw in options.draws:
        table = pd.read_csv(study.folder / study.suggestions(draw), dtype={"image": str})
        study.add_choice(draw, SUGGESTED, [*first[draw], *table["image"].head(options.add)])
        others = sorted(set(study.masks[draw]) - set(first[draw]))
        for choice in choices[1:]:
            rng = generator(draw, "suggestions", choice)
            drawn = rng.choice(others, options.add, replace=False)
            study.add_choice(draw, choice, [*first[draw], *map(str, drawn)])
    study.run([study.model(draw, choice) for draw in options.draws for choice in choices])
    rows = [
        (draw, choice.rstrip("0123456789_"), study.average_precision(draw, choice))
        for draw in options.draws
        for choice in (START, *choices)
    ]
    table = pd.DataFrame(rows, columns=["draw", "choice", "AP"])
    return table.groupby(["draw", "choice"], as_index=False)["AP"].mean()


def compare(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return a row of text per draw, and one of means: AP of each choice, and the difference."""
    wide = table.pivot(index="draw", columns="choice", values="AP")[[START, RANDOM, SUGGESTED]]
    wide["difference"] = wide[SUGGESTED] - wide[RANDOM]
    rows = [
        (str(draw), *(f"{value:.3f}" for value in row[:3]), f"{row.iloc[3]:+.3f}")
        for draw, row in wide.iterrows()
    ]
    mean, sem = wide.mean(), wide.sem()
    cells = [f"{mean[name]:.3f} ± {sem[name]:.3f}" for name in (START, RANDOM, SUGGESTED)]
    return [*rows, ("mean", *cells, f"{mean['difference']:+.3f} ± {sem['difference']:.3f}")]


def main() -> None:
    """Measure and write ``suggestions.csv`` and ``suggestions.md``."""
    options = read_options()
    notes = record.machine(options.threads)
    table = measure(options)
    columns = (
        "draw",
        f"{options.start} images",
        f"and {options.add} at random",
        f"and {options.add} suggested",
        "difference",
    )
    body = record.markdown_table(columns, compare(table))
    kinds = f", {options.rare:.0%} of them crowded and the others sparse," if options.rare else ""
    notes.append(
        f"AP on {options.test} other images. Each draw simulates {options.pool} images{kinds} with "
        f"noise {options.noise} to choose from; method {options.method}, recipe `{options.recipe}`"
        f"{f' of {options.epochs} epochs' if options.epochs else ''}, all annotated images "
        f"cross-validated. Random: mean of {options.random} choices. Mean ± "
        "standard error over draws."
    )
    record.write(options.out / "suggestions", "Suggested and random images", table, body, notes)


if __name__ == "__main__":
    main()
