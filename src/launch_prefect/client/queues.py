"""Queues: where runs wait."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from launch_prefect.client.options import ResourcesLike
from launch_prefect.client.runs import Run
from launch_prefect.errors import InvalidInput
from launch_prefect.queues import pools
from launch_prefect.spec import JobSpec, QueueSpec, Resources, inputs


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

    @classmethod
    async def acreate(
        cls,
        name: str,
        *,
        target: str,
        concurrency: int | None = None,
        resource_config: Mapping[str, Any] | None = None,
        description: str = "",
    ) -> Queue:
        """Asynchronous twin of `create`."""
        spec = QueueSpec.parse(
            {
                "queue_name": name,
                "target": target,
                "concurrency": concurrency,
                "resource_config": dict(resource_config or {}),
                "description": description,
            },
            what="the queue",
        )
        async with connect() as client:
            return cls._of(await pools.create(client, spec))

    @classmethod
    def create(
        cls,
        name: str,
        *,
        target: str,
        concurrency: int | None = None,
        resource_config: Mapping[str, Any] | None = None,
        description: str = "",
    ) -> Queue:
        """Make a queue.

        Args:
            name: Its name.
            target: Where its runs go: `process` or `docker`.
            concurrency: Most runs in progress at once; None for no limit.
            resource_config: Defaults of the target's job variables.
            description: Shown in the Prefect UI.

        Returns:
            The queue.

        Raises:
            InvalidInput: A value does not fit, or a queue of that name exists.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(
            cls.acreate(
                name,
                target=target,
                concurrency=concurrency,
                resource_config=resource_config,
                description=description,
            )
        )

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

    async def asubmit(
        self,
        job: Job | str,
        *,
        config: Mapping[str, Any] | None = None,
        resources: ResourcesLike = None,
        name: str | None = None,
    ) -> Run:
        """Asynchronous twin of `submit`."""
        if isinstance(job, str):
            job = await Job.aget(job, queue=self.name)
        if config is not None:
            inputs.check(config, job.spec.input_schema)
        async with connect() as client:
            flow_run = await self._create_run(client, job, config or {}, resources, name)
        return Run(flow_run, job=job.name, queue=self.name)

    async def _create_run(
        self,
        client: PrefectClient,
        job: Job,
        config: Mapping[str, Any],
        resources: ResourcesLike,
        name: str | None,
        *,
        again: bool = True,
    ) -> FlowRun:
        known = job.is_deployed(self.name)
        deployment = await job.adeploy(client, self.name)
        variables = _run_variables(job.spec, resources)
        try:
            return await client.create_flow_run_from_deployment(
                deployment,
                # All of them, so that a later change of the job's defaults does not touch this run.
                parameters={**(job.spec.config or {}), **config},
                name=name,
                job_variables=variables,
            )
        except ObjectNotFound:
            if not again:
                raise
            job.forget_deployment(self.name)
            return await self._create_run(client, job, config, resources, name, again=False)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (409, 422):
                if again and known:  # somebody else may have changed the deployment since
                    job.forget_deployment(self.name)
                    return await self._create_run(client, job, config, resources, name, again=False)
                raise InvalidInput(f"The server refuses the run: {_detail(error)}") from None
            raise

    def submit(
        self,
        job: Job | str,
        *,
        config: Mapping[str, Any] | None = None,
        resources: ResourcesLike = None,
        name: str | None = None,
    ) -> Run:
        """Put a run of a job on this queue.

        What the run executes is pinned now: later changes of the folder or the job do not touch it.

        Args:
            job: The job, or the name of one the server knows.
            config: Values of the job's inputs, over their defaults.
            resources: What this run needs, merged over the job's.
            name: Name of the run. Default: one that Prefect makes up.

        Returns:
            The run, waiting.

        Raises:
            NotFound: There is no such queue or job.
            InvalidInput: The config does not fit the job's inputs, or the job cannot run on this queue.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(self.asubmit(job, config=config, resources=resources, name=name))


async def _read(name: str) -> WorkPool:
    async with connect() as client:
        return await pools.read(client, name)


def _run_variables(spec: JobSpec, resources: ResourcesLike) -> dict[str, Any]:
    """The run's own copy of what its job says now, with its resources on top."""
    variables = job_variables(spec)
    if resources:
        own = resources if isinstance(resources, Resources) else Resources.parse(dict(resources), what="resources")
        variables["resources"] = {**variables.get("resources", {}), **own.model_dump(exclude_none=True)}
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
