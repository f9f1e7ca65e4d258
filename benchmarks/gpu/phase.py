"""One phase of the run, with its time and its results so far, saved after every item."""

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Phase:
    """Items that are measured one after the other until the time is up.

    Parameters
    ----------
    name
        Of the phase, and of its file.
    folder
        Where ``<name>.json`` is written.
    seconds
        That its items may take together. An item is begun only if what it needs is left.
    """

    def __init__(self, name: str, folder: Path, seconds: float) -> None:
        self.name = name
        self.path = folder / f"{name}.json"
        self.end = time.monotonic() + seconds
        self.rows: list[Row] = []

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.end - time.monotonic()

    def do(self, item: str, measure: Callable[..., Row], *args: Any, needs: float = 1) -> Row:
        """Measure an item, and write down its values or why there are none.

        Parameters
        ----------
        measure
            Called with ``args``; returns values, among them ``ok`` where the item is a check.
        needs
            Seconds that it takes, about.

        Returns
        -------
        The row: item, status (``ok``, ``FAILED``, ``error`` or ``no time``), values and seconds.
        """
        started, row = time.monotonic(), {"item": item, "status": "no time"}
        if self.left() >= needs:
            try:
                values = measure(*args)
                row["status"] = "ok" if values.pop("ok", True) else "FAILED"
                row |= values
            except Exception as error:  # whatever it is, the other items are worth knowing
                row |= {"status": "error", "error": f"{type(error).__name__}: {error}"}
                row["traceback"] = traceback.format_exc()
        row["seconds"] = round(time.monotonic() - started, 2)
        self.rows.append(row)
        self.save()
        shown = {key: value for key, value in row.items() if key not in ("item", "traceback")}
        print(f"{self.name}: {item}: {_short(shown)}", flush=True)
        return row

    def save(self) -> None:
        """Write all rows."""
        self.path.write_text(json.dumps(self.rows, indent=1, default=str) + "\n")


def _short(values: Row) -> str:
    return ", ".join(f"{key} {format_value(value)}" for key, value in values.items())


def format_value(value: Any) -> str:
    """Return a number with three digits, and anything else as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
