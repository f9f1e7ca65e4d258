"""What a folder of results was made by, so that no other study goes on in it unawares."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.atomic import new_file
from denoiseg_flow.version import __version__

FORMAT = 1
"""Raised when names or contents of files under the folder change so that they cannot be mixed."""

_RECORD = "study.json"
_ELSEWHERE = "choose another folder, such as --config 'pathvars={results: results2}'"


def check_results(folder: Path, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InputError if a study cannot go on in a folder of results.

    Parameters
    ----------
    folder
        The workflow's ``<results>``; it need not exist.
    methods
        Definition of every method of the study by name, as plain values.
    """
    runs, record = folder / "runs", _read(folder)
    if record["format"] != FORMAT:
        age = "an older" if record["format"] < FORMAT else "a newer"
        raise InputError(
            f"the results in {folder} were written by {age} version of the workflow, which this "
            f"one ({__version__}) cannot continue; move them away, or {_ELSEWHERE}"
        )
    for name, method in _plain(methods).items():
        known = record["methods"].get(name, {})
        # Fields that only one of them has are those of another version.
        other = [key for key in method if key in known and known[key] != method[key]]
        if other and any(runs.glob(f"*/*/{name}")):
            here, there = ({key: each[key] for key in other} for each in (method, known))
            raise InputError(
                f"method '{name}' is defined otherwise here ({_in_words(here)}) than "
                f"where the runs in {folder} come from ({_in_words(there)}); give it "
                f"another name (config key 'methods.{name}'), {_ELSEWHERE}, or delete "
                f"{runs}/*/*/{name} to train it anew"
            )


def record_study(folder: Path, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Write down, in ``study.json``, what :func:`check_results` looks at; arguments are the same.

    Methods that other studies have left in the folder stay in the record.
    """
    with new_file(folder / _RECORD) as unfinished:
        content = {
            "format": FORMAT,
            "version": __version__,
            "methods": _read(folder)["methods"] | _plain(methods),
        }
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read(folder: Path) -> dict[str, Any]:
    """Return the record, which is empty for a new folder."""
    path = folder / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {"format": int(record["format"]), "methods": dict(record["methods"])}
    except FileNotFoundError:
        return {"format": FORMAT, "methods": {}}
    except (ValueError, TypeError, KeyError):
        raise InputError(
            f"{path} is damaged; delete {folder} to begin anew, or {_ELSEWHERE}"
        ) from None


def _plain(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """As they are read from the record: lists instead of tuples."""
    return json.loads(json.dumps(methods))


def _in_words(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in fields.items())
