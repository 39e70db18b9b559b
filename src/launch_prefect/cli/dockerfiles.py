"""The Dockerfiles that a job's image is made by, printed without an engine."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from launch_prefect.errors import InvalidInput

if TYPE_CHECKING:
    from launch_prefect.client import Job, Queue
    from launch_prefect.sources.code import Code
    from launch_prefect.sources.git import GitCredentials
    from launch_prefect.spec import CodeSource, GitSource


async def dockerfiles_of(job: Job, named: str | None) -> str:
    """The Dockerfiles of a job, as an agent of its queue makes them; its code is fetched for that.

    Args:
        job: A job that the server knows.
        named: The queue; None is the first of target docker that the job is on.

    Raises:
        InvalidInput: The job runs an image, or is on no queue that builds images; or its code cannot be built.
        NotFound: Its code, or the queue, is not there.
        Unreachable: What keeps its code does not answer.
    """
    from launch_prefect.client.pinning import git_credentials
    from launch_prefect.images import dockerfile, plan
    from launch_prefect.images.detect import detect
    from launch_prefect.settings import get_settings
    from launch_prefect.spec import GitSource, ImageSource

    spec, settings = job.spec, get_settings()
    if isinstance(spec.source, ImageSource):
        raise InvalidInput(f"The job {job.name!r} runs the image {spec.source.image}; no Dockerfile is made for it.")
    queue = await _queue_that_builds(job, named)
    credentials = await git_credentials(spec.source) if isinstance(spec.source, GitSource) else None
    with tempfile.TemporaryDirectory(prefix="launch-") as folder:
        code = Path(folder) / "code"
        await anyio.to_thread.run_sync(_fetch, _code_of(spec.source, credentials), code)
        environment = detect(code, build=spec.build, command=spec.command)
    template = spec.build.base_image or queue.base_image or settings.base_image
    base = plan.base_reference(template, environment.python)
    secrets = sorted({*queue.builder.secrets, *spec.build.secrets})
    return dockerfile.printed(environment, base, spec.build, secrets)


async def _queue_that_builds(job: Job, named: str | None) -> Queue:
    from launch_prefect.client import Queue

    for name in [named] if named else job.queues:
        queue = await Queue(name).aload()
        if queue.target != "process" and queue.builder.type != "none":
            return queue
    names = named or ", ".join(job.queues)
    raise InvalidInput(
        f"The job {job.name!r} has no Dockerfile on {names}: no images are built there.",
        mend="Name a queue of target docker: -q QUEUE.",
    )


def _code_of(source: CodeSource | GitSource, credentials: GitCredentials | None) -> Code:
    from launch_prefect.settings import get_settings
    from launch_prefect.sources.code import code_of

    return code_of(source, get_settings(), credentials)


def _fetch(code: Code, into: Path) -> None:
    code.fetch(into, log=lambda line: None, stop=threading.Event())
