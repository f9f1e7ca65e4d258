"""The tables of all new images that a model was used on: ``objects.csv`` and ``images.tsv``."""

import csv
import os
import shutil
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from denoiseg_flow.errors import InputError
from denoiseg_flow.record import Entry, Record

UNFINISHED = ".unfinished_"  # beginning of the names of folders that a killed process leaves


def join_results(images: Collection[str], folder: Path) -> None:
    """Join what is known of images after the last call of :func:`application.apply_model`.

    Writes ``images.tsv`` and, if the model segments, ``objects.csv``, the tables of all images in
    one. Images of earlier calls with the same model stay in both.

    Parameters
    ----------
    images
        Names of all images that were asked for.
    folder
        Where their results are.

    Raises
    ------
    InputError
        After all is written, if an image could not be predicted.
    """
    for unfinished in folder.glob(f"{UNFINISHED}*"):  # of a process that was killed
        shutil.rmtree(unfinished)
    record = Record(folder)
    asked, known = set(images), record.read()
    models = {known[name].model for name in asked & known.keys()}
    kept = [
        known[name]
        for name in sorted(known)
        if name in asked or (known[name].model in models and _is_whole(known[name], folder))
    ]
    tables = [_table(entry, folder) for entry in kept if entry.objects != ""]
    joined = folder / "objects.csv"
    if record.added.exists() or len(kept) < len(known) or joined.exists() != bool(tables):
        _join(tables, joined)
        record.replace(kept)
    failed = [entry.source for entry in kept if entry.failed]
    if failed:
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise InputError(
            f"{len(failed)} of {len(images)} images could not be predicted "
            f"({', '.join(failed[:3])}{more}); the reasons are in {record.path}. Correct or remove "
            "these files and run the same command again: the others are done"
        )


def _table(entry: Entry, folder: Path) -> Path:
    return folder / "objects" / f"{entry.image}.csv"


def _is_whole(entry: Entry, folder: Path) -> bool:
    """Whether an image of an earlier call did not fail and still has its table, if any."""
    return not entry.failed and (entry.objects == "" or _table(entry, folder).exists())


def _join(tables: Sequence[Path], joined: Path) -> None:
    """Write object tables, one after the other, to one file; without any, remove it."""
    if not tables:
        joined.unlink(missing_ok=True)
        return
    partial = joined.with_name(f".{joined.name}.partial")
    columns = _columns(tables)
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for path in tables:
            with path.open(encoding="utf-8", newline="") as table:
                header = next(csv.reader(table))
                if header == columns:  # as of nearly all: nothing to be parsed
                    shutil.copyfileobj(table, file)
                else:
                    writer.writerows(csv.DictReader(table, header))
    os.replace(partial, joined)


def _columns(tables: Iterable[Path]) -> list[str]:
    """Return the columns of all tables."""
    headers: dict[str, None] = {}
    for path in tables:
        with path.open(encoding="utf-8", newline="") as table:
            headers[table.readline()] = None
    rows = list(csv.reader(headers))
    # Tables of files with time points or planes have columns that others lack.
    longest = max(rows, key=len)
    return list(dict.fromkeys([*longest, *(name for row in rows for name in row)]))
