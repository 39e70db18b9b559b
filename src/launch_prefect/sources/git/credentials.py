"""Credentials for a git server, from the Prefect block that a job names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch_prefect.errors import InvalidInput

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ACCEPTED = (
    "Name a secret block that holds a token or a private ssh key, "
    "or a block of prefect-github, prefect-gitlab or prefect-bitbucket."
)


@dataclass(frozen=True, slots=True, repr=False)
class GitCredentials:
    """A token for https, or a private key for ssh.

    Attributes:
        username: Name to give with the token; None for what the server's kind expects.
        token: Token or password.
        ssh_key: Private key without a passphrase, as text.
    """

    username: str | None
    token: str | None = None
    ssh_key: str | None = None

    @property
    def secrets(self) -> frozenset[str]:
        """What must never be seen in a log."""
        return frozenset(filter(None, (self.token, self.ssh_key)))

    def __repr__(self) -> str:
        kind = "ssh key" if self.ssh_key else "token"
        return f"GitCredentials({kind}, username={self.username!r})"


def credentials_from(value: Any) -> GitCredentials:
    """Credentials out of a Prefect block's value.

    Args:
        value: A text: a token, or a private ssh key where it starts with `-----BEGIN`. Or a mapping with `token` or
            `password`, and perhaps `username`, as the blocks of prefect-github, prefect-gitlab and prefect-bitbucket
            have them.

    Raises:
        InvalidInput: It is none of these; its content is not repeated.
    """
    if isinstance(value, Mapping):
        fields = {name: _plain(value.get(name)) for name in ("token", "password", "username")}
        secret, username = fields["token"] or fields["password"], fields["username"]
    else:
        secret, username = _plain(value), None
    if not isinstance(secret, str) or not secret.strip():
        raise InvalidInput("The block with the git credentials holds no token and no ssh key.", mend=_ACCEPTED)
    if username is not None and (not isinstance(username, str) or not username or _CONTROL.search(username)):
        raise InvalidInput("The user's name in the block with the git credentials is not valid.", mend=_ACCEPTED)
    secret = secret.strip()
    if secret.startswith("-----BEGIN"):
        return GitCredentials(username, ssh_key=_key(secret))
    if _CONTROL.search(secret):
        # a line of its own would be another answer to git's question
        raise InvalidInput("The token in the block with the git credentials has more than one line.", mend=_ACCEPTED)
    return GitCredentials(username, token=secret)


def _plain(value: Any) -> Any:
    """What pydantic's secrets hide."""
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def _key(text: str) -> str:
    """A key as ssh reads it: lines that end alike, the last one too."""
    first, *_, last = lines = [line.strip() for line in text.splitlines()]
    if "PRIVATE KEY-----" not in first or not last.startswith("-----END"):
        raise InvalidInput("The key in the block with the git credentials is no whole private ssh key.", mend=_ACCEPTED)
    return "\n".join(lines) + "\n"
