"""The score of every image of a run, from the worst to the best, with pictures."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from denoiseg_flow.findings import count
from denoiseg_flow.reporting.tables.layout import format_number

#: Pictures in a report, shared by all runs; each takes about 10 kB.
PICTURES = 120
POINTS = 500  # of one plot, which a screen can tell apart


class Point(NamedTuple):
    """The score of one image, with its place in the plot in percent."""

    name: str
    value: str
    left: float
    bottom: float
    picture: str | None
    """Data URI."""


@dataclass(frozen=True)
class ImageScores:
    """The plot of the scores of one run.

    Attributes
    ----------
    title
        Heading.
    metric
        Name of the score.
    shown
        What the pictures show.
    scale
        The scores at the bottom and at the top of the plot.
    n_images
        Number of ranked images.
    points
        From the worst to the best image: of all, or of some that are evenly spread over the ranks.
    """

    title: str
    metric: str
    shown: str
    scale: tuple[float, float]
    n_images: int
    points: list[Point]

    @classmethod
    def of(
        cls,
        title: str,
        scores: pd.Series,
        shown: str,
        picture: Callable[[str], str],
        n_pictures: int,
    ) -> "ImageScores":
        """Rank images, and make pictures of some that are evenly spread over the ranks.

        Parameters
        ----------
        scores
            Finite scores by name of the image; its name is that of the metric.
        picture
            Returns the data URI of an image.
        n_pictures
            How many to make, unless there are fewer images; the worst and the best are among them.
        """
        metric = str(scores.name)
        ranked = scores.sort_values(kind="stable")
        low, high = 0.0, 1.0
        if metric.startswith("PSNR"):
            low, high = math.floor(ranked.min()), math.floor(ranked.max()) + 1
        pictured, shown_ranks = (
            set(np.linspace(0, len(ranked) - 1, min(number, len(ranked))).round())
            for number in (n_pictures, POINTS)
        )
        points = [
            Point(
                str(name),
                format_number(value, metric),
                round(100 * (rank + 0.5) / len(ranked), 2),
                round(100 * (value - low) / (high - low), 2),
                picture(str(name)) if rank in pictured else None,
            )
            for rank, (name, value) in enumerate(ranked.items())
            if rank in pictured | shown_ranks
        ]
        return cls(title, metric, shown, (low, high), len(ranked), points)

    @property
    def ticks(self) -> list[tuple[int, str]]:
        """Places in percent and values of the ticks."""
        low, high = self.scale
        return [(share, f"{low + share / 100 * (high - low):g}") for share in (0, 50, 100)]

    @property
    def n_pictures(self) -> int:
        """Number of points with a picture."""
        return sum(point.picture is not None for point in self.points)

    @property
    def summary(self) -> str:
        """The plot in a sentence."""
        first, last = self.points[0], self.points[-1]
        return (
            f"{self.metric} of {count(self.n_images, 'image')}, from {first.value} "
            f"({first.name}) to {last.value} ({last.name})."
        )

    @property
    def caption(self) -> str:
        """This sentence, and what the pictures show."""
        which = ""
        if self.n_pictures < self.n_images:
            which = f" of {self.n_pictures} images, evenly spread over the ranks"
        if len(self.points) < self.n_images:
            which = f" of {self.n_pictures} images, and points of {len(self.points)}, evenly spread"
        return f"{self.summary} Pictures{which}: {self.shown}."
