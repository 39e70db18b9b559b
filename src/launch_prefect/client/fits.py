"""Whether a job can ever run on a queue: what cannot is refused when it is submitted."""

from __future__ import annotations

from prefect.client.schemas.objects import WorkPool

from launch_prefect import naming
from launch_prefect.errors import InvalidInput
from launch_prefect.queues import pools
from launch_prefect.spec import ImageSource, JobSpec


def check_fits(spec: JobSpec, pool: WorkPool) -> None:
    """Refuse early what a queue can never run.

    Raises:
        InvalidInput: It is such a job.
    """
    if pool.type == naming.pool_type("process"):
        if isinstance(spec.source, ImageSource):
            raise InvalidInput(
                f"The queue {pool.name!r} runs processes and cannot run the image {spec.source.image}.",
                mend="Submit it to a queue of target docker.",
            )
        if spec.build.dockerfile is not None:
            raise InvalidInput(
                f"build.dockerfile: the queue {pool.name!r} runs processes and builds no image.",
                mend="Submit it to a queue of target docker, or leave the dockerfile out.",
            )
    elif not isinstance(spec.source, ImageSource) and pools.builder_of(pool).type == "none":
        raise InvalidInput(
            f"The queue {pool.name!r} builds no images (builder: none), and {spec.name!r} is no image.",
            mend="Submit an image, or take another queue.",
        )
