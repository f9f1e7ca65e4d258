"""Join the tables of all predicted images: ``objects.csv``, ``objects.parquet``, ``images.tsv``.

Work and memory grow with the images that were added since the last call, not with all images.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from denoiseg_flow.deployment import parquet
from denoiseg_flow.deployment.csv_tables import columns_of, table_of, write_csv
from denoiseg_flow.deployment.ledger import AGAIN, Entry, Record
from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs import checksums
from denoiseg_flow.jobs.atomic import new_file

_NOTE = ".joined"  # says for which images.tsv and up to which byte objects.csv is complete


def join_results(images: Collection[str], folder: Path) -> dict[str, Path]:
    """Join the tables of single images after the last call of `predict_images.predict_images`.

    Writes ``images.tsv`` and, if the model segments, ``objects.csv`` and ``objects.parquet``, see
    :mod:`parquet`. Images of earlier calls with the same model stay in all tables; those of other
    models stay in ``images.tsv`` only. No other process may write to the folder at the same time,
    see :func:`~denoiseg_flow.deployment.output_folder.at_work`.

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
        whose table was damaged or deleted before it was joined.
    """
    record = Record(folder)
    asked, known = set(images), record.read()
    models = {known[name].model for name in asked & known.keys()}
    kept = [
        _of_models(known[name], models)
        for name in sorted(known)
        if name in asked or known[name].results
    ]
    tables = [folder / "objects.csv", folder / parquet.NAME]
    has_tables = any(entry.objects != "" for entry in kept)
    as_before = kept == [known[name] for name in sorted(known)]
    are_there = {path.exists() for path in tables} == {has_tables}
    if record.added.exists() or not as_before or not are_there:
        before = _joined_tables(record)
        unread = before.keys() - parquet.to_read(folder, _checksums(kept), columns_of(tables[:1]))
        verified = [_verified(entry, folder, unread) for entry in kept]
        if not _can_append(before, verified, folder):
            before = {}
            verified = [_verified(entry, folder, ()) for entry in kept]
        kept, joined = verified, _checksums(verified)
        new = [table_of(name, folder) for name in joined if name not in before]
        write_csv(new, tables[0], append=bool(before))
        parquet.update(folder, joined, columns_of(tables[:1]))
        record.replace(kept)
        _note_joined(record)
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


def _of_models(entry: Entry, models: Collection[str]) -> Entry:
    """Return the entry, marked as failed if the image was predicted by another model.

    Its results remain listed.
    """
    if entry.failed or entry.model in models:
        return entry
    reason = f"it was predicted with another model than the last images; {AGAIN}"
    return replace(entry, objects="", confidence="", table="", failed=reason)


def _verified(entry: Entry, folder: Path, unread: Collection[str]) -> Entry:
    """Return the entry, marked as failed if its table has changed since it was written.

    Tables of the images ``unread`` will not be read, and are not checked.
    """
    table = table_of(entry.image, folder)
    if entry.objects == "" or entry.image in unread:
        return entry
    if table.is_file() and checksums.digest(table) == entry.table:
        return entry
    reason = f"{table} was damaged or deleted; {AGAIN}"
    return replace(entry, objects="", confidence="", table="", failed=reason)


def _checksums(entries: Iterable[Entry]) -> dict[str, str]:
    """Return the checksums of the object tables to join, by image."""
    return {entry.image: entry.table for entry in entries if entry.objects != ""}


def _joined_tables(record: Record) -> dict[str, str]:
    """Return the checksums of the tables in ``objects.csv``, by image.

    There are none if the file is not as the last call left it.
    """
    note = record.folder / _NOTE
    if not note.exists() or note.read_text(encoding="utf-8") != _state(record):
        return {}
    return _checksums(record.joined())


def _note_joined(record: Record) -> None:
    """Note that ``objects.csv`` holds the tables of the images in the record, and no others."""
    note = record.folder / _NOTE
    if not (record.folder / "objects.csv").exists():
        note.unlink(missing_ok=True)
        return
    with new_file(note) as unfinished:
        unfinished.write_text(_state(record), encoding="utf-8")


def _state(record: Record) -> str:
    joined = record.folder / "objects.csv"
    size = joined.stat().st_size if joined.exists() else 0
    return f"{size} {checksums.digest(record.path)}" if record.path.exists() else ""


def _can_append(before: Mapping[str, str], entries: Sequence[Entry], folder: Path) -> bool:
    """Return whether ``objects.csv`` only lacks rows at its end."""
    after = _checksums(entries)
    if not before or not before.items() <= after.items():
        return False
    new = [table_of(name, folder) for name in after if name not in before]
    return set(columns_of(new)) <= set(columns_of([folder / "objects.csv"]))
