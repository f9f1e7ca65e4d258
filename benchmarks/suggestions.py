"""Compare annotating the images that the workflow suggests with annotating random images.

For each draw, a network is trained on a few annotated images of a pool, simulated or from folders,
and suggests more: as many as the next round has. Networks are trained on those, or on as many
random ones, and so on from round to round. All are scored on other images. Finished rows are kept:
start the same command again to continue.
"""

import argparse
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import record
import yaml
from systems import parser, read_config, run_workflow

from denoiseg_flow.data import folders
from denoiseg_flow.data.simulated import simulator
from denoiseg_flow.data.store import open_labels, write_array, write_labels
from denoiseg_flow.evaluation.annotate_next import suggest
from denoiseg_flow.evaluation.scoring import segmentation_scores
from denoiseg_flow.jobs.devices import select_device
from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.models.model import AnyModel, TrainedModel
from denoiseg_flow.models.model_file import load_model
from denoiseg_flow.models.predict_run import predict_folder
from denoiseg_flow.study.grid import Grid

START, SUGGESTED, RANDOM = "start", "suggested", "random"
COLUMNS = ["draw", "n_annotated", "choice", "number", "AP"]
KEY = COLUMNS[:-1]
# Nuclei per image, fewest and most: of images that are all alike, and of a common and a rare kind.
ALIKE = (8, 22)
COMMON, RARE = (2, 6), (20, 30)


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__, "benchmarks/results/suggestions")
    options.add_argument("--images", type=Path, help="folder of images, instead of simulated ones")
    options.add_argument("--masks", type=Path, help="folder of their instance masks")
    options.add_argument("--draws", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    options.add_argument("--pool", type=int, default=60, help="images to choose from")
    options.add_argument("--test", type=int, default=40, help="other images, to judge by")
    options.add_argument(
        "--rare", type=float, default=0, help="share of crowded images, the others being sparse"
    )
    options.add_argument(
        "--rounds", type=int, nargs="+", default=[4, 10], help="annotated images in each round"
    )
    options.add_argument("--random", type=int, default=3, help="random choices in each round")
    options.add_argument("--method", default="denoiseg", help="of config/config.yaml")
    options.add_argument("--recipe", default="demo", help="of config/config.yaml")
    options.add_argument("--epochs", type=int, help="instead of those of the recipe")
    options.add_argument("--noise", default="n20", help="of config/config.yaml")
    chosen = options.parse_args()
    if (chosen.images is None) != (chosen.masks is None):
        options.error("give both --images and --masks, or none of them")
    if len(chosen.rounds) < 2 or sorted(set(chosen.rounds)) != chosen.rounds:
        options.error("--rounds needs two numbers or more, each larger than the one before")
    return chosen


def simulate(n_images: int, seed: int, rare: float) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, image and mask of images that are all alike, or of two kinds."""
    n_rare = round(rare * n_images)
    kinds = [("common_", n_images - n_rare, COMMON), ("rare_", n_rare, RARE)]
    for place, (kind, count, n_nuclei) in enumerate(kinds if rare else [("", n_images, ALIKE)]):
        images = simulator.simulate(n_images=count, n_nuclei=n_nuclei, seed=seed + 1000 * place)
        for each in images:
            yield f"{kind}{each.name}", each.image, each.mask


class Study:
    """One folder, in which each pool with each choice of masks is a dataset of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = options.out / "study"
        self.datasets: dict[str, dict] = {}
        self.pools: dict[int, list[str]] = {}

    def add_pool(self, draw: int) -> None:
        """Write the images of a draw, and other ones to judge by."""
        pool, test = (
            (self.folder / f"{kind}{draw}", self.folder / f"masks_{kind}{draw}")
            for kind in ("pool", "test")
        )
        if not (self.folder / f"pool{draw}.done").exists():
            if self.options.images:
                self._copy_images(draw, pool, test)
            else:
                self._simulate_images(draw, pool, test)
            (self.folder / f"pool{draw}.done").touch()
        self.pools[draw] = sorted(path.stem for path in pool[1].iterdir())
        self.datasets[f"test{draw}"] = {
            "source": "folder",
            "images": test[0].name,
            "masks": test[1].name,
        }

    def _simulate_images(self, draw: int, *places: tuple[Path, Path]) -> None:
        options = self.options
        for (images, masks), count, seed in zip(
            places, (options.pool, options.test), (2 * draw, 2 * draw + 1), strict=True
        ):
            for name, image, mask in simulate(count, seed, options.rare):
                write_array(images / f"{name}.tif", image)
                write_labels(masks / f"{name}.tif", mask.astype(np.uint16))

    def _copy_images(self, draw: int, *places: tuple[Path, Path]) -> None:
        options = self.options
        found = [each for each in folders.find(options.images, options.masks) if each.mask]
        counts = options.pool, options.test
        if sum(counts) > len(found):
            raise SystemExit(
                f"{options.images} has {len(found)} images with masks, but --pool and --test ask "
                f"for {sum(counts)}; lower them"
            )
        order = generator(draw, "suggestions", "pool").permutation(len(found))[: sum(counts)]
        for (images, masks), part in zip(places, np.split(order, [options.pool]), strict=True):
            for index in part:
                each = found[index]
                for source, folder in ((each.image, images), (each.mask, masks)):
                    folder.mkdir(parents=True, exist_ok=True)
                    ending = "".join(
                        source.suffixes[-2:] if ".ome." in source.name else [source.suffix]
                    )
                    shutil.copyfile(source, folder / f"{each.name}{ending}")

    def add_choice(self, draw: int, choice: str, annotated: Iterable[str]) -> None:
        """Define the dataset of a draw in which the images of these names are annotated."""
        folder = self.folder / f"masks_{choice}_{draw}"
        folder.mkdir(exist_ok=True)
        for name in annotated:
            for mask in (self.folder / f"masks_pool{draw}").glob(f"{name}.*"):
                if not (folder / mask.name).exists():  # a later file would repeat its training
                    shutil.copyfile(mask, folder / mask.name)
        self.datasets[f"{choice}_{draw}"] = {
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
            whole = Grid(read_config() | {"recipe": options.recipe})
            recipe = whole.recipe_name(whole.methods[options.method])
            study["recipes"] = {recipe: {"epochs": options.epochs}}
        config.write_text(yaml.safe_dump(study))
        run_workflow(self.folder, config, options.threads, targets)

    def model_file(self, draw: int, choice: str, count: int) -> str:
        """The file of the model that learned from a choice of so many images."""
        options = self.options
        run = f"{choice}_{draw}/{options.noise}/{options.method}/annotated{count}/seed1"
        return f"results/runs/{run}/model.pt"

    def noisy(self, dataset: str) -> str:
        """The folder of the noisy images of a dataset."""
        return f"results/data/{dataset}/noisy/{self.options.noise}"

    def train(self, draw: int, choice: str, annotated: list[str]) -> AnyModel:
        """Return the model that learns from the masks of these images."""
        self.add_choice(draw, choice, annotated)
        model = self.model_file(draw, choice, len(annotated))
        self.run([model, self.noisy(f"test{draw}")])
        return load_model(self.folder / model, select_device("auto", self.options.threads))

    def suggest(self, draw: int, choice: str, annotated: list[str], count: int) -> list[str]:
        """Return so many images to annotate next, as the model of a choice suggests."""
        file = self.folder / self.model_file(draw, choice, len(annotated))
        model = load_model(file, select_device("auto", self.options.threads))
        assert isinstance(model, TrainedModel)
        others = [name for name in self.pools[draw] if name not in annotated]
        images = self.folder / self.noisy(f"{choice}_{draw}")
        return [*suggest(model, images, annotated, others)["image"].head(count)]

    def average_precision(self, draw: int, model: AnyModel) -> float:
        """Return the mean AP on the images of a draw that are for that."""
        noisy = self.folder / self.noisy(f"test{draw}")
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


def measure(options: argparse.Namespace, done: pd.DataFrame) -> Iterator[tuple]:
    """Run what is not done; yield rows of :data:`COLUMNS`, in the order of draws and rounds."""
    study, known = Study(options), set(done[KEY].itertuples(index=False, name=None))

    def score(draw: int, choice: str, number: int, annotated: list[str]) -> Iterator[tuple]:
        key = (draw, len(annotated), choice, number)
        if key not in known:
            model = study.train(draw, named(choice, number, len(annotated)), annotated)
            yield (*key, study.average_precision(draw, model))

    for draw in options.draws:
        study.add_pool(draw)
        pool, first = study.pools[draw], options.rounds[0]
        rng = generator(draw, "suggestions", "start")
        start = [str(name) for name in rng.choice(pool, first, replace=False)]
        yield from score(draw, START, 0, start)
        others = [name for name in pool if name not in start]
        orders = [
            [
                str(name)
                for name in generator(draw, "suggestions", RANDOM, number).permutation(others)
            ]
            for number in range(options.random)
        ]
        chosen, last = start, named(START, 0, first)
        for before, count in pairwise(options.rounds):
            listed = options.out / "study" / f"suggested{count}_{draw}.json"
            if not listed.exists():
                new = study.suggest(draw, last, chosen, count - before)
                listed.write_text(json.dumps([*chosen, *new]))
            chosen, last = json.loads(listed.read_text()), named(SUGGESTED, 0, count)
            yield from score(draw, SUGGESTED, 0, chosen)
            for number, order in enumerate(orders):
                yield from score(draw, RANDOM, number, [*start, *order[: count - first]])


def named(choice: str, number: int, count: int) -> str:
    """Return the name of a choice of so many images."""
    return f"{choice}{count}" + (f"_{number}" if choice == RANDOM else "")


def read_done(file: Path, options: Mapping[str, object]) -> pd.DataFrame:
    """Return the finished rows; refuse those of other options."""
    note = file.with_suffix(".json")
    told = json.loads(json.dumps(options, default=str))
    if not note.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(told, indent=1))
    elif json.loads(note.read_text()) != told:
        raise SystemExit(f"{note} was written with other options; choose another --out")
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(file)


def compare(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Return a row of text per round and draw, and one of means: AP, and the difference.

    The first round is the same for both.
    """
    table = table.groupby(["n_annotated", "draw", "choice"], as_index=False)["AP"].mean()
    rows: list[tuple[str, ...]] = []
    for count, of_round in table.groupby("n_annotated"):
        wide = of_round.pivot(index="draw", columns="choice", values="AP")
        if START in wide:
            wide = wide.assign(**{RANDOM: wide[START], SUGGESTED: wide[START]})
        wide = wide.reindex(columns=[RANDOM, SUGGESTED]).dropna()
        wide["difference"] = wide[SUGGESTED] - wide[RANDOM]
        rows += [
            (
                f"{count}, draw {draw}",
                f"{row.iloc[0]:.3f}",
                f"{row.iloc[1]:.3f}",
                f"{row.iloc[2]:+.3f}",
            )
            for draw, row in wide.iterrows()
        ]
        mean, sem = wide.mean(), wide.sem()
        cells = [f"{mean[name]:.3f} ± {sem[name]:.3f}" for name in (RANDOM, SUGGESTED)]
        both = f"{mean['difference']:+.3f} ± {sem['difference']:.3f}"
        rows.append((f"{count}, mean", *cells, both))
    return rows


def main() -> None:
    """Measure and write ``suggestions.csv`` and ``suggestions.md``."""
    options = read_options()
    notes = record.machine(options.threads)
    file = options.out / "rows.csv"
    # More draws may be added later.
    fixed = {key: value for key, value in vars(options).items() if key not in ("draws", "threads")}
    table = read_done(file, fixed)
    for row in measure(options, table):
        table.loc[len(table)] = row
        table.to_csv(file, index=False, lineterminator="\n")
    table = table[table["draw"].isin(options.draws)]
    columns = ("annotated images", "at random", "suggested", "difference")
    body = record.markdown_table(columns, compare(table))
    kinds = f", {options.rare:.0%} of them crowded and the others sparse," if options.rare else ""
    source = "simulates" if options.images is None else f"takes from {options.images.name}"
    notes.append(
        f"AP on {options.test} other images. Each draw {source} {options.pool} images{kinds} with "
        f"noise {options.noise} to choose from; method {options.method}, recipe `{options.recipe}`"
        f"{f' of {options.epochs} epochs' if options.epochs else ''}, all annotated images "
        f"cross-validated. Random: mean of {options.random} choices. Mean ± "
        "standard error over draws."
    )
    record.write(options.out / "suggestions", "Suggested and random images", table, body, notes)


if __name__ == "__main__":
    main()
