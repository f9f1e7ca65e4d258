"""Measure the coverage of the intervals in the report, and the rate of false recommendations.

Simulates studies in which all methods are equally good. The variance between trainings, between
images and of the remainder is taken from real studies: from the differences of all pairs of methods
in their metrics.csv, seed by image. Effects of trainings are normal, because too few are known for
more; effects of images and remainders are drawn from the observed ones, tails included.
"""

import argparse
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import record
from numpy.typing import NDArray
from systems import parser

from denoiseg_flow.jobs.seeds import generator
from denoiseg_flow.reporting.tables.intervals import estimate_mean, selection_bias
from denoiseg_flow.reporting.tables.statistics import read_metrics_csv
from denoiseg_flow.reporting.tables.verdicts import best_methods

CELL = ["noise", "n_annotated", "method"]


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    options.add_argument("metrics", type=Path, nargs="+", help="metrics.csv of studies")
    options.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 5, 10])
    options.add_argument("--images", type=int, nargs="+", default=[3, 5, 12, 50, 200])
    options.add_argument("--methods", type=int, nargs="+", default=[2, 4, 10])
    options.add_argument("--draws", type=int, default=1000, help="of each coverage")
    options.add_argument("--studies", type=int, default=300, help="of each share of false winners")
    return options.parse_args()


@dataclass(frozen=True)
class Spread:
    """How much the differences of two methods vary in a study, and where that comes from.

    Attributes
    ----------
    name
        Study and metric.
    seeds, sources, rest
        Standard deviations of the effects: square roots of their mean variances over all pairs,
        of which single ones may come out negative.
    shapes
        Of the effects of images and of the rest: what was found, scaled to variance 1.
    """

    name: str
    seeds: float
    sources: float
    rest: float
    shapes: tuple[NDArray[np.float64], NDArray[np.float64]]

    @classmethod
    def of(cls, tables: list[NDArray[np.float64]], name: str) -> "Spread":
        """Analyse the variance of tables (seed, source), each of the differences of two methods."""
        variances, images, rests = [], [], []
        for table in tables:
            n_seeds, n_sources = table.shape
            centred = table - table.mean()
            seeds, sources = centred.mean(axis=1), centred.mean(axis=0)
            rest = centred - seeds[:, None] - sources
            of_rest = (rest**2).sum() / (n_seeds - 1) / (n_sources - 1)
            of_seeds = seeds.var(ddof=1) - of_rest / n_sources
            of_sources = sources.var(ddof=1) - of_rest / n_seeds
            variances.append((of_seeds, of_sources, of_rest))
            images.append(_scaled(sources))
            rests.append(_scaled(rest.ravel()))
        deviations = np.sqrt(np.maximum(np.mean(variances, axis=0), 0))
        return cls(name, *map(float, deviations), (np.concatenate(images), np.concatenate(rests)))

    def draw(
        self, random: np.random.Generator, n_methods: int, n_seeds: int, n_sources: int
    ) -> NDArray[np.float64]:
        """Return scores (method, seed, source) of methods that are equal on average."""
        images, rests = self.shapes
        table = random.normal(0, self.seeds, (n_methods, n_seeds, 1))
        table = table + self.sources * random.choice(images, (n_methods, 1, n_sources))
        table = table + self.rest * random.choice(rests, (n_methods, n_seeds, n_sources))
        return table / np.sqrt(2)  # of a method; differences of two vary twice as much


def _scaled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 0 else values


def spreads_of(path: Path) -> list[Spread]:
    """Return how much AP and PSNR vary in a study."""
    metrics = read_metrics_csv(path)
    (dataset,) = metrics["dataset"].unique()
    found = []
    for metric in ("AP", "PSNR"):
        scores = metrics[metrics["metric"] == metric]
        tables = {
            cell: part.pivot_table(index="seed", columns="source", values="value")
            for cell, part in scores.groupby(CELL, observed=True)
        }
        pairs = [
            (one - other).to_numpy(float)
            for (a, one), (b, other) in combinations(tables.items(), 2)
            if a[0] == b[0] and (a[1] == b[1] or 0 in (a[1], b[1]))
        ]
        found.append(Spread.of(pairs, f"{dataset}, {metric}"))
    return found


def covered(spread: Spread, n_seeds: int, n_sources: int, draws: int) -> float:
    """Return the share of intervals of a difference that hold its true value, 0."""
    random = generator(0, "coverage", spread.name, n_seeds, n_sources)
    inside = 0
    for _ in range(draws):
        one, other = spread.draw(random, 2, n_seeds, n_sources)
        found = estimate_mean(one - other)
        inside += found.low <= 0 <= found.high
    return inside / draws


