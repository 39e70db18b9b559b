"""Addresses and refs of git repositories: what is let through to git, which reads much more into them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

# user@host:path, as git and ssh read it. Nothing starts with a dash: ssh would take it for an option.
_SCP = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^-:/][^:]*)")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\]|[0-9A-Fa-f:]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_UNSEEN = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\\]")
# git-check-ref-format(1), and what would be an expression rather than a name: `~`, `^`, `:`, `@{`, `..`
_NOT_IN_REF = re.compile(r"[~^:?*\[\\\x00-\x20\x7f]|\.\.|@\{|//|/\.|\.lock(?:/|$)")


def check_git_url(value: str) -> str:
    """An address that git may be given: https or ssh, without credentials, options or anything unseen.

    Raises:
        ValueError: It is another, with what is wrong; credentials in it are not repeated.
    """
    if _UNSEEN.search(value):
        raise ValueError("the address holds a space, a backslash or a character that cannot be seen")
    if value.startswith("-"):
        raise ValueError("the address starts with a dash")
    if "://" not in value:
        if _SCP.fullmatch(value):
            return value
        raise ValueError("write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError("it is no address") from None
    if parts.scheme not in ("https", "ssh"):
        raise ValueError(f"the transport {parts.scheme[:20]!r} is not accepted; write https:// or ssh://")
    if parts.password is not None or (parts.scheme == "https" and parts.username is not None):
        raise ValueError("credentials do not belong into an address; keep them in a block, and name it in credentials")
    if parts.netloc.count("@") > 1 or (parts.username is not None and not _USER.fullmatch(parts.username)):
        raise ValueError("what stands before the @ is no user's name")
    if not parts.hostname or not _HOST.fullmatch(parts.hostname) or (port is not None and port == 0):
        raise ValueError("the address names no host")
    if parts.query or parts.fragment or parts.path.strip("/") == "" or parts.path.lstrip("/").startswith("-"):
        raise ValueError("the address names no repository")
    return value


def check_git_ref(value: str) -> str:
    """A branch, a tag or a commit; no option, no expression.

    Raises:
        ValueError: It is none of these.
    """
    if not value or value.startswith(("-", "/", ".")) or value.endswith(("/", ".")) or value == "@":
        raise ValueError("give a branch, a tag or a commit")
    if _NOT_IN_REF.search(value):
        raise ValueError("give the name of a branch or a tag, or a commit; no expression such as main~1")
    return value
