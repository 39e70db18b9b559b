"""Pin a git source: from a branch, a tag or part of a SHA to the full SHA of a commit."""

from __future__ import annotations

import re

from launch_prefect.errors import NotFound
from launch_prefect.sources.git.mirror import Mirror
from launch_prefect.spec.base import nearest

_FULL = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT = re.compile(r"[0-9a-f]{4,63}")
_SHOWN = 10
_PEELED = "^{}"


def commit_of(mirror: Mirror, ref: str | None) -> str:
    """The commit that a ref leads to now.

    Args:
        mirror: The mirror of the repository.
        ref: Branch, tag, full or shortened SHA; None for the default branch.

    Returns:
        Its full SHA.

    Raises:
        NotFound: It leads to none, or to more than one.
        InvalidInput: The repository may not be read.
        Unreachable: The server does not answer.
    """
    refs = mirror.refs()
    if not refs:
        raise NotFound(f"{mirror.url} is empty.", mend="Push a commit to it.")
    if ref is None or ref == "HEAD":
        if "HEAD" in refs:
            return refs["HEAD"]
        raise NotFound(f"{mirror.url} has no default branch.", mend=f"Name a ref. {_branches(refs)}")
    if (named := _named(mirror, refs, ref)) is not None:
        return named
    lower = ref.lower()
    if _FULL.fullmatch(lower):
        return _whole(mirror, refs, lower)
    if _SHORT.fullmatch(lower) and (found := _beginning(mirror, refs, lower)):
        return found
    raise _unknown(mirror, refs, ref)


def _named(mirror: Mirror, refs: dict[str, str], ref: str) -> str | None:
    """The commit of a branch, a tag, or a ref given in full."""
    names = [name for name in (f"refs/heads/{ref}", f"refs/tags/{ref}", ref) if name in refs]
    commits = {name: refs.get(name + _PEELED, refs[name]) for name in names}
    if len(set(commits.values())) > 1:
        raise NotFound(
            f"{ref} is both a branch and a tag of {mirror.url}.", mend=f"Write {' or '.join(sorted(commits))}."
        )
    return next(iter(commits.values()), None)


def _whole(mirror: Mirror, refs: dict[str, str], sha: str) -> str:
    for name, at in refs.items():
        if at == sha:  # an annotated tag may be named by its own SHA
            return refs.get(name + _PEELED, at)
    mirror.ensure(sha)
    return mirror.local("rev-parse", f"{sha}^{{commit}}").text


def _beginning(mirror: Mirror, refs: dict[str, str], short: str) -> str | None:
    tips = {refs.get(name + _PEELED, at) for name, at in refs.items() if at.startswith(short)}
    if len(tips) > 1:
        raise NotFound(f"{short} is the beginning of more than one commit of {mirror.url}.", mend="Write more of it.")
    return tips.pop() if tips else mirror.find(short)


def _unknown(mirror: Mirror, refs: dict[str, str], ref: str) -> NotFound:
    close = nearest(ref, [_short(name) for name in refs if name.startswith(("refs/heads/", "refs/tags/"))])
    hint = f"Did you mean {close!r}? " if close else ""
    return NotFound(f"{mirror.url} has no branch, tag or commit {ref}.", mend=hint + _branches(refs))


def _branches(refs: dict[str, str]) -> str:
    names = [_short(name) for name in refs if name.startswith("refs/heads/")]
    more = f", … ({len(names)} in all)" if len(names) > _SHOWN else ""
    return f"Its branches are: {', '.join(names[:_SHOWN])}{more}." if names else "It has no branches."


def _short(name: str) -> str:
    return name.removeprefix("refs/heads/").removeprefix("refs/tags/").removesuffix(_PEELED)
