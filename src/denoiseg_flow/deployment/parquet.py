"""The objects of all images as a Parquet dataset: the folder ``objects.parquet``.

pandas, polars, DuckDB and others read the folder as one table. It is in parts of about
:data:`IMAGES` images each, of which only those change that hold new or changed images. All parts
have the same columns. Each notes which object tables it was made from.
"""

import hashlib
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from denoiseg_flow.deployment.chunks import count_chunks, divide
from denoiseg_flow.deployment.csv_tables import table_of, write_rows
from denoiseg_flow.jobs.atomic import new_file

NAME = "objects.parquet"
IMAGES = 1000  # per part, at most
BLOCK = 2**24  # bytes of csv that are parsed at once

# All other columns hold floating-point numbers. A column has one type in all parts, even where it
# is empty.
_TEXT = {"image", "plate", "well", "field"}
_INTEGERS = {"label", "area", "volume", "t"}

_SOURCE = b"denoiseg_flow"  # metadata of a part: a checksum of what it was made from


def update(folder: Path, tables: Mapping[str, str], columns: Sequence[str]) -> None:
    """Write the parts of the dataset that are missing or outdated, and remove superfluous ones.

    Parameters
    ----------
    folder
        Folder of the results; the object table of an image is ``objects/{image}.csv``.
    tables
        Checksums of these tables, by image. Without any, the dataset is removed.
    columns
        Columns of the dataset, at least those of all tables.
    """
    parts = _parts(folder, tables, columns)
    for part in parts:
        if not part.is_current():
            _write(part, [table_of(image, folder) for image in part.images], columns)
    wanted, dataset = {part.path for part in parts}, folder / NAME
    for path in dataset.glob("part-*.parquet"):
        if path not in wanted:
            path.unlink()
    if not wanted and dataset.exists():
        dataset.rmdir()


def to_read(folder: Path, tables: Mapping[str, str], columns: Sequence[str]) -> set[str]:
    """Return the images whose tables :func:`update` would read."""
    parts = _parts(folder, tables, columns)
    return {image for part in parts if not part.is_current() for image in part.images}


class _Part(NamedTuple):
    path: Path
    images: list[str]
    source: bytes
    """What the part is made from."""

    def is_current(self) -> bool:
        """Return whether the file exists, is not damaged, and is made from the same tables."""
        try:
            metadata = pyarrow.parquet.read_schema(self.path).metadata or {}
        except (OSError, pyarrow.ArrowInvalid):
            return False
        return metadata.get(_SOURCE) == self.source


def _parts(folder: Path, tables: Mapping[str, str], columns: Sequence[str]) -> list[_Part]:
    """Return the parts that the dataset should have."""
    count = count_chunks(max(len(tables), 1), IMAGES)
    paths = {image: table_of(image, folder) for image in tables}
    parts = []
    for number, files in divide(paths, count).items():
        path = folder / NAME / f"part-{number:04}-of-{count:04}.parquet"
        source = hashlib.sha256(repr((columns, [tables[image] for image in files])).encode())
        parts.append(_Part(path, list(files), source.hexdigest().encode()))
    return parts


def _write(part: _Part, tables: Sequence[Path], columns: Sequence[str]) -> None:
    """Write one part from the tables of its images."""
    types = {name: _type(name) for name in columns}
    schema = pyarrow.schema(types.items(), metadata={_SOURCE: part.source})
    reading = pyarrow.csv.ReadOptions(column_names=columns, block_size=BLOCK)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    conversion = pyarrow.csv.ConvertOptions(column_types=types)
    with new_file(part.path) as unfinished, tempfile.TemporaryFile(dir=part.path.parent) as rows:
        text = io.TextIOWrapper(rows, encoding="utf-8", newline="")
        write_rows(tables, text, columns)
        text.flush()
        with pyarrow.parquet.ParquetWriter(unfinished, schema, compression="zstd") as file:
            if rows.tell():
                rows.seek(0)
                for batch in pyarrow.csv.open_csv(rows, reading, parsing, conversion):
                    file.write_batch(batch.replace_schema_metadata(schema.metadata))


def _type(column: str) -> pyarrow.DataType:
    if column in _TEXT:
        return pyarrow.string()
    return pyarrow.int64() if column in _INTEGERS else pyarrow.float64()
