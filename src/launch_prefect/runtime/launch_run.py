"""What a job's own Python code can use: its config, its output folder, and a way to log metrics.

    import launch_run

    rate = launch_run.config.get("learning_rate", 0.01)
    launch_run.log({"loss": 0.1}, step=3)
    (launch_run.output_dir / "model.json").write_text("...")

It is one file on the standard library alone, for Python 3.8 and later, and is on the path of every image that
launch-prefect builds and of every process it starts. Outside launch-prefect it works unchanged: there is no
config, outputs go to `./outputs` and metrics are printed like any other line.

| name                            | from                                     | outside launch-prefect |
| ------------------------------- | ---------------------------------------- | ---------------------- |
| `config`                        | `LAUNCH_CONFIG`, a JSON object           | `{}`                   |
| `output_dir`                    | `LAUNCH_OUTPUT_DIR`; made when first read | `./outputs`            |
| `run_id`, `run_name`            | `LAUNCH_RUN_ID`, `LAUNCH_RUN_NAME`       | None                   |
| `job`, `queue`                  | `LAUNCH_JOB`, `LAUNCH_QUEUE`             | None                   |
| `attempt`                       | `LAUNCH_ATTEMPT`                         | 1                      |

A program in any language logs metrics by writing one line to its standard output:

    ::launch-metrics:: {"step": 3, "metrics": {"loss": 0.1}, "time": 1767225600.25}

The line starts with `::launch-metrics:: ` and a JSON object follows. `metrics` maps names to numbers. `step`
(a whole number from 0) and `time` (seconds since 1970, UTC) may be left out or null. JSON has no infinities
and no NaN: they are written as the strings `"NaN"`, `"Infinity"` and `"-Infinity"`.
"""

from __future__ import annotations

import json
import math
import operator
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Mapping  # noqa: UP035 - collections.abc has no generics in Python 3.8

PREFIX = "::launch-metrics:: "
"""What a line of metrics starts with."""

config: dict[str, Any]
"""The run's config: the job's defaults with the values given for this run."""
output_dir: Path
"""Where to write files that are to be kept."""
run_id: str | None
run_name: str | None
job: str | None
queue: str | None
attempt: int
"""1 for the first start of this run, 2 for its first repetition."""

_lock = threading.Lock()


def log(metrics: Mapping[str, Any], step: int | None = None) -> None:
    """Log metrics, as one line on standard output.

    Args:
        metrics: Numbers by name. Scalars of NumPy and tensors of one element count as numbers; NaN and the
            infinities are kept.
        step: Where in the training this is, such as the epoch or the batch.

    Raises:
        TypeError: A name is no text, a value is no number, or the step is no whole number.
        ValueError: A name is empty, the step is negative, or a number is too large.
    """
    values = {_name(name): _number(name, value) for name, value in metrics.items()}
    document = {"step": _step(step), "metrics": values, "time": round(time.time(), 3)}
    line = PREFIX + json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"
    if not values:
        return
    with _lock:
        # What was printed before goes out first, so that the line leaves in one write of its own.
        sys.stdout.flush()
        sys.stdout.write(line)
        sys.stdout.flush()


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"The name of a metric is a text, not {name!r}.")
    if not name:
        raise ValueError("The name of a metric is empty.")
    return name


def _number(name: str, value: Any) -> int | float | str:
    """A value as JSON can hold it."""
    plain = value
    if not isinstance(value, (int, float)) and callable(getattr(value, "item", None)):
        try:
            plain = value.item()  # a scalar of NumPy, a tensor of one element
        except Exception:  # NumPy, PyTorch and others each raise their own
            raise TypeError(f"Metric {name!r} is no single number: {_shown(value)}.") from None
    if isinstance(plain, int):
        plain = int(plain)  # a bool is 0 or 1
        if abs(plain) < 2**63:
            return plain
    try:
        if isinstance(plain, (str, bytes)):
            raise TypeError
        number = float(plain)
    except TypeError:
        raise TypeError(
            f"Metric {name!r} is no number but {type(value).__name__}: {_shown(value)}. "
            "Print what is not a number, or write it to a file in launch_run.output_dir."
        ) from None
    except OverflowError:
        raise ValueError(f"Metric {name!r} is too large for a float.") from None
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


def _step(step: Any) -> int | None:
    if step is None:
        return None
    try:
        whole = operator.index(step)
    except TypeError:
        raise TypeError(f"The step is a whole number, not {_shown(step)}.") from None
    if whole < 0:
        raise ValueError(f"The step is counted from 0, not {whole}.")
    return whole


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _read_config() -> dict[str, Any]:
    text = os.environ.get("LAUNCH_CONFIG")
    if not text:
        return {}
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"LAUNCH_CONFIG is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"LAUNCH_CONFIG is to hold a JSON object, not {_shown(values)}.")
    return values


def _make_output_dir() -> Path:
    folder = Path(os.environ.get("LAUNCH_OUTPUT_DIR") or "outputs").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


_READERS: dict[str, Callable[[], Any]] = {
    "config": _read_config,
    "output_dir": _make_output_dir,
    "run_id": lambda: os.environ.get("LAUNCH_RUN_ID") or None,
    "run_name": lambda: os.environ.get("LAUNCH_RUN_NAME") or None,
    "job": lambda: os.environ.get("LAUNCH_JOB") or None,
    "queue": lambda: os.environ.get("LAUNCH_QUEUE") or None,
    "attempt": lambda: int(os.environ.get("LAUNCH_ATTEMPT") or 1),
}


def __getattr__(name: str) -> Any:
    """Read a value when it is first asked for: an import alone makes no folder and cannot fail."""
    if name not in _READERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__dir__())}")
    value = globals()[name] = _READERS[name]()
    return value


def __dir__() -> list[str]:
    return sorted([*_READERS, "log"])
