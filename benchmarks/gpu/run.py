"""Check that the package is correct, fast and good on a GPU.

Needs neither network access nor Snakemake, only the folder made by pack.sh. Each result is written
to <out>/<phase>.json at once, so an interrupted run keeps its results; the summary is printed and
written last.
"""

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PHASES = ("correct", "fast", "good")


def read_options() -> argparse.Namespace:
    """Read the command line."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument("--minutes", type=float, default=9, help="of all phases together")
    options.add_argument("--out", type=Path, required=True, help="folder of the results")
    options.add_argument("--pack", type=Path, default=HERE / "pack", help="written by pack.sh")
    options.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: rehearse")
    options.add_argument("--phases", nargs="+", default=PHASES, choices=PHASES)
    return options.parse_args()


def main() -> int:
    """Run the phases; return 1 if a check failed."""
    options = read_options()
    if not (options.pack / "settings.json").exists():
        raise SystemExit(f"there is no pack in {options.pack}; make it with benchmarks/gpu/pack.sh")
    # The package may not be installed there, nor in the processes that are started.
    paths = [HERE, HERE.parent / "workers", HERE.parents[1] / "src"]
    sys.path[:0] = map(str, paths)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    from session import measure

    return int(not measure(options))


if __name__ == "__main__":
    sys.exit(main())
