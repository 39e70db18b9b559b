"""Addresses and refs of git repositories: what is let through to git, which reads much more into them."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote, urlsplit

# user@host:path, as git and ssh read it. Nothing starts with a dash: ssh would take it for an option.
_SCP = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^-:/][^:]*)")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\]|[0-9A-Fa-f:]+")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
# What a shell or a page would read something into, and no host of repositories allows in their names.
_QUOTING = re.compile(r"[\\`\"'<>|{}^$;]")
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# git-check-ref-format(1), and what would be an expression rather than a name: `~`, `^`, `:`, `@{`, `..`
_NOT_IN_REF = re.compile(r"[~^:?*\[\\\x00-\x20\x7f]|\.\.|@\{|//|/\.|\./|\.lock(?:/|$)")
_LONGEST_URL, _LONGEST_REF = 2000, 250


def check_git_url(value: str) -> str:
    """An address that git may be given: https or ssh, without credentials, options or anything unseen.

    Raises:
        ValueError: It is another, with what is wrong; credentials in it are not repeated.
    """
    if len(value) > _LONGEST_URL:
        raise ValueError(f"the address has more than {_LONGEST_URL} characters")
    if _has_unseen(value):
        raise ValueError("the address holds a space or a character that cannot be seen")
    if _QUOTING.search(value):
        raise ValueError("the address holds a quote, a backslash or another character that shells read")
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
    # git itself takes HTTPS:// for another transport
    if parts.scheme not in ("https", "ssh") or not value.startswith(f"{parts.scheme}://"):
        raise ValueError(f"the transport {value.partition(':')[0][:20]!r} is not accepted; write https:// or ssh://")
    if parts.password is not None or (parts.scheme == "https" and parts.username is not None):
        raise ValueError("credentials do not belong into an address; keep them in a block, and name it in credentials")
    if parts.netloc.count("@") > 1 or (parts.username is not None and not _USER.fullmatch(parts.username)):
        raise ValueError("what stands before the @ is no user's name")
    if not parts.hostname or not _HOST.fullmatch(parts.hostname) or port == 0 or parts.netloc.endswith(":"):
        raise ValueError("the address names no host")
    if "?" in value or "#" in value:
        raise ValueError("the address names no repository")
    _check_path(parts.path)
    return value


def _check_path(path: str) -> None:
    """The path of an address, as it is written and as git decodes it."""
    decoded = unquote(path, errors="strict") if not _PERCENT.search(path) else None
    if decoded is None or _has_unseen(decoded.replace(" ", "")) or _QUOTING.search(decoded) or "%" in decoded:
        raise ValueError("the address hides a character behind a percent sign that is not accepted")
    if decoded.strip("/") == "" or decoded.lstrip("/").startswith("-"):
        raise ValueError("the address names no repository")


def check_git_ref(value: str) -> str:
    """A branch, a tag or a commit; no option, no expression.

    Raises:
        ValueError: It is none of these.
    """
    if not value or value.startswith(("-", "/", ".")) or value.endswith(("/", ".")) or value == "@":
        raise ValueError("give a branch, a tag or a commit")
    if len(value.encode(errors="surrogatepass")) > _LONGEST_REF:
        raise ValueError(f"the name of a branch or a tag has at most {_LONGEST_REF} bytes")
    if _NOT_IN_REF.search(value):
        raise ValueError("give the name of a branch or a tag, or a commit; no expression such as main~1")
    if _has_unseen(value):
        raise ValueError("the name holds a character that cannot be seen")
    return value


def _has_unseen(text: str) -> bool:
    """Whether a text holds spaces, controls, marks of direction and the like, or what Unicode does not know."""
    return any(unicodedata.category(char) in _UNSEEN for char in text)
