"""Join the tables of all predicted images: ``objects.csv`` and ``images.tsv``."""

import csv
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from denoiseg_flow.deployment.ledger import AGAIN, Entry, Record
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.atomic import new_file


def join_results(images: Collection[str], folder: Path) -> dict[str, Path]:
    """Join the tables of single images after the last call of `predict_images.predict_images`.

    Writes ``images.tsv`` and, if the model segments, ``objects.csv``. Images of earlier calls with
    the same model stay in both tables; those of other models stay in ``images.tsv`` only. No other
    process may write to the folder at the same time, see
    :func:`~denoiseg_flow.deployment.output_folder.at_work`.

    Parameters
    ----------
    images
        Names of all requested images.
    folder
        Folder of their results.

    Returns
    -------
    dict of str to Path
        Files of the images that failed, by name, for :func:`refuse_failures`. They include images
        whose table was damaged or deleted later.
    """
    record = Record(folder)
    asked, known = set(images), record.read()
    models = {known[name].model for name in asked & known.keys()}
    kept = [
        _of_models(known[name], models)
        for name in sorted(known)
        if name in asked or known[name].results
    ]
    joined = folder / "objects.csv"
    has_tables = any(entry.objects != "" for entry in kept)
    as_before = kept == [known[name] for name in sorted(known)]
    if record.added.exists() or not as_before or joined.exists() != has_tables:
        kept = [_verified(entry, folder) for entry in kept]
        _join([table_of(entry.image, folder) for entry in kept if entry.objects != ""], joined)
        record.replace(kept)
    return {
        entry.image: Path(entry.source) for entry in kept if entry.failed and entry.image in asked
    }


def refuse_failures(failed: Mapping[str, Path], n_images: int, folder: Path) -> None:
    """Raise an InputError that names the images that failed, if there are any."""
    if not failed:
        return
    first = ", ".join(map(str, islice(failed.values(), 3)))
    more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
    raise InputError(
        f"{len(failed)} of {n_images} images could not be predicted ({first}{more}); see "
        f"{Record(folder).path} for the reasons, correct or remove these files, and run the same "
        "command again (the others are done)"
    )


def table_of(image: str, folder: Path) -> Path:
    """Return the path of the object table of an image."""
    return folder / "objects" / f"{image}.csv"


def _of_models(entry: Entry, models: Collection[str]) -> Entry:
    """Return the entry, marked as failed if the image was predicted by another model.

    Its results remain listed.
    """
    if entry.failed or entry.model in models:
        return entry
    reason = f"it was predicted with another model than the last images; {AGAIN}"
    return replace(entry, objects="", confidence="", table="", failed=reason)


def _verified(entry: Entry, folder: Path) -> Entry:
    """Return the entry, marked as failed if its table has changed since it was written."""
    table = table_of(entry.image, folder)
    if entry.objects == "" or (table.is_file() and checksums.digest(table) == entry.table):
        return entry
    reason = f"{table} was damaged or deleted; {AGAIN}"
    return replace(entry, objects="", confidence="", table="", failed=reason)


def _join(tables: Sequence[Path], joined: Path) -> None:
    """Concatenate object tables into one file; without tables, remove the file."""
    if not tables:
        joined.unlink(missing_ok=True)
        return
    columns = _columns(tables)
    with (
        new_file(joined) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        for path in tables:
            with path.open(encoding="utf-8", newline="") as table:
                header = next(csv.reader(table))
                if header == columns:  # nearly always, so nothing has to be parsed
                    shutil.copyfileobj(table, file)
                else:
                    writer.writerows(csv.DictReader(table, header))


def _columns(tables: Iterable[Path]) -> list[str]:
    """Return the columns of all tables."""
    headers: dict[str, None] = {}
    for path in tables:
        with path.open(encoding="utf-8", newline="") as table:
            headers[table.readline()] = None
    rows = list(csv.reader(headers))
    # Tables of files with time points or z-slices have additional columns.
    longest = max(rows, key=len)
    return list(dict.fromkeys([*longest, *(name for row in rows for name in row)]))
