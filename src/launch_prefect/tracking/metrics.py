"""The reader of the lines that `launch_run.log` writes, in any language.

The form of the line is documented in `launch_prefect.runtime.launch_run`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch_prefect.runtime.launch_run import PREFIX

_SPECIAL = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class MetricsLine:
    """What one line of metrics says.

    Attributes:
        step: Where in the training it was logged, where the job said so.
        metrics: Numbers by name; never empty.
        time: Seconds since 1970 by the job's clock, where the job said so.
    """

    step: int | None
    metrics: Mapping[str, float]
    time: float | None


def parse_metrics(line: str) -> MetricsLine | None:
    """Read one log line.

    A job may print anything, so nothing is raised: a line that is not wholly right is any log line.

    Args:
        line: The line, with or without its line end.

    Returns:
        The metrics, or None where the line is no line of metrics.
    """
    if not line.startswith(PREFIX):
        return None
    try:
        document = json.loads(line[len(PREFIX) :])
        if not isinstance(document, dict):
            return None
        return MetricsLine(
            step=_step(document.get("step")),
            metrics=_metrics(document.get("metrics")),
            time=_time(document.get("time")),
        )
    except (ValueError, RecursionError):  # RecursionError: brackets nested thousands deep
        return None


def _metrics(value: Any) -> dict[str, float]:
    if not isinstance(value, dict) or not value or "" in value:
        raise ValueError("metrics is no object, or holds nothing")
    return {name: _number(number) for name, number in value.items()}


def _number(value: Any) -> float:
    if isinstance(value, str) and value in _SPECIAL:
        return _SPECIAL[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    if isinstance(value, int) and abs(value) >= 2**63:
        try:
            return float(value)
        except OverflowError:
            raise ValueError("larger than a float") from None
    return value


def _step(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("no step")
    return value


def _time(value: Any) -> float | None:
    if value is None:
        return None
    number = _number(value)
    if not math.isfinite(number):
        raise ValueError("no time")
    return number
