"""Measure throughput (pixels per second) and memory of prediction.

Each measurement predicts one plane or volume, from its tif file to the tif files of the results, in
a new process; a further check looks for seams between tiles in the results.
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import record
from rounds import alternate, spread
from systems import (
    CAREAMICS,
    REFERENCE,
    System,
    add_peers,
    ours,
    parser,
    peer_python,
    read_method,
    read_recipe,
    run,
)

from denoiseg_flow.data.files.tiles import pieces
from denoiseg_flow.data.store import create_array
from denoiseg_flow.models.tiled_prediction import tile_shape

PEER_LIMIT = 4096**2  # pixels; the peers hold whole images in memory
PIECE = 2**20  # pixels that the image is written by
SMALL = {2: 512, 3: 64}  # sides, by the number of axes, of what is predicted before the clock runs
# Of the training step that CAREamics cannot do without: as many pixels for either kind of image.
TRAINING = {
    2: {"patch": [64, 64], "batch_size": 16},
    3: {"patch": [16, 64, 64], "batch_size": 1},
}


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    add_peers(options, REFERENCE, CAREAMICS)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--shape",
        type=int,
        nargs="+",
        default=[2048, 2048],
        metavar="PIXELS",
        help="of the image: rows and columns, of a volume planes, rows and columns",
    )
    options.add_argument("--depth", type=int, default=2, help="down-samplings of the U-Net")
    options.add_argument("--filters", type=int, default=16)
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--scratch", type=Path, help="folder for the image and the results")
    given = options.parse_args()
    if len(given.shape) not in TRAINING:
        options.error("--shape needs two numbers, or three for a volume")
    return given


def choose_systems(options: argparse.Namespace) -> tuple[list[System], list[str]]:
    """Return the rows of the table, and sentences on those that are missing."""
    systems, notes = [ours("ours denoiseg", method=read_method("denoiseg"))], []
    if math.prod(options.shape) > PEER_LIMIT:
        return systems, [f"The peers were left out: the image has above {PEER_LIMIT:,} pixels."]
    for peer, name in [(REFERENCE, "reference denoiseg"), (CAREAMICS, "careamics n2v")]:
        python, missing = peer_python(options, peer)
        systems += [System(name, peer, python, {})] if python else []
        notes += missing
    return systems, notes


def write_noise(path: Path, shape: Sequence[int]) -> str:
    """Write noise (uint8) as an uncompressed tif, a piece at a time."""
    image = create_array(path, tuple(shape), dtype=np.uint8)
    rng = np.random.default_rng(0)
    for place in pieces(image.shape, PIECE):
        image[place] = np.clip(rng.normal(128, 30, image[place].shape), 0, 255)
    image.flush()
    return str(path)


def peer_tile(shape: Sequence[int]) -> list[int]:
    """Return the sides of tiles of as many pixels as ours keeps in planes, computes in volumes."""
    *depth, rows, columns = tile_shape(shape, [0] * len(shape))
    return [*depth, *[math.isqrt(rows * columns)] * 2]


def describe(options: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Return the job that all systems get, and write its images."""
    shape, axes = options.shape, len(options.shape)
    size = {"depth": options.depth, "filters": options.filters}
    cell = 2 ** max(options.depth, 2)  # the U-Net looks less than seven of these pixels far
    return {
        "image": write_noise(Path(folder, "image.tif"), shape),
        "small_image": write_noise(
            Path(folder, "small.tif"), [min(side, SMALL[axes]) for side in shape]
        ),
        "seam_image": write_noise(Path(folder, "seams.tif"), [24 * cell] * axes),
        "folder": folder,
        "tile": peer_tile(shape),
        "seam_tile": 21 * cell,
        **TRAINING[axes],
        "masked_fraction": 1 / 64,
        "device": options.device,
        "recipe": read_recipe("fast") | size,
        **size,
    }


def measure(options: argparse.Namespace, systems: list[System]) -> pd.DataFrame:
    """Return one row per round and system."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=options.scratch) as folder:
        job = describe(options, folder)
        seams = {system.name: run(system, "seams", job, options) for system in systems}
        for number, system in alternate(systems, options.rounds):
            report = run(system, "predict", job, options)
            software = record.versions(report.pop("versions"))
            rows.append(
                {"round": number, "system": system.name, "shape": name_of(options.shape)}
                | {"depth": options.depth, "filters": options.filters}
                | {"megapixels_per_second": 1e-6 * math.prod(options.shape) / report["seconds"]}
                | report
                | seams[system.name]
                | {"software": software}
            )
            print(f"round {number}, {system.name}: {report['seconds']:.1f} s")
    return pd.DataFrame(rows)


def name_of(shape: Sequence[int]) -> str:
    """Return "2048x2048" or "32x512x512"."""
    return "x".join(map(str, shape))


def summary(table: pd.DataFrame, unit: str) -> str:
    """Return the Markdown table, with the word for a million pixels or voxels."""
    columns = (
        "system", f"{unit}/s", "peak memory (MiB)", "without mapped files (MiB)",
        "before prediction (MiB)", "seams", "parameters",
    )  # fmt: skip
    rows = [
        (
            system,
            spread(group["megapixels_per_second"], 2),
            spread(group["peak_memory_mib"], 0),
            f"{group['own_memory_mib'].median():,.0f}",
            f"{group['start_memory_mib'].median():,.0f}",
            f"{group['seams'].iloc[0]:.0e}",
            f"{group['parameters'].iloc[0]:,}",
        )
        for system, group in table.groupby("system", sort=False)
    ]
    return record.markdown_table(columns, rows)


def main() -> None:
    """Measure and write ``prediction_<shape>.csv`` and ``.md``."""
    options = read_options()
    systems, missing = choose_systems(options)
    notes = record.machine(options.threads)
    table = measure(options, systems)
    shape = name_of(options.shape)
    software = table.groupby("system", sort=False)["software"].first()
    notes += [f"{name}: {text}." for name, text in software.items()]
    notes += [
        f"An image of {shape} pixels (uint8), a U-Net of depth {options.depth} with "
        f"{options.filters} filters and random weights, on {options.device}; median (lowest to "
        f"highest) of {options.rounds} rounds in alternation. Reading the tif and writing the "
        "results counts; start-up does not.",
        "ours and reference write the denoised image and labels, careamics the denoised image.",
        "Peak memory is the largest resident set. It holds pages of mapped files, "
        "which the system takes back when it needs them; the next column is without them, sampled "
        "every 20 ms. Before prediction: what the libraries and a small image had taken.",
        "Seams: the largest difference between a small image denoised in tiles and denoised as a "
        "whole, as a share of the range of the latter. float32 rounds by some 1e-6.",
        *missing,
    ]
    stem = Path(options.out, f"prediction_{shape}")
    unit = "megapixels" if len(options.shape) == 2 else "megavoxels"
    record.write(stem, "Prediction", table, summary(table, unit), notes)


if __name__ == "__main__":
    main()
