"""Refuse passwords in dependency files: they would stay in a layer of the image."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from launch_prefect.errors import InvalidInput

_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<user>[^\s/@\"'<>]+)@(?P<host>[^\s/\"'<>]*)")
_CONDA_TOKEN = re.compile(r"://(?P<host>[^\s/\"'<>]+)(?:/[^\s\"'<>]*)?/t/(?P<token>[^\s/\"'<>]+)")
_VARIABLE = re.compile(r"\$\{?[A-Za-z_][A-Za-z0-9_]*\}?")


def refuse_credentials(text: str, *, where: str, mend: str) -> None:
    """Refuse a text that has a password or a token in an address.

    `${NAME}` in the place of the password is what pip and uv fill in from the environment: that is no secret.

    Args:
        text: A line of a dependency file.
        where: The file and the place in it, for the message; the text itself is not shown.
        mend: What to do instead.

    Raises:
        InvalidInput: It has one.
    """
    for address in _ADDRESS.finditer(text):
        user, colon, password = address["user"].partition(":")
        secret = password if colon else user
        # `ssh://git@host` names a user, and who that is proves nothing.
        named_alone = not colon and address["scheme"].lower().endswith("ssh")
        if _VARIABLE.sub("", secret) and not named_alone:
            raise _refused(where, address["host"], mend)
    for channel in _CONDA_TOKEN.finditer(text):
        if _VARIABLE.sub("", channel["token"]):
            raise _refused(where, channel["host"], mend)


def texts_of(value: Any) -> Iterator[str]:
    """All texts in nested tables and lists, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_of(inner)


def _refused(where: str, host: str, mend: str) -> InvalidInput:
    return InvalidInput(f"{where}: the address on {host} has credentials, which would stay in the image.", mend=mend)
