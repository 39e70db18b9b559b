"""What a queue is, as a user writes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from launch_prefect.spec.base import Spec
from launch_prefect.spec.job import Name

Target = Literal["process", "docker"]


class QueueSpec(Spec):
    """A queue: where its runs go, how many at once, and its resource configuration.

    Attributes:
        queue_name: The queue's name; it is the Prefect work pool's name.
        target: What its runs run on.
        concurrency: Most runs in progress at once; None does not limit them.
        resource_config: Defaults of the target's job variables.
        description: Shown in the Prefect UI.
    """

    queue_name: Name
    target: Target
    concurrency: int | None = Field(default=None, ge=0)
    resource_config: dict[str, Any] = Field(default_factory=dict)
    description: str = ""
