"""Measure systems in alternation, so that other load on the machine affects all equally."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import TypeVar

Item = TypeVar("Item")


def alternate(items: Sequence[Item], rounds: int) -> Iterator[tuple[int, Item]]:
    """Yield (round, item): every item once per round, in every second round from the last on.

    So that a machine that gets slower over time, by heat or by load, is no one's disadvantage.
    """
    for number in range(1, rounds + 1):
        for item in items if number % 2 else reversed(items):
            yield number, item


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Return "median (min to max)"."""
    values = list(values)
    numbers = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return "{} ({} to {})".format(*numbers)
