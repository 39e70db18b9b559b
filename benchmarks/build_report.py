"""What `build.py` has found: the bounds, whether each holds, and what stands beside them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from build_ours import Caused
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

OVER_BARE = 0.3
"""Seconds that a run of known content may take over a bare `docker run`."""
CHANGED = 2.0
"""Seconds to the container's start after a changed line."""
PUSHED = 0.1
"""Part of the changed layer's size by which what is pushed may differ from it."""
COLD = 1.2
"""How many times as long as `docker build` a cold build may take."""
FASTER = 10.0
"""How many times faster than `docker build` a changed line is at least."""

median = statistics.median


def times() -> dict[str, list[float]]:
    """Seconds by who took them."""
    return defaultdict(list)


@dataclass(frozen=True)
class Bound:
    """One bound.

    Attributes:
        name: What was measured.
        ours: Our figure.
        beside: What it is compared with.
        figure: What is bound.
        must_be: What it may be.
        holds: Whether it is so.
        measured: All of it, for programs.
    """

    name: str
    ours: str
    beside: str
    figure: str
    must_be: str
    holds: bool
    measured: dict[str, Any]


@dataclass
class Report:
    """All of it.

    Attributes:
        about: The machine.
        bounds: The bounds that were measured.
        facts: What else was found.
        missing: What could not be measured, and why.
    """

    about: str
    bounds: list[Bound] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def all_hold(self) -> bool:
        """Whether every bound that was measured holds."""
        return all(bound.holds for bound in self.bounds)

    def known(self, where: str, ours: Sequence[Caused], bare: Sequence[float]) -> None:
        """Bound 1: known content."""
        one, other = median([caused.seconds for caused in ours]), median(bare)
        name = f"1 known content, {where}"
        measured = {"ours": [caused.seconds for caused in ours], "bare": list(bare)}
        over = one - other
        self._add(
            name, _s(one), f"docker run {_s(other)}", f"{over:+.2f} s", f"≤ {OVER_BARE} s", over <= OVER_BARE, measured
        )
        builds, sent = sum(len(caused.built) for caused in ours), sum(caused.sent for caused in ours)
        figure = f"{builds} builds, {sent} bytes to the registry"
        self._add(f"{name}: work", "", "", figure, "none", builds == sent == 0, {"builds": builds, "sent": sent})

    def changed(self, where: str, ours: Sequence[Caused]) -> None:
        """Bound 2: one changed line."""
        one = median([caused.seconds for caused in ours])
        builds = {len(caused.built) for caused in ours}
        measured = {"ours": [caused.seconds for caused in ours], "builds": sorted(builds)}
        holds = one <= CHANGED and builds == {1}
        self._add(f"2 one changed line, {where}", "", "", _s(one), f"≤ {CHANGED:g} s", holds, measured)

    def pushed(self, sent: Sequence[int], sizes: Sequence[int]) -> None:
        """Bound 2: what is pushed, beside the compressed size of the layers that changed."""
        ratio = median([one / other for one, other in zip(sent, sizes, strict=True)])
        one, other = decimal(round(median(sent))), decimal(round(median(sizes)))
        must_be = f"1 ± {PUSHED:g}"
        measured = {"sent": list(sent), "layers": list(sizes)}
        self._add(
            "2 pushed bytes", one, f"changed layer {other}", f"{ratio:.3f} times", must_be, abs(ratio - 1) <= PUSHED,
            measured,
        )  # fmt: skip

    def beside_docker_build(self, cold: dict[str, list[float]], changed: dict[str, list[float]]) -> None:
        """Bound 3."""
        peer = "docker build"
        one, other = median(cold["ours"]), median(cold[peer])
        ratio = one / other
        holds = ratio <= COLD
        self._add(
            "3 cold", _s(one), f"{peer} {_s(other)}", f"{ratio:.2f} times", f"≤ {COLD}", ratio <= COLD, dict(cold)
        )
        one, other = median(changed["ours"]), median(changed[peer])
        ratio = other / one
        figure = f"{ratio:.1f} times faster"
        holds = ratio >= FASTER
        self._add("3 one changed line", _s(one), f"{peer} {_s(other)}", figure, f"≥ {FASTER:g}", holds, dict(changed))

    def beside_repo2docker(self, cold: dict[str, list[float]], changed: dict[str, list[float]]) -> None:
        """Bound 4: figures without a limit."""
        for name, series in (("4 cold", cold), ("4 one changed line", changed)):
            if other := series.get("repo2docker"):
                one, beside = median(series["ours"]), median(other)
                figure = f"{beside / one:.1f} times faster"
                what = f"repo2docker, plain Dockerfile {_s(beside)}"
                self._add(name, _s(one), what, figure, "shown", True, dict(series))

    def many(self, where: str, count: int, agents: Collection[str], built: Sequence[str], seconds: float) -> None:
        """Bound 5: many at once."""
        environments = sum("env:" in name for name in built)
        images = len(built) - environments
        figure = f"{environments} environment, {images} image"
        measured = {"built": list(built), "agents": sorted(agents), "seconds": seconds}
        holds = (environments, images, len(agents)) == (1, 1, 2)
        self._add(
            f"5 {count} runs of a new job, {where}", f"all ended after {_s(seconds)}", f"{len(agents)} agents", figure,
            "1 and 1", holds, measured,
        )  # fmt: skip

    def failed(self, name: str, reason: str) -> None:
        """What was to be measured did not work."""
        self._add(name, "", "", "it failed", "", False, {"reason": reason})
        self.missing.append(f"{name}: {reason}")

    def _add(
        self, name: str, ours: str, beside: str, figure: str, must_be: str, holds: bool, measured: dict[str, Any]
    ) -> None:
        self.bounds.append(Bound(name, ours, beside, figure, must_be, holds, measured))

    def as_json(self) -> dict[str, Any]:
        """All of it, with every single measurement."""
        return asdict(self)

    def show(self) -> None:
        """Print it for people."""
        table = Table(title=f"Medians. {self.about}", title_justify="left")
        for column in ("Bound", "Ours", "Beside it", "Figure", "Must be", "Holds"):
            table.add_column(column)
        for bound in self.bounds:
            holds = "[green]yes[/]" if bound.holds else "[red]NO[/]"
            table.add_row(bound.name, bound.ours, bound.beside, bound.figure, bound.must_be, holds)
        console = Console(width=None if Console().is_terminal else 150)
        console.print(table)
        for name, value in self.facts.items():
            console.print(f"{name}: {value}", markup=False)
        for what in self.missing:
            console.print(f"Not measured: {what}", markup=False)


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"
