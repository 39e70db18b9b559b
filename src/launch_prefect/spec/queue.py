"""What a queue is, as a user writes it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from launch_prefect.spec.base import Spec
from launch_prefect.spec.build import BuilderSpec
from launch_prefect.spec.job import Name

Target = Literal["process", "docker"]


class QueueSpec(Spec):
    """A queue: where its runs go, how many at once, and its resource configuration.

    Attributes:
        queue_name: The queue's name; it is the Prefect work pool's name.
        target: What its runs run on.
        concurrency: Most runs in progress at once; None does not limit them.
        resource_config: Defaults of the target's job variables.
        builder: Who builds images, and where they are kept.
        description: Shown in the Prefect UI.
    """

    queue_name: Name
    target: Target
    concurrency: int | None = Field(default=None, ge=0)
    resource_config: dict[str, Any] = Field(default_factory=dict)
    builder: BuilderSpec = BuilderSpec()
    description: str = ""

    @model_validator(mode="after")
    def _check_builder(self) -> Self:
        self.builder.refuse_for(self.target)
        return self
