"""Check a config against its JSON schema, and turn violations into helpful errors."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from datetime import date
from difflib import get_close_matches
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from denoiseg_flow.errors import InputError, plain, shown

# How YAML may read names without quotes, such as 2024, on or 2024-01-31.
_NO_TEXT = {int: "a number", float: "a number", bool: "yes or no", date: "a date"}


def check(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Raise InputError for the first violation of the schema."""
    for error in Draft202012Validator(schema).iter_errors(config):
        raise InputError(_sentence(error))


def read_numbers(config: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Convert text to numbers where the schema requires numbers, in place.

    Snakemake's ``--config 'grid={seeds: [1, 2]}'`` passes everything inside braces as text, and
    YAML always reads 4e-4 as text.
    """
    for error in Draft202012Validator(schema).iter_errors(config):
        # A pattern restricts the words that are allowed in place of a number.
        if error.validator in ("type", "pattern") and isinstance(error.instance, str):
            value = _value_of(error.instance)
            # Convert numbers out of range as well; `check` reports them.
            wanted = {"type": error.schema["type"]}
            if not isinstance(value, str) and Draft202012Validator(wanted).is_valid(value):
                *parents, last = error.absolute_path
                holder = config
                for step in parents:
                    holder = holder[step]
                holder[last] = value


def _value_of(text: str) -> Any:
    """Parse a text; YAML reads 4e-4 as text, because it requires 4.0e-4."""
    for read in (yaml.safe_load, float):
        with suppress(yaml.YAMLError, ValueError):
            value = read(text)
            if not isinstance(value, str):
                return value
    return text


def fill_defaults(values: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Write the defaults of the schema into missing keys of a checked config, in place.

    Follows ``properties``, ``additionalProperties``, ``$ref`` into ``$defs``, and ``allOf`` with
    ``if`` and ``then``.
    """
    _fill(values, schema, schema)


def _fill(values: dict[str, Any], part: Mapping[str, Any], root: Mapping[str, Any]) -> None:
    part = _resolve(part, root)
    for branch in part.get("allOf", []):
        if Draft202012Validator(branch["if"]).is_valid(values):
            _fill(values, branch["then"], root)
    known = part.get("properties", {})
    for key, sub in known.items():
        sub = _resolve(sub, root)
        if key not in values and "default" in sub:
            values[key] = deepcopy(sub["default"])
        if isinstance(values.get(key), dict):
            _fill(values[key], sub, root)
    others = part.get("additionalProperties")
    if isinstance(others, dict):
        for key, value in values.items():
            if key not in known and isinstance(value, dict):
                _fill(value, others, root)


def _resolve(part: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in part:
        return part
    return root["$defs"][part["$ref"].removeprefix("#/$defs/")]


def _sentence(error: ValidationError) -> str:
    key = ".".join(plain(step) for step in error.absolute_path)
    where = f"config key '{key}'" if key else "the config"
    match error.validator:
        case "additionalProperties" | "unevaluatedProperties":
            known = list(error.schema.get("properties", {}))
            unknown = next(name for name in error.instance if name not in known)
            name = f"{key}.{plain(unknown)}" if key else plain(unknown)
            return f"unknown config key '{name}'; {_suggest(str(unknown), known)}"
        case "required":
            missing = next(name for name in error.validator_value if name not in error.instance)
            return f"{where} lacks '{missing}'; {_described(error.schema, missing)}"
        case "enum":
            value = shown(error.instance)
            refused = error.schema.get("refused", {})
            if isinstance(error.instance, str) and error.instance in refused:
                return f"{where} is {value}, but {refused[error.instance]}"
            return f"{where} is {value}; available: {_listed(error.validator_value)}"
        case "type" if error.validator_value == "string" and type(error.instance) in _NO_TEXT:
            verb = "has the name" if "propertyNames" in error.absolute_schema_path else "is"
            kind = _NO_TEXT[type(error.instance)]
            return (
                f"{where} {verb} {error.instance}, which YAML reads as {kind}; write it in quotes"
            )
        case "type":
            wanted = error.validator_value
            wanted = wanted if isinstance(wanted, str) else " or ".join(wanted)
            return f"{where} is {shown(error.instance)}, but must be of type {wanted}"
        case "minItems" if not error.instance:
            return f"{where} is an empty list; name at least one entry"
        case _:
            message = error.message.replace(repr(error.instance), shown(error.instance))
            return f"{where}: {message}" + (
                f"; {error.schema['description']}" if "description" in error.schema else ""
            )


def _suggest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"available: {_listed(known)}"


def _described(schema: Mapping[str, Any], key: str) -> str:
    description = schema.get("properties", {}).get(key, {}).get("description", "")
    return f"write it: {description}" if description else "write it"


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)
