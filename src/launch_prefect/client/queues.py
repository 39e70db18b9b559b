"""Queues: where runs wait."""

from __future__ import annotations

from typing import Any, Unpack

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.exceptions import ObjectNotFound

from launch_prefect import naming
from launch_prefect.client import endings
from launch_prefect.client.api import connect, wait_for
from launch_prefect.client.deployments import find, is_command_job, job_variables
from launch_prefect.client.jobs import Job
from launch_prefect.client.options import QueueOptions, RunOptions, queue_spec, refuse_unknown
from launch_prefect.client.runs import Run
from launch_prefect.errors import InvalidInput
from launch_prefect.queues import pools
from launch_prefect.spec import BuilderSpec, ImageSource, JobSpec, QueueSpec, Resources, inputs


class Queue:
    """A queue, by name.

    Args:
        name: Its name. Nothing is asked of the server until a method needs it.

    Attributes:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._pool: WorkPool | None = None

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    @classmethod
    def _of(cls, pool: WorkPool) -> Queue:
        queue = cls(pool.name)
        queue._pool = pool
        return queue

    @property
    def target(self) -> str:
        """Where its runs go: `process` or `docker`."""
        return naming.target_of(self._loaded.type) or ""

    @property
    def concurrency(self) -> int | None:
        """Most runs in progress at once; None for no limit."""
        return self._loaded.concurrency_limit

    @property
    def paused(self) -> bool:
        """Whether it is paused."""
        return bool(self._loaded.is_paused)

    @property
    def description(self) -> str:
        """What it is for."""
        return self._loaded.description or ""

    @property
    def _loaded(self) -> WorkPool:
        if self._pool is None:
            self._pool = wait_for(_read(self.name))
        return self._pool

    @property
    def builder(self) -> BuilderSpec:
        """Who builds its images, and where they are kept.

        Raises:
            InvalidInput: Somebody has changed it in Prefect to what cannot be read.
        """
        return pools.builder_of(self._loaded)

    @property
    def base_image(self) -> str | None:
        """Base image of its jobs that name none; None leaves it to the agent's setting LAUNCH_BASE_IMAGE."""
        return pools.base_image_of(self._loaded)

    @classmethod
    async def acreate(cls, name: str, *, target: str, **options: Unpack[QueueOptions]) -> Queue:
        """Asynchronous twin of `create`."""
        spec = queue_spec(name, target, options)
        async with connect() as client:
            return cls._of(await pools.create(client, spec))

    @classmethod
    def create(cls, name: str, *, target: str, **options: Unpack[QueueOptions]) -> Queue:
        """Make a queue.

        Args:
            name: Its name.
            target: Where its runs go: `process` or `docker`.
            **options: See `QueueOptions`.

        Returns:
            The queue.

        Raises:
            InvalidInput: A value does not fit, or a queue of that name exists.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(cls.acreate(name, target=target, **options))

    @classmethod
    async def aapply(cls, spec: QueueSpec) -> Queue:
        """Make a queue, or bring the existing one to what `spec` says."""
        async with connect() as client:
            return cls._of(await pools.ensure(client, spec))

    @classmethod
    async def alist(cls) -> _Queues:
        """Asynchronous twin of `list`."""
        async with connect() as client:
            return [cls._of(pool) for pool in await pools.read_all(client)]

    @classmethod
    def list(cls) -> _Queues:
        """All queues, by name.

        Raises:
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(cls.alist())

    async def aload(self) -> Queue:
        """Read it from the server.

        Raises:
            NotFound: There is no such queue.
        """
        self._pool = await _read(self.name)
        return self

    async def acounts(self) -> tuple[int, int]:
        """How many of its runs wait, and how many are in progress."""
        async with connect() as client:
            return await endings.counts(client, self._runs)

    @property
    def _runs(self) -> endings.Whose:
        return {"work_pool_filter": WorkPoolFilter(name=WorkPoolFilterName(any_=[self.name]))}

    async def aworkers(self) -> _Workers:
        """The Prefect workers that serve it, with their last heartbeat."""
        async with connect() as client:
            return await client.read_workers_for_work_pool(self.name)

    async def apause(self) -> Queue:
        """Asynchronous twin of `pause`."""
        return await self._set_paused(True)

    def pause(self) -> Queue:
        """Start no further run; those in progress go on.

        Returns:
            The queue itself.

        Raises:
            NotFound: There is no such queue.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(self.apause())

    async def aresume(self) -> Queue:
        """Asynchronous twin of `resume`."""
        return await self._set_paused(False)

    def resume(self) -> Queue:
        """Start runs again after `pause`; see there."""
        return wait_for(self.aresume())

    async def _set_paused(self, paused: bool) -> Queue:
        async with connect() as client:
            await pools.read(client, self.name)
            await client.update_work_pool(self.name, WorkPoolUpdate(is_paused=paused))
            self._pool = await pools.read(client, self.name)
        return self

    async def adelete(self, *, cancel_runs: bool = False) -> None:
        """Asynchronous twin of `delete`."""
        async with connect() as client:
            self._pool = await pools.read(client, self.name)
            if cancel_runs:  # without a queue nobody would end them
                await endings.cancel_all(client, self._runs, f"The queue {self.name} was deleted.")
            else:
                command = f"prefect-launch queue delete {self.name}"
                await endings.refuse_if_any(client, self._runs, what=f"The queue {self.name!r}", delete=command)
            for deployment in await find(client, queue=self.name):
                if is_command_job(deployment):
                    await client.delete_deployment(deployment.id)
            await client.delete_work_pool(self.name)

    def delete(self, *, cancel_runs: bool = False) -> None:
        """Remove the queue and the jobs on it. Ended runs stay, with their logs.

        Args:
            cancel_runs: Cancel the runs that wait or are in progress; otherwise they are a reason to refuse.

        Raises:
            InvalidInput: Runs wait or are in progress.
            NotFound: There is no such queue.
            Unreachable: The Prefect API does not answer.
        """
        wait_for(self.adelete(cancel_runs=cancel_runs))

    async def asubmit(self, job: Job | str, **options: Unpack[RunOptions]) -> Run:
        """Asynchronous twin of `submit`."""
        refuse_unknown(options, RunOptions, what="A run")
        if isinstance(job, str):
            job = await Job.aget(job, queue=self.name)
        if (config := options.get("config")) is not None:
            inputs.check(config, job.spec.input_schema)
        async with connect() as client:
            flow_run = await self._create_run(client, job, options)
        return Run(flow_run, job=job.name, queue=self.name)

    async def _create_run(self, client: PrefectClient, job: Job, options: RunOptions, *, again: bool = True) -> FlowRun:
        known = job.is_deployed(self.name)
        deployment = await job.adeploy(client, self.name)
        try:
            return await client.create_flow_run_from_deployment(
                deployment,
                # All of them, so that a later change of the job's defaults does not touch this run.
                parameters={**(job.spec.config or {}), **(options.get("config") or {})},
                name=options.get("name"),
                job_variables=_run_variables(job.spec, options),
            )
        except ObjectNotFound:
            if not again:
                raise
            job.forget_deployment(self.name)
            return await self._create_run(client, job, options, again=False)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (409, 422):
                if again and known:  # somebody else may have changed the deployment since
                    job.forget_deployment(self.name)
                    return await self._create_run(client, job, options, again=False)
                raise InvalidInput(f"The server refuses the run: {_detail(error)}") from None
            raise

    def submit(self, job: Job | str, **options: Unpack[RunOptions]) -> Run:
        """Put a run of a job on this queue.

        What the run executes is pinned now: later changes of the folder, the branch or the job do not touch it.

        Args:
            job: The job, or the name of one the server knows.
            **options: See `RunOptions`.

        Returns:
            The run, waiting.

        Raises:
            NotFound: There is no such queue or job; for a job from git: no such repository, ref or block.
            InvalidInput: The config does not fit the job's inputs, or the job cannot run on this queue.
            Unreachable: The Prefect API, or the job's git server, does not answer.
        """
        return wait_for(self.asubmit(job, **options))


async def _read(name: str) -> WorkPool:
    async with connect() as client:
        return await pools.read(client, name)


def _run_variables(spec: JobSpec, options: RunOptions) -> dict[str, Any]:
    """The run's own copy of what its job says now, with its resources on top."""
    variables = job_variables(spec)
    if resources := options.get("resources"):
        own = resources if isinstance(resources, Resources) else Resources.parse(dict(resources), what="resources")
        variables["resources"] = {**variables.get("resources", {}), **own.model_dump(exclude_none=True)}
    if options.get("rebuild"):
        if isinstance(spec.source, ImageSource):
            raise InvalidInput(
                f"rebuild: the job {spec.name!r} runs an image, and nothing is built for it.", mend="Leave it out."
            )
        variables["rebuild"] = True
    return variables


def _detail(error: httpx.HTTPStatusError) -> str:
    try:
        detail = error.response.json().get("detail")
    except ValueError:
        detail = None
    return str(detail or error.response.text)


# `Queue.list` hides the type inside the class.
_Queues = list[Queue]
_Workers = list[Any]
