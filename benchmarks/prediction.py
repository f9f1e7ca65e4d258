"""How many megapixels per second does prediction take in, and how much memory does it need?

One image, from the tif file to the tif files of the results, in a fresh process each time.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import record
import tifffile
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

PEER_LIMIT = 4096  # pixels; the peers hold whole images in memory
BAND = 512  # rows that the image is written by
TILE = 512  # side of the tiles of all systems, in pixels


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = parser(__doc__)
    add_peers(options, REFERENCE, CAREAMICS)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--side", type=int, default=2048, help="of the image, in pixels")
    options.add_argument("--depth", type=int, default=2)
    options.add_argument("--filters", type=int, default=16)
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--scratch", type=Path, help="folder for the image and the results")
    return options.parse_args()


def choose_systems(options: argparse.Namespace) -> tuple[list[System], list[str]]:
    """Return the rows of the table, and sentences on those that are missing."""
    systems, notes = [ours("ours denoiseg", method=read_method("denoiseg"))], []
    if options.side > PEER_LIMIT:
        return systems, [f"The peers were left out: the side is above {PEER_LIMIT} pixels."]
    for peer, name in [(REFERENCE, "reference denoiseg"), (CAREAMICS, "careamics n2v")]:
        python, missing = peer_python(options, peer)
        systems += [System(name, peer, python, {})] if python else []
        notes += missing
    return systems, notes


def write_image(path: Path, side: int) -> None:
    """Write noise (uint8) as an uncompressed tif, a band at a time."""
    image = tifffile.memmap(path, shape=(side, side), dtype=np.uint8)
    rng = np.random.default_rng(0)
    for top in range(0, side, BAND):
        band = image[top : top + BAND]
        band[:] = np.clip(rng.normal(128, 30, band.shape), 0, 255)
    image.flush()


def measure(options: argparse.Namespace, systems: list[System]) -> pd.DataFrame:
    """Return one row per round and system."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="benchmark_", dir=options.scratch) as folder:
        image, small_image = Path(folder, "image.tif"), Path(folder, "small.tif")
        write_image(image, options.side)
        write_image(small_image, TILE)
        shape = {"depth": options.depth, "filters": options.filters}
        job = {
            "image": str(image),
            "small_image": str(small_image),
            "folder": folder,
            "tile": TILE,
            "patch_size": 64,
            "batch_size": 16,
            "masked_fraction": 1 / 64,
            "device": options.device,
            "recipe": read_recipe("fast") | shape,
            **shape,
        }
        for number, system in alternate(systems, options.rounds):
            report = run(system, "predict", job, options)
            software = record.versions(report.pop("versions"))
            rows.append(
                {"round": number, "system": system.name, "side": options.side, **shape}
                | {"megapixels_per_second": 1e-6 * options.side**2 / report["seconds"]}
                | report
                | {"software": software}
            )
            print(f"round {number}, {system.name}: {report['seconds']:.1f} s")
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> str:
    """Return the Markdown table."""
    columns = (
        "system", "megapixels/s", "peak memory (MiB)", "without mapped files (MiB)",
        "before prediction (MiB)", "parameters",
    )  # fmt: skip
    rows = [
        (
            system,
            spread(group["megapixels_per_second"], 2),
            spread(group["peak_memory_mib"], 0),
            f"{group['own_memory_mib'].median():,.0f}",
            f"{group['start_memory_mib'].median():,.0f}",
            f"{group['parameters'].iloc[0]:,}",
        )
        for system, group in table.groupby("system", sort=False)
    ]
    return record.markdown_table(columns, rows)


def main() -> None:
    """Measure and write ``prediction_<side>.csv`` and ``.md``."""
    options = read_options()
    systems, missing = choose_systems(options)
    notes = record.machine(options.threads)
    table = measure(options, systems)
    software = table.groupby("system", sort=False)["software"].first()
    notes += [f"{name}: {text}." for name, text in software.items()]
    notes += [
        f"An image of {options.side}x{options.side} pixels (uint8), a U-Net of depth "
        f"{options.depth} with {options.filters} filters and random weights, tiles of side {TILE}, "
        f"on {options.device}; median (lowest to highest) of {options.rounds} rounds in "
        "alternation. Reading the tif and writing the results counts; start-up does not.",
        "ours and reference write the denoised image and labels, careamics the denoised image.",
        "Peak memory is the largest resident set. It holds pages of mapped files, "
        "which the system takes back when it needs them; the next column is without them, sampled "
        "every 20 ms. Before prediction: what the libraries and a small image had taken.",
        *missing,
    ]
    stem = Path(options.out, f"prediction_{options.side}")
    record.write(stem, "Prediction", table, summary(table), notes)


if __name__ == "__main__":
    main()
