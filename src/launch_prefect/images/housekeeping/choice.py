"""What is to be removed: a pure function of what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from launch_prefect.images.housekeeping.usage import Kind

GRACE_SECONDS = 600
"""What was used so lately is kept: a run that starts may have found it, and not be seen to use it yet."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something of ours on this machine.

    Attributes:
        kind: What it is.
        name: What identifies it among its kind: see `Usage.used`; of a git mirror, its folder's name.
        last_used: Seconds since 1970.
        parts: What it has on the disk: bytes by a name. Two that share a part name it alike; it counts once.
        also: Other names by which it may be needed.
        in_use: Whether something uses it now.
        stands_on: Name of another of its kind, which is used whenever this one is.
        shown: Name for people.
    """

    kind: Kind
    name: str
    last_used: float
    parts: Mapping[str, int]
    also: frozenset[str] = frozenset()
    in_use: bool = False
    stands_on: Collection[str] = field(default=())
    shown: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """Something to remove.

    Attributes:
        candidate: It.
        size: Bytes that are freed by it, after all that is removed before it.
    """

    candidate: Candidate
    size: int


def total(candidates: Iterable[Candidate], others: Collection[str] = ()) -> int:
    """Bytes that all of it takes together.

    Args:
        candidates: All of ours.
        others: Parts that are kept by something that is not ours, such as layers of a base image.
    """
    parts = {name: size for candidate in candidates for name, size in candidate.parts.items()}
    return sum(size for name, size in parts.items() if name not in others)


def choose(
    candidates: Iterable[Candidate],
    budget: int,
    *,
    now: float,
    needed: frozenset[str] = frozenset(),
    others: Collection[str] = (),
) -> list[Choice]:
    """What to remove, least recently used first, until the rest fits.

    Args:
        candidates: All of ours.
        budget: Bytes that may be left.
        now: Seconds since 1970.
        needed: Names of what must stay.
        others: See `total`.

    Returns:
        What to remove, in this order. Where it is not enough, everything else is needed or in use.
    """
    every = _with_foundations([*candidates], needed)
    excess = total(every, others) - budget
    users = Counter(part for candidate in every for part in candidate.parts)
    chosen: list[Choice] = []
    # What stands on another goes first.
    for candidate in sorted(every, key=lambda each: (each.last_used, not each.stands_on, each.kind, each.name)):
        if excess <= 0:
            break
        if candidate.in_use or candidate.last_used > now - GRACE_SECONDS:
            continue
        users.subtract(candidate.parts.keys())
        freed = sum(size for part, size in candidate.parts.items() if not users[part] and part not in others)
        excess -= freed
        chosen.append(Choice(candidate, freed))
    return chosen


def _with_foundations(candidates: list[Candidate], needed: frozenset[str]) -> list[Candidate]:
    """The same, where what is needed is in use, and what others stand on is used whenever they are."""
    held: dict[tuple[Kind, str], bool] = {}
    used: dict[tuple[Kind, str], float] = {}
    for each in candidates:
        in_use = each.in_use or not needed.isdisjoint({each.name, *each.also})
        for name in (each.name, *each.stands_on):
            key = (each.kind, name)
            held[key] = held.get(key, False) or in_use
            used[key] = max(used.get(key, 0), each.last_used)
    return [
        Candidate(
            each.kind,
            each.name,
            used[each.kind, each.name],
            each.parts,
            each.also,
            held[each.kind, each.name],
            each.stands_on,
            each.shown,
        )
        for each in candidates
    ]
