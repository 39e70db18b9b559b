"""A job's inputs: the schema its config defaults imply, and values checked against it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator

from launch_prefect.errors import InvalidInput
from launch_prefect.spec.base import nearest

MAX_CONFIG_BYTES = 100_000
"""Linux takes 128 KiB in one environment variable, and a config travels in LAUNCH_CONFIG."""

_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),  # before int: bool is one
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


def schema_for(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The JSON schema that a job's config defaults imply.

    Args:
        config: Defaults by key. None declares no inputs: any key is then accepted.

    Returns:
        An object schema. With declared inputs it refuses unknown keys; Prefect accepts them otherwise.
    """
    if config is None:
        return {"title": "Parameters", "type": "object", "properties": {}, "additionalProperties": True}
    properties = {
        key: {"title": key, "position": position, "default": value} | _type_of(value)
        for position, (key, value) in enumerate(config.items())
    }
    return {
        "title": "Parameters",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _type_of(value: Any) -> dict[str, Any]:
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return {"type": name}
    return {}  # None: anything is accepted


def check(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Check a run's config against its job's schema.

    Args:
        config: The values given for the run.
        schema: The job's schema, as `schema_for` or a flow gives it.

    Raises:
        InvalidInput: A key is unknown or a value does not fit; each is named with what is accepted.
    """
    if (size := len(json.dumps(dict(config), default=str).encode())) > MAX_CONFIG_BYTES:
        raise InvalidInput(
            f"The config is {size} bytes; at most {MAX_CONFIG_BYTES} reach a job.",
            mend="Put large data into a file of the job, and its name into the config.",
        )
    problems = [
        f"{key}: NaN and Infinity are no JSON; write them as text." for key in config if not _is_json(config[key])
    ]
    known = schema.get("properties", {})
    if schema.get("additionalProperties", True) is False:
        for key in config:
            if key not in known:
                close = nearest(key, known)
                hint = f"did you mean {close!r}?" if close else f"it takes: {', '.join(known) or 'no inputs'}."
                problems.append(f"{key}: this job has no such input; {hint}")
    for error in Draft202012Validator(schema).iter_errors(dict(config)):
        if error.validator in ("additionalProperties", "required"):
            continue
        where = ".".join(str(part) for part in error.absolute_path) or "config"
        problems.append(f"{where}: {_says(error.validator, error.validator_value, error.instance)}.")
    if problems:
        raise InvalidInput("The config does not fit the job's inputs. " + " ".join(problems))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, default=str, allow_nan=False)
    except ValueError:
        return False
    return True


def _says(validator: Any, wanted: Any, got: Any) -> str:
    shown = json.dumps(got, default=str)
    match validator:
        case "type":
            return f"expected {wanted}, got {shown}"
        case "enum":
            return f"expected one of {', '.join(map(str, wanted))}, got {shown}"
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            return f"{shown} is outside its limit ({validator} {wanted})"
        case _:
            return f"{shown} does not fit ({validator}: {json.dumps(wanted, default=str)})"


def parse_assignments(pairs: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Config from `KEY=VALUE` words of a command line.

    A value is JSON where it reads as JSON and the input does not ask for a string; otherwise it is the text itself.
    `a.b=1` sets `b` inside `a`.

    Args:
        pairs: The words.
        schema: The job's schema; it decides how a value is read.

    Returns:
        The config.

    Raises:
        InvalidInput: A word has no `=` or no key, or a dotted key goes into something that is no mapping.
    """
    config: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--set {pair}: write KEY=VALUE, such as --set learning_rate=0.01.")
        properties = schema.get("properties", {})
        path = [key] if key in properties or "." not in key else key.split(".")
        inner = config
        for part in path[:-1]:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise InvalidInput(f"--set {pair}: {part!r} already has a value that is not a mapping.")
        inner[path[-1]] = _read(text, properties.get(path[0], {}) if len(path) == 1 else {})
    return config


def _read(text: str, wanted: Mapping[str, Any]) -> Any:
    if wanted.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        pass
    if wanted.get("type") == "number":
        try:
            return float(text)
        except ValueError:
            pass
    if wanted.get("type") == "boolean" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text
