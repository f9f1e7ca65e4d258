"""Object tables as csv: one for each image, and all of them in one file."""

import csv
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from denoiseg_flow.jobs.atomic import new_file


def table_of(image: str, folder: Path) -> Path:
    """Return the path of the object table of an image."""
    return folder / "objects" / f"{image}.csv"


def write_csv(tables: Sequence[Path], joined: Path, append: bool) -> None:
    """Write object tables into one file, or at its end; without any, remove the file."""
    if append:
        with joined.open("a", encoding="utf-8", newline="") as file:
            write_rows(tables, file, columns_of([joined]))
    elif tables:
        with (
            new_file(joined) as unfinished,
            unfinished.open("w", encoding="utf-8", newline="") as file,
        ):
            columns = columns_of(tables)
            csv.writer(file, lineterminator="\n").writerow(columns)
            write_rows(tables, file, columns)
    else:
        joined.unlink(missing_ok=True)


def write_rows(tables: Iterable[Path], file: TextIO, columns: Sequence[str]) -> None:
    """Write the rows of object tables to a file with these columns."""
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    for path in tables:
        with path.open(encoding="utf-8", newline="") as table:
            header = next(csv.reader(table))
            if header == columns:  # nearly always, so nothing has to be parsed
                shutil.copyfileobj(table, file)
            else:
                writer.writerows(csv.DictReader(table, header))


def columns_of(tables: Iterable[Path]) -> list[str]:
    """Return the columns of all tables; tables that do not exist have none."""
    headers: dict[str, None] = {}
    for path in filter(Path.exists, tables):
        with path.open(encoding="utf-8", newline="") as table:
            headers[table.readline()] = None
    rows = list(csv.reader(headers))
    # Tables of files with time points or z-slices have additional columns.
    longest = max(rows, key=len, default=[])
    return list(dict.fromkeys([*longest, *(name for row in rows for name in row)]))
