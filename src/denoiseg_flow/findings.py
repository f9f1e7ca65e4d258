"""Findings: what a user should know about data or results, in one sentence each."""

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SEVERITIES = ("problem", "warning", "note")
_LISTED = 3  # names in one sentence


@dataclass(frozen=True)
class Finding:
    """One finding about data or results.

    Attributes
    ----------
    severity
        ``"problem"``: results will be misleading; ``"warning"``: needs a look; ``"note"``: good
        to know.
    topic
        One or two words, the same for all findings of a kind.
    sentence
        The finding and, where something is wrong, the fix.
    images
        Names of the affected images; empty if it concerns the whole dataset.
    """

    severity: str
    topic: str
    sentence: str
    images: tuple[str, ...] = ()


def count(number: int, noun: str) -> str:
    """Return a number of things in words: "1 image", "2 images"."""
    return f"{int(number)} {noun}" + ("" if number == 1 else "s")


def listed(names: Sequence[str]) -> str:
    """Return the first three names, which must be printable, and the number of the others."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings sorted by severity: problems, warnings, notes."""
    return sorted(findings, key=lambda each: SEVERITIES.index(each.severity))


def worst(findings: Iterable[Finding]) -> list[Finding]:
    """Return the problems and warnings."""
    return [each for each in findings if each.severity != "note"]


def log(findings: Iterable[Finding], about: str) -> None:
    """Log the findings: notes as information, the rest as warnings."""
    for each in findings:
        level = logging.INFO if each.severity == "note" else logging.WARNING
        logging.getLogger(__name__).log(level, "%s: %s", about, each.sentence)


def write(findings: Iterable[Finding], path: Path) -> None:
    """Write findings as JSON."""
    text = json.dumps([asdict(each) for each in findings], indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> list[Finding]:
    """Read findings that :func:`write` wrote."""
    return [
        Finding(**entry | {"images": tuple(entry["images"])})
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]
