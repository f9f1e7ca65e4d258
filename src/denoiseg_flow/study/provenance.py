"""Record the study behind a folder of results, so that incompatible studies do not mix."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from denoiseg_flow.errors import InputError
from denoiseg_flow.jobs.atomic import new_file
from denoiseg_flow.study.grid import Run
from denoiseg_flow.version import __version__

FORMAT = 1
"""Raised when names or contents of result files change incompatibly."""

_RECORD = "study.json"
_AXES = [axis.name for axis in fields(Run)]
_ELSEWHERE = "choose another folder, such as --config 'pathvars={results: results2}'"


def check_results(folder: Path, methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InputError if a study cannot continue in a folder of results.

    Parameters
    ----------
    folder
        The workflow's ``<results>``; it need not exist.
    methods
        Definitions of all methods of the study by name, as plain values.
    """
    runs, record = folder / "runs", _read(folder)
    if age := _other_format(record):
        raise InputError(
            f"the results in {folder} were written by {age} version of the workflow, and this "
            f"version ({__version__}) cannot continue them; move them away, or {_ELSEWHERE}"
        )
    for name, method in _plain(methods).items():
        known = record["methods"].get(name, {})
        # Fields that only one of them has belong to another version.
        other = [key for key in method if key in known and known[key] != method[key]]
        if other and any(runs.glob(f"*/*/{name}")):
            here, there = (_in_words({key: each[key] for key in other}) for each in (method, known))
            raise InputError(
                f"method '{name}' has {here}, but existing runs in {folder} used {there}; rename "
                f"the method (config key 'methods.{name}'), {_ELSEWHERE}, or delete "
                f"{runs}/*/*/{name} to train it again"
            )


def record_study(
    folder: Path,
    methods: Mapping[str, Mapping[str, Any]],
    config: Mapping[str, Any],
    runs: Mapping[Run, Sequence[str]],
) -> None:
    """Write ``study.json`` for :func:`check_results`, with the same arguments, and the study.

    Methods of earlier studies in the folder stay in the record.

    Parameters
    ----------
    runs
        All runs, each with :meth:`Grid.rules_of` it.
    """
    with new_file(folder / _RECORD) as unfinished:
        content = {
            "format": FORMAT,
            "version": __version__,
            "methods": _read(folder)["methods"] | _plain(methods),
            "config": dict(config),
            "runs": [run.as_dict() | {"rules": list(rules)} for run, rules in runs.items()],
        }
        unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def is_results(folder: Path) -> bool:
    """Return whether a study has run in a folder of results."""
    return (folder / _RECORD).is_file()


def results_in(study: Path) -> Path:
    """Return the results in the folder of a study, which may be given themselves."""
    inside = study / "results"
    return inside if is_results(inside) else study


def read_config(folder: Path) -> dict[str, Any]:
    """Return the config, with its defaults, of the last study in a folder of results.

    Raises
    ------
    InputError
        If no study has run in it, or one of another version.
    """
    return dict(_of_last_study(folder, "config"))


def read_runs(folder: Path) -> dict[Run, list[str]]:
    """Return the runs of that study, each with the rules that make its files, in order.

    Raises
    ------
    InputError
        As :func:`read_config`.
    """
    return dict(_of_last_study(folder, "runs"))


def _of_last_study(folder: Path, key: str) -> Any:
    """Return a part of the record of the last study, if this version of the workflow wrote it."""
    path = folder / _RECORD
    if not is_results(folder):
        raise InputError(
            f"{folder} is no folder of results (it has no {_RECORD}); give the folder that "
            "Snakemake wrote, such as results"
        )
    record = _read(folder)
    if age := _other_format(record):
        raise InputError(
            f"{path} was written by {age} version of the workflow than this one ({__version__}); "
            "use the version that wrote it"
        )
    if not record[key]:
        raise InputError(
            f"{path} was written by an earlier version, without the {key}; run the study again "
            "with this version"
        )
    return record[key]


def _other_format(record: Mapping[str, Any]) -> str:
    """Return which version a record is of; nothing for this one."""
    if record["format"] == FORMAT:
        return ""
    return "an older" if record["format"] < FORMAT else "a newer"


def _read(folder: Path) -> dict[str, Any]:
    """Return the record, empty for a new folder."""
    path = folder / _RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return {
            "format": int(record["format"]),
            "methods": dict(record["methods"]),
            "config": dict(record.get("config", {})),
            "runs": {
                Run.of({axis: row[axis] for axis in _AXES}): list(row["rules"])
                for row in record.get("runs", [])
            },
        }
    except FileNotFoundError:
        return {"format": FORMAT, "methods": {}, "config": {}, "runs": {}}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"{path} is damaged; delete {folder} to start over, or {_ELSEWHERE}"
        ) from None


def _plain(methods: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return definitions as read from the record, with lists instead of tuples."""
    return json.loads(json.dumps(methods))


def _in_words(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in fields.items())
