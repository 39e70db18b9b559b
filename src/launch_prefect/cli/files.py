"""YAML files that users write: read with care, refused with file and line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode

from launch_prefect.errors import InvalidInput, NotFound

_FLOAT = re.compile(r"[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+|[-+]?\.\d[\d_]*[eE][-+]?\d+")
_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """Plain data only, no key twice, `1e-3` a number as in YAML 1.2, and a date the text that it is."""

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node: MappingNode = super().compose_mapping_node(anchor)
        seen: dict[Hashable, Any] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == _MERGE:
                continue
            name = (key.tag, key.value)
            if name in seen:
                first = seen[name].line + 1
                problem = f"the key {key.value!r} is here a second time (first on line {first})"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen[name] = key.start_mark
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_yaml(path: Path, *, what: str) -> dict[str, Any]:
    """A file that holds one mapping.

    Args:
        path: The file.
        what: What it is, for messages, such as `job file`.

    Returns:
        The mapping; an empty one for a file that holds nothing.

    Raises:
        NotFound: There is no such file.
        InvalidInput: It cannot be read or is no such YAML; file and line are named.
    """
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"The {what} {path} does not exist.") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"The {what} {path} is no text in UTF-8.") from None
    except OSError as error:
        raise InvalidInput(f"The {what} {path} cannot be read: {error.strerror}.") from None
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        raise InvalidInput(f"The {what} {path} is not valid YAML: {_where(error, text)}.") from None
    except RecursionError:
        raise InvalidInput(f"The {what} {path} is nested too deeply.") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidInput(f"The {what} {path} holds {_kind(document)}; it is to hold KEY: VALUE lines.")
    return document


def _where(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "it cannot be understood"
        return f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark else problem
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: the character {error.character!r} is not allowed"
    return str(error)


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"only {str(value)[:40]!r}"
