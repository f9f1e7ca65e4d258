"""Measure the tables of very many objects: how long they take to write, to extend and to read."""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import record
from scale import measured
from systems import parser

from denoiseg_flow.deployment.csv_tables import table_of
from denoiseg_flow.deployment.ledger import Entry, Record
from denoiseg_flow.deployment.objects import PLANE_PROPERTIES
from denoiseg_flow.jobs import checksums

JOIN = """
import sys
from pathlib import Path
from denoiseg_flow.deployment.object_tables import join_results
from denoiseg_flow.deployment.ledger import Record
folder = Path(sys.argv[1])
assert not join_results(Record(folder).read(), folder)
"""
# The mean area of each image's objects.
READERS = {
    "pandas, csv": "import pandas as x; t = x.read_csv('objects.csv').groupby('image').area.mean()",
    "pandas": "import pandas as x; t = x.read_parquet('objects.parquet', columns=['image', "
    "'area']).groupby('image').area.mean()",
    "polars": "import polars as x; t = x.scan_parquet('objects.parquet/*.parquet')"
    ".group_by('image').agg(x.col('area').mean()).collect()",
    "DuckDB": 'import duckdb as x; t = x.sql("select image, avg(area) from '
    "'objects.parquet/*.parquet' group by image\").fetchall()",
}


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=100_000)
    options.add_argument("--objects", type=int, default=100, help="in each image")
    options.add_argument(
        "--reader-python",
        default=sys.executable,
        help="Python with pandas, pyarrow, polars and duckdb; those that it lacks are left out",
    )
    return options.parse_args()


def add_image(folder: Path, number: int, n_objects: int) -> None:
    """Write the object table of an image, with random values, and record the image."""
    rng, name = np.random.default_rng(number), f"image_{number:06}"
    table = pd.DataFrame({"image": name}, index=range(n_objects))
    for column in PLANE_PROPERTIES.values():
        table[column] = rng.random(n_objects).astype(np.float32) * 100
    table["label"] = range(1, n_objects + 1)
    table["area"] = table["area"].astype(int)
    table.insert(5, "area_um2", table["area"] * 0.01)
    path = table_of(name, folder)
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=False, lineterminator="\n")
    entry = Entry(name, f"{name}.tif", 1, 1, "model", n_objects, checksums.digest(path))
    Record(folder).add(entry)


def main() -> None:
    """Measure and write ``object_tables.csv`` and ``object_tables.md``."""
    options = read_options()
    notes = record.machine(options.threads)
    rows = []

    def measure(what: str, python: str, *command: str) -> None:
        try:
            rows.append({"what": what} | measured([python, *command]))
        except SystemExit:
            notes.append(f"{what}: left out, because it failed or its library is missing.")

    with tempfile.TemporaryDirectory(prefix="benchmark_tables_") as name:
        folder = Path(name)
        for number in range(options.images):
            add_image(folder, number, options.objects)
        join = (sys.executable, "-c", JOIN, name)
        measure("write the tables of all images", *join)
        measure("nothing new", *join)
        add_image(folder, options.images, options.objects)
        measure("one image more", *join)
        add_image(folder, 0, options.objects + 1)
        measure("one image changed", *join)
        for reader, code in READERS.items():
            inside = f"import os; os.chdir({name!r}); {code}"
            measure(f"mean area by image: {reader}", options.reader_python, "-c", inside)
        parts = [path.stat().st_size for path in (folder / "objects.parquet").iterdir()]
        notes += [
            f"{options.images * options.objects:,} objects in {options.images:,} images.",
            f"objects.csv: {(folder / 'objects.csv').stat().st_size / 1e6:,.0f} MB; "
            f"objects.parquet: {len(parts)} parts, {sum(parts) / 1e6:,.0f} MB.",
        ]
    table = pd.DataFrame(rows)
    lines = [
        (
            row.what,
            f"{row.seconds:.1f}",
            f"{row.processor_seconds:.1f}",
            f"{row.peak_memory_mib:,.0f}",
        )
        for row in table.itertuples()
    ]
    columns = ("what", "on the clock (s)", "processor (s)", "peak memory (MiB)")
    body = record.markdown_table(columns, lines)
    record.write(Path(options.out, "object_tables"), "Object tables", table, body, notes)


if __name__ == "__main__":
    main()