@dataclass(frozen=True)
class Claims:
    """Shares of studies, all of whose methods are equal, in which the report says otherwise."""

    use: float
    """That recommend a method."""
    better: float
    """That call the best one better than any other one."""
    bias: float
    """By how much the best mean is too good, over the standard deviation of the rest."""
    bias_estimated: float
    """The same, as estimated from each study."""


def claims(spread: Spread, n_methods: int, n_seeds: int, n_sources: int, studies: int) -> Claims:
    """Simulate studies, and read what the report says of them."""
    random = generator(0, "claims", spread.name, n_methods, n_seeds, n_sources)
    axes = [[f"{axis}{number}" for number in range(size)] for axis, size in (
        ("m", n_methods), ("s", n_seeds), ("i", n_sources))]  # fmt: skip
    index = pd.MultiIndex.from_product(axes, names=["method", "seed", "source"])
    frame = index.to_frame(index=False).assign(dataset="d", noise="n", n_annotated=1, metric="AP")
    frame["image"] = frame["source"]
    used, better, bias, estimated = [], [], [], []
    for _ in range(studies):
        table = spread.draw(random, n_methods, n_seeds, n_sources)
        (verdict,) = best_methods(frame.assign(value=table.ravel()))
        used.append(verdict.recommendation.startswith("Use "))
        better.append(bool(verdict.names("better")))
        bias.append(table.mean(axis=(1, 2)).max() / spread.rest)
        estimated.append(selection_bias(table) / spread.rest)
    return Claims(*(float(np.mean(values)) for values in (used, better, bias, estimated)))


def measure_coverage(spreads: list[Spread], options: argparse.Namespace) -> pd.DataFrame:
    """Return one row for each study, number of seeds and number of images."""
    rows = []
    for spread in spreads:
        for n_seeds in options.seeds:
            for n_images in options.images:
                share = covered(spread, n_seeds, n_images, options.draws)
                rows.append((spread.name, n_seeds, n_images, share))
                print(*rows[-1], flush=True)
    return pd.DataFrame(rows, columns=["study", "seeds", "images", "covered"])


def measure_claims(spreads: list[Spread], options: argparse.Namespace) -> pd.DataFrame:
    """Return one row for each study, number of methods and number of seeds, on 12 images."""
    rows = []
    for spread in spreads:
        for n_methods in options.methods:
            for n_seeds in (1, *options.seeds[:2]):
                found = claims(spread, n_methods, n_seeds, 12, options.studies)
                rows.append({"study": spread.name, "methods": n_methods, "seeds": n_seeds})
                rows[-1] |= asdict(found)
                print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def body_of(spreads: list[Spread], coverage: pd.DataFrame, told: pd.DataFrame) -> str:
    """Return the three tables of the spread, of coverage, and of false claims."""
    wide = coverage.pivot(index=["study", "seeds"], columns="images", values="covered")
    tables = [
        record.markdown_table(
            ["study", "seeds", "images", "rest"],
            [
                (s.name, f"{s.seeds:.3f}", f"{s.sources:.3f}", f"{s.rest:.3f}") for s in spreads
            ],
        ),
        record.markdown_table(
            ["study", "seeds", *(f"{n} images" for n in wide.columns)],
            [
                (*place, *(f"{100 * share:.1f} %" for share in row))
                for place, row in zip(wide.index, wide.to_numpy(), strict=True)
            ],
        ),
        record.markdown_table(
            ["study", "methods", "seeds", "“Use”", "“better than”", "bias", "estimated"],
            [
                (
                    row.study, row.methods, row.seeds, f"{100 * row.use:.1f} %",
                    f"{100 * row.better:.1f} %", f"{row.bias:.2f}",
                    "" if np.isnan(row.bias_estimated) else f"{row.bias_estimated:.2f}",
                )
                for row in told.itertuples()
            ],
        ),
    ]  # fmt: skip
    return "\n\n".join(tables)


def main() -> None:
    """Simulate, and write the tables."""
    options = read_options()
    notes = record.machine(options.threads)
    spreads = [spread for path in options.metrics for spread in spreads_of(path)]
    coverage = measure_coverage(spreads, options)
    told = measure_claims(spreads, options)
    notes.append(
        f"{options.draws} draws of each coverage, {options.studies} studies of 12 images of each "
        "share of false claims; selection bias in standard deviations of the rest."
    )
    body = body_of(spreads, coverage, told)
    record.write(options.out / "coverage", "Coverage", pd.concat([coverage, told]), body, notes)


if __name__ == "__main__":
    main()
