"""W&B Launch, open, as a plugin on Prefect 3."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from launch_prefect.client import Job, Queue, Run
    from launch_prefect.errors import LaunchError
    from launch_prefect.spec import BuilderSpec, BuildSpec, Resources

__version__ = version("launch-prefect")
__all__ = ["BuildSpec", "BuilderSpec", "Job", "LaunchError", "Queue", "Resources", "Run", "__version__"]

# Loaded when first used: importing Prefect takes a second, and `prefect-launch --help` needs none of it.
_HOMES = {
    "Job": "launch_prefect.client",
    "Queue": "launch_prefect.client",
    "Run": "launch_prefect.client",
    "LaunchError": "launch_prefect.errors",
    "BuildSpec": "launch_prefect.spec",
    "BuilderSpec": "launch_prefect.spec",
    "Resources": "launch_prefect.spec",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'launch_prefect' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
