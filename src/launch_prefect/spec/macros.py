"""The `${…}` macros of commands, environment and resource configuration."""

from __future__ import annotations

import json
import re
import shlex
import string
from collections.abc import Mapping, Sequence
from typing import Any

from launch_prefect.errors import InvalidInput
from launch_prefect.spec.base import nearest

RUN_MACROS = ("run_id", "run_name", "job_name", "queue_name", "image_uri", "author")


class _Template(string.Template):
    """`string.Template` with our syntax: only `${name}`, dots in names, `$${` for a literal `${`.

    A `$` that is not followed by `{` is left as it is, so that shell variables survive.
    """

    pattern = r"""
    (?:
      (?P<escaped>\$(?=\$\{)\$(?=\{)) |
      \$\{(?P<braced>[A-Za-z_][A-Za-z0-9_.-]*)\} |
      (?P<invalid>\$(?=\{)) |
      (?P<named>(?!))
    )
    """  # type: ignore[assignment]


def flags(config: Mapping[str, Any]) -> list[str]:
    """A config as command-line options, in its own order.

    `{"epochs": 3, "amp": true, "sizes": [1, 2]}` gives `--epochs 3 --amp --sizes 1 2`. False and None are left out
    and a mapping is written as JSON.
    """
    words: list[str] = []
    for key, value in config.items():
        if value is None or value is False:
            continue
        words.append(f"--{key}")
        if value is True:
            continue
        words += [_text(item) for item in value] if isinstance(value, list) else [_text(value)]
    return words


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def check(texts: Sequence[str], config_keys: Sequence[str] | None, *, where: str, args: bool = False) -> None:
    """Refuse macros that mean nothing.

    Args:
        texts: The texts that may hold macros.
        config_keys: Inputs of the job; None where it declares none, and then any key may come with a run.
        where: What the texts are, for the message.
        args: Whether `${args}` is accepted.

    Raises:
        InvalidInput: A macro is unknown or not well formed.
    """
    known = [*RUN_MACROS, *(["args"] if args else []), *(f"config.{key}" for key in config_keys or ())]
    for text in texts:
        if re.search(r"\{\{\s*\$", text):
            raise InvalidInput(
                f"{where}: {text!r} would read the agent's environment.",
                mend="A queue lists names that its jobs get in pass_env.",
            )
        for match in _Template.pattern.finditer(text):  # type: ignore[attr-defined]
            if match["invalid"] is not None:
                raise InvalidInput(
                    f"{where}: {text!r} has '${{' without a name and '}}'; write $${{ for a literal '${{'."
                )
            name = match["braced"]
            if name is None or name in known:
                continue
            key = name.removeprefix("config.").partition(".")[0]
            if name.startswith("config.") and (key in config_keys if config_keys is not None else key):
                continue
            close = nearest(name, known)
            hint = f"did you mean ${{{close}}}?" if close else f"known are: {', '.join(known)}."
            raise InvalidInput(f"{where}: unknown macro ${{{name}}}; {hint}")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values into one text; in what a job says, `check` has refused unknown names before.

    Raises:
        InvalidInput: A config key that the macro names has no value in this run, or a macro is not well formed.
    """
    try:
        return _Template(text).substitute(values)
    except KeyError as error:
        raise InvalidInput(f"${{{error.args[0]}}} has no value in this run; give it with --set.") from None
    except ValueError:
        raise InvalidInput(f"{text!r} has '${{' without a name and '}}'; write $${{ for a literal '${{'.") from None


def fill_command(command: Sequence[str], config: Mapping[str, Any], values: Mapping[str, str]) -> list[str]:
    """Put a run's values into a command.

    A word that is exactly `${args}` becomes as many words as the config has; inside a longer word it is quoted text.

    Args:
        command: The job's command.
        config: The run's config.
        values: Values of the run macros (`RUN_MACROS`).

    Returns:
        The words to run.
    """
    options = flags(config)
    named = dict(values) | config_values(config) | {"args": shlex.join(options)}
    words: list[str] = []
    for word in command:
        words += options if word == "${args}" else [fill(word, named)]
    return words


def config_values(config: Mapping[str, Any], prefix: str = "config") -> dict[str, str]:
    """`config.a` and `config.a.b` names with their texts."""
    values: dict[str, str] = {}
    for key, value in config.items():
        values[f"{prefix}.{key}"] = _text(value)
        if isinstance(value, dict):
            values |= config_values(value, f"{prefix}.{key}")
    return values
