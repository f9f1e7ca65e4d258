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
_TEXT = {"image"}
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
    dataset = folder / NAME
    count = count_chunks(max(len(tables), 1), IMAGES)
    wanted = set()
    for number, files in divide({each: table_of(each, folder) for each in tables}, count).items():
        path = dataset / f"part-{number:04}-of-{count:04}.parquet"
        wanted.add(path)
        source = hashlib.sha256(repr((columns, [tables[image] for image in files])).encode())
        if not path.exists() or _source(path) != source.digest():
            _write(path, list(files.values()), columns, source.digest())
    for path in dataset.glob("part-*.parquet"):
        if path not in wanted:
            path.unlink()
    if not wanted and dataset.exists():
        dataset.rmdir()


def _write(path: Path, tables: Sequence[Path], columns: Sequence[str], source: bytes) -> None:
    """Write one part from the tables of its images."""
    types = {name: _type(name) for name in columns}
    schema = pyarrow.schema(types.items(), metadata={_SOURCE: source})
    reading = pyarrow.csv.ReadOptions(column_names=columns, block_size=BLOCK)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    conversion = pyarrow.csv.ConvertOptions(column_types=types)
    with new_file(path) as unfinished, tempfile.TemporaryFile(dir=path.parent) as rows:
        text = io.TextIOWrapper(rows, encoding="utf-8", newline="")
        write_rows(tables, text, columns)
        text.flush()
        with pyarrow.parquet.ParquetWriter(unfinished, schema, compression="zstd") as part:
            if rows.tell():
                rows.seek(0)
                for batch in pyarrow.csv.open_csv(rows, reading, parsing, conversion):
                    part.write_batch(batch.replace_schema_metadata(schema.metadata))


def _type(column: str) -> pyarrow.DataType:
    if column in _TEXT:
        return pyarrow.string()
    return pyarrow.int64() if column in _INTEGERS else pyarrow.float64()


def _source(path: Path) -> bytes | None:
    """Return what a part was made from; None if it is damaged."""
    try:
        return (pyarrow.parquet.read_schema(path).metadata or {}).get(_SOURCE)
    except (OSError, pyarrow.ArrowInvalid):
        return None
