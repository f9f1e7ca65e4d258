"""Estimate how many training steps fit into a number of minutes."""

from dataclasses import dataclass

MARGIN = 0.97  # of the budget that is planned with, so that a slow moment does not exceed it


@dataclass(frozen=True)
class Pace:
    """Time of a training: a fixed part and one per step."""

    overhead_seconds: float
    seconds_per_step: float

    @classmethod
    def of_two(cls, short: tuple[int, float], long: tuple[int, float]) -> "Pace":
        """Return the pace that explains two trainings of (steps, seconds)."""
        per_step = (long[1] - short[1]) / (long[0] - short[0])
        return cls(max(0.0, short[1] - short[0] * per_step), per_step)

    def steps_per_epoch(self, minutes: float, epochs: int) -> int:
        """Return the steps per epoch of a training that takes so long; 0 where none fits."""
        seconds = 60 * minutes * MARGIN - self.overhead_seconds
        return max(0, int(seconds / self.seconds_per_step / epochs))
