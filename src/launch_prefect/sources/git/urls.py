"""Addresses of repositories: which server they are on, and those that a submodule gives relative to its parent's."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from launch_prefect.errors import InvalidInput
from launch_prefect.spec.git import check_git_url

_SCP = re.compile(r"(?P<login>[^@/:]+@(?P<host>[^:/]+)):(?P<path>.*)")
_PORTS = {"https": 443, "ssh": 22}
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


def checked(url: str, *, what: str) -> str:
    """An address that git may be given.

    Args:
        url: The address.
        what: What it is, for the message, such as `The address of the submodule lib`.

    Raises:
        InvalidInput: It is not accepted.
    """
    try:
        return check_git_url(url)
    except ValueError as error:
        shown = _CREDENTIALS.sub("//***@", repr(url))
        raise InvalidInput(f"{what} is not accepted: {error} (got {shown[:120]}).") from None


def server_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: credentials are for one such server."""
    if match := _SCP.fullmatch(url):
        return "ssh", match["host"].lower(), _PORTS["ssh"]
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS[parts.scheme]


def beside(parent: str, url: str) -> str:
    """A submodule's address; where it starts with `./` or `../`, it is relative to its parent's.

    Raises:
        InvalidInput: It leads out of the parent's server.
    """
    if not url.startswith(("./", "../")):
        return url
    if match := _SCP.fullmatch(parent):
        start, path = f"{match['login']}:", match["path"]
    else:
        parts = urlsplit(parent)
        start, path = f"{parts.scheme}://{parts.netloc}/", parts.path
    steps = [step for step in path.split("/") if step]
    for step in url.split("/"):
        if step == ".." and not steps:
            raise InvalidInput(f"The address {url!r} of a submodule leads out of the server of {parent}.")
        if step == "..":
            steps.pop()
        elif step not in ("", "."):
            steps.append(step)
    return start + "/".join(steps)
