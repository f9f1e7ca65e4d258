"""The weights available to a user at given times of a training: the best validated so far."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Snapshot:
    """What a training would have handed out at a time point.

    Attributes
    ----------
    point
        The time point in minutes.
    minutes
        When these weights could be had: the point itself, or the end of the first epoch if that
        came later.
    step
        Steps done by the end of the last epoch before that.
    weights
        Those of the lowest validation loss so far.
    """

    point: float
    minutes: float
    step: int
    weights: Any


class Snapshots:
    """Collects one snapshot per time point from a training that validates after every epoch."""

    def __init__(self, points: Sequence[float]) -> None:
        self.waiting = sorted(points)
        self.taken: list[Snapshot] = []
        self._best_loss = math.inf
        self._best_weights: Any = None
        self._step = 0

    @property
    def complete(self) -> bool:
        """Whether every point has its snapshot."""
        return not self.waiting

    def after_epoch(self, minutes: float, step: int, loss: float, weights: Any) -> None:
        """Note an epoch that ended after ``minutes`` and ``step`` steps.

        An epoch counts for the points after its end; the first epoch also for those before it.
        """
        first = self._best_weights is None
        if first:
            self._note(step, loss, weights)
        while self.waiting and self.waiting[0] <= minutes:
            point = self.waiting.pop(0)
            self._take(point, minutes if first else point)
        if not first:
            self._note(step, loss, weights)

    def finish(self, minutes: float) -> None:
        """Give all points left the best weights, of a training that ended after ``minutes``."""
        while self.waiting:
            self._take(self.waiting.pop(0), minutes)

    def _note(self, step: int, loss: float, weights: Any) -> None:
        self._step = step
        if loss < self._best_loss or self._best_weights is None:
            self._best_loss, self._best_weights = loss, weights

    def _take(self, point: float, minutes: float) -> None:
        self.taken.append(Snapshot(point, minutes, self._step, self._best_weights))
