"""Measure the tables of very many objects: how long they take to write, to extend and to read."""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import record
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


def measured(python: str, code: str, *arguments: str) -> dict[str, float]:
    """Return seconds on the clock and of the processor, and the peak memory of Python code."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    # The memory of this process counts as that of a new one, except here.
    peak = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    done = subprocess.run(
        [python, "-c", f"{code}\n{peak}", *arguments], check=True, capture_output=True, text=True
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "processor_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_memory_mib": int(done.stdout.split()[-1]) / 1024,
    }


@cache
def rows(seed: int, n_objects: int) -> list[str]:
    """Return header and rows of an object table of random values, without the name of the image."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"image": ""}, index=range(n_objects))
    for column in PLANE_PROPERTIES.values():
        table[column] = rng.random(n_objects).astype(np.float32) * 100
    table["label"] = range(1, n_objects + 1)
    table["area"] = table["area"].astype(int)
    table.insert(5, "area_um2", table["area"] * 0.01)
    return table.to_csv(index=False, lineterminator="\n").splitlines(keepends=True)


def add_image(folder: Path, number: int, n_objects: int) -> None:
    """Write the object table of an image, and record the image."""
    name = f"image_{number:06}"
    header, *table = rows(number % 1000, n_objects)  # random numbers take longer than files
    path = table_of(name, folder)
    path.parent.mkdir(exist_ok=True)
    path.write_text(header + "".join(name + row.removeprefix('""') for row in table))
    entry = Entry(name, f"{name}.tif", 1, 1, "model", n_objects, checksums.digest(path))
    Record(folder).add(entry)


def main() -> None:
    """Measure and write ``object_tables.csv`` and ``object_tables.md``."""
    options = read_options()
    notes = record.machine(options.threads)
    measured_rows = []

    def measure(what: str, python: str, code: str, *arguments: str) -> None:
        try:
            measured_rows.append({"what": what} | measured(python, code, *arguments))
        except subprocess.CalledProcessError as error:
            notes.append(f"{what}: left out ({error.stderr.splitlines()[-1]}).")

    with tempfile.TemporaryDirectory(prefix="benchmark_tables_") as name:
        folder = Path(name)
        for number in range(options.images):
            add_image(folder, number, options.objects)
        join = (sys.executable, JOIN, name)
        measure("write the tables of all images", *join)
        measure("nothing new", *join)
        add_image(folder, options.images, options.objects)
        measure("one image more", *join)
        add_image(folder, 0, options.objects + 1)
        measure("one image changed", *join)
        for reader, code in READERS.items():
            inside = f"import os; os.chdir({name!r}); {code}"
            measure(f"mean area by image: {reader}", options.reader_python, inside)
        parts = [path.stat().st_size for path in (folder / "objects.parquet").iterdir()]
        notes += [
            f"{options.images * options.objects:,} objects in {options.images:,} images.",
            f"objects.csv: {(folder / 'objects.csv').stat().st_size / 1e6:,.0f} MB; "
            f"objects.parquet: {len(parts)} parts, {sum(parts) / 1e6:,.0f} MB.",
        ]
    table = pd.DataFrame(measured_rows)
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
