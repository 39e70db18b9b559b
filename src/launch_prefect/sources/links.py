"""Where the symbolic links of a tree lead, from what is written in them alone."""

from __future__ import annotations

from collections.abc import Mapping

_MOST_LINKS = 40
"""As many as Linux follows on the way to one file."""


def leads_outside(path: str, links: Mapping[str, str]) -> bool:
    """Whether a link leads out of the tree, or through so many others that nobody can say.

    Nothing on a disk is asked, so neither a name that is too long nor what stands around the tree misleads it.

    Args:
        path: Path of the link, with `/`.
        links: All links of the tree: the target of each by its path.
    """
    here = path.split("/")[:-1]
    ahead = links[path].split("/")[::-1]
    if links[path].startswith("/"):
        return True
    followed = 0
    while ahead:
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not here:
                return True
            here.pop()
            continue
        target = links.get("/".join([*here, part]))
        if target is None:
            here.append(part)
            continue
        followed += 1
        if followed > _MOST_LINKS or target.startswith("/"):
            return True
        ahead += target.split("/")[::-1]
    return False
