"""What a user should know about data or results, in one sentence each."""

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

SEVERITIES = ("problem", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """Something to know.

    Attributes
    ----------
    severity
        ``"problem"``: results will mislead; ``"warning"``: look at it; ``"note"``: good to know.
    topic
        A word or two; one kind of finding always has the same.
    images
        The names of those it is about, if it is about some of many.
    """

    severity: str
    topic: str
    sentence: str
    images: tuple[str, ...] = ()


def count(number: int, noun: str) -> str:
    """Return a number of things in words: "1 image", "2 images"."""
    return f"{int(number)} {noun}" + ("" if number == 1 else "s")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return problems first, then warnings, then notes."""
    return sorted(findings, key=lambda each: SEVERITIES.index(each.severity))


def worst(findings: Iterable[Finding]) -> list[Finding]:
    """Return those findings that are more than notes."""
    return [each for each in findings if each.severity != "note"]


def log(findings: Iterable[Finding], about: str) -> None:
    """Tell the log what was found, warnings as such."""
    for each in findings:
        level = logging.INFO if each.severity == "note" else logging.WARNING
        logging.getLogger(__name__).log(level, "%s: %s", about, each.sentence)


def write(findings: Iterable[Finding], path: Path) -> None:
    """Write findings as json."""
    text = json.dumps([asdict(each) for each in findings], indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> list[Finding]:
    """Read what :func:`write` wrote."""
    return [
        Finding(**entry | {"images": tuple(entry["images"])})
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]
