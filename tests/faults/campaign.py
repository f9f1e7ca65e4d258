"""Disturb the study again and again, with faults drawn by chance, and count what it survives.

    python tests/faults/campaign.py --minutes 30 --seed 0

A fault is repeated by its name and number: ``--only kill_job:17``.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from faults import FAULTS, NotHere, survive
from study import undisturbed_study


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--only", metavar="KIND:NUMBER", help="inflict that one fault")
    parser.add_argument("--keep", action="store_true", help="keep the folder of what failed")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="faults_"))
    started = time.monotonic()
    undisturbed = undisturbed_study(folder / "undisturbed")
    print(f"undisturbed: {time.monotonic() - started:.0f} s, in {folder}", flush=True)

    counts: dict[str, Counter[str]] = {kind: Counter() for kind in options.kinds}
    draw, number, failed = random.Random(options.seed), options.seed * 10000, []
    while time.monotonic() - started < 60 * options.minutes:
        number += 1
        kind = draw.choice(options.kinds)
        if options.only:
            kind, number = options.only.split(":")[0], int(options.only.split(":")[1])
        place = folder / f"{kind}_{number}"
        try:
            said, end = survive(kind, number, undisturbed, place), "survived"
        except NotHere as reason:
            said, end = str(reason), "not possible here"
        except AssertionError as error:
            said, end = str(error), "NOT survived"
            failed.append(f"{kind}:{number}")
        counts.setdefault(kind, Counter())[end] += 1
        print(f"{kind}:{number} {end}: {said}", flush=True)
        if not (options.keep and end == "NOT survived"):
            shutil.rmtree(place, ignore_errors=True)
        if options.only:
            break

    print(f"\n{'fault':24}{'inflicted':>10}{'survived':>10}")
    for kind, ends in counts.items():
        print(f"{kind:24}{ends.total():10}{ends['survived']:10}")
    total = sum(counts.values(), Counter())
    print(f"{'all':24}{total.total():10}{total['survived']:10}")
    for name in failed:
        print(f"repeat with: python tests/faults/campaign.py --only {name} --keep")
    if not options.keep:
        shutil.rmtree(folder)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
