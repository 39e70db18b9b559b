"""Everything that an image is made from, resolved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from launch_prefect.images.engine import Credentials
from launch_prefect.sources.code import Code
from launch_prefect.spec import BuildSpec


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is made from.

    Attributes:
        job: Name of the job.
        code: Its code, pinned.
        command: Its command; a Dockerfile beside the program that it names is found.
        build: The job's own part of how it is made.
        base_image: Reference of the base image, in which `{python}` takes the version.
        platform: Platform of the image, such as `linux/amd64`; None is the engine's.
        registry: Registry and folder that keep it; None where the engine alone does.
        credentials: Of that registry.
        secrets: Values of the build secrets by name.
        rebuild: Build it though it is there.
        timeout: Seconds that building may take.
    """

    job: str
    code: Code
    base_image: str
    command: tuple[str, ...] | None = None
    build: BuildSpec = field(default_factory=BuildSpec)
    platform: str | None = None
    registry: str | None = None
    credentials: Credentials | None = field(default=None, repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    rebuild: bool = False
    timeout: float | None = None

    def key(self, *more: str) -> tuple[str, ...]:
        """What leads to the same image without a look at the code; nothing in it is secret."""
        return (self.code.key, self.base_image, self.build.key, json.dumps(self.command), self.registry or "", *more)
