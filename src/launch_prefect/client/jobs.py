"""Jobs: what to run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Unpack
from uuid import UUID

import anyio.to_thread
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowFilter, FlowFilterId
from prefect.client.schemas.sorting import FlowSort
from prefect.exceptions import ObjectNotFound
from prefect.utilities.collections import batched_iterable

from launch_prefect.client import endings
from launch_prefect.client.api import connect, wait_for
from launch_prefect.client.deployments import deploy, find, is_command_job, spec_from
from launch_prefect.client.options import JobOptions, job_spec
from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.queues import pools
from launch_prefect.settings import get_settings
from launch_prefect.sources.snapshot import Snapshot, take
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec import CodeSource, ImageSource, JobSpec
from launch_prefect.spec.base import nearest

_log = logging.getLogger(__name__)


class Job:
    """A job: a folder of code or an image, its command, its inputs and what it needs.

    Make one with `from_code` or `from_image`, or get one that a server knows with `get`.

    Attributes:
        spec: What the job is.
        queues: Names of the queues it is known on, where it came from a server.
        snapshot: The snapshot of its folder, once taken.
    """

    def __init__(self, spec: JobSpec, *, folder: Path | None = None, queues: Sequence[str] = ()) -> None:
        self.spec = spec
        self.queues = tuple(queues)
        self.snapshot: Snapshot | None = None
        self._folder = folder
        self._deployed: dict[str, tuple[JobSpec, UUID]] = {}

    def __repr__(self) -> str:
        return f"Job({self.spec.name!r}, {self.spec.version})"

    @property
    def name(self) -> str:
        """The job's name."""
        return self.spec.name

    @classmethod
    def from_code(cls, folder: str | Path, *, entrypoint: Sequence[str], **options: Unpack[JobOptions]) -> Job:
        """A job from a folder of code.

        Args:
            folder: The folder. Its content is taken when the job is created or submitted.
            entrypoint: Program and arguments, run inside the folder; may hold macros such as `${args}`.
            **options: See `JobOptions`.

        Returns:
            The job; nothing is stored or sent yet.

        Raises:
            InvalidInput: A value does not fit.
            NotFound: There is no such folder.
        """
        path = Path(folder).expanduser().resolve()
        if not path.is_dir():
            what = "is a file, not a folder" if path.is_file() else "does not exist"
            raise NotFound(f"The folder {str(folder)!r} {what}.", mend="Give the folder that holds the job's code.")
        return cls(job_spec({"code": path.name or "code"}, entrypoint, options, name=path.name), folder=path)

    @classmethod
    def from_image(cls, image: str, *, command: Sequence[str] | None = None, **options: Unpack[JobOptions]) -> Job:
        """A job from a container image, which needs nothing of ours inside.

        Args:
            image: Reference of the image.
            command: Arguments that replace the image's own command; None keeps it.
            **options: See `JobOptions`.

        Returns:
            The job; nothing is sent yet.

        Raises:
            InvalidInput: A value does not fit.
        """
        default = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
        return cls(job_spec({"image": image}, command, options, name=default))

    async def apin(self) -> JobSpec:
        """Take the snapshot of the job's folder, if it has one, and return the job as a queue keeps it.

        Raises:
            InvalidInput: The folder is empty, or holds a link that leaves it.
            DiskFull: The code store has no space.
        """
        if self._folder is not None:
            store = CodeStore(get_settings().code_store_url)
            self.snapshot = await anyio.to_thread.run_sync(take, self._folder, store)
            source = CodeSource(code=self._folder.name or "code", digest=self.snapshot.digest, store=store.url)
            self.spec = self.spec.model_copy(update={"source": source})
        return self.spec

    async def adeploy(self, client: PrefectClient, queue: str) -> UUID:
        """Make or bring up to date its deployment on a queue; asks nothing where this object has done so already.

        Args:
            client: The API.
            queue: Name of the queue.

        Returns:
            The deployment's id.
        """
        known = self._deployed.get(queue)
        if known is None:  # before anything is stored
            pool = await pools.read(client, queue)
            check_fits(self.spec, pool.type, queue)
        spec = await self.apin()
        if known is not None and known[0] == spec:
            return known[1]
        deployment = await deploy(client, spec, queue)
        self._deployed[queue] = (spec, deployment)
        return deployment

    def is_deployed(self, queue: str) -> bool:
        """Whether this object has made its deployment on a queue."""
        return queue in self._deployed

    def forget_deployment(self, queue: str) -> None:
        """Ask again next time: the deployment this object knew is gone."""
        self._deployed.pop(queue, None)

    async def acreate(self, queue: str) -> Job:
        """Asynchronous twin of `create`."""
        async with connect() as client:
            await self.adeploy(client, queue)
        return self

    def create(self, queue: str) -> Job:
        """Put the job on a queue without running it: it is then in the Prefect UI, to be run from there.

        Args:
            queue: Name of the queue.

        Returns:
            The job itself.

        Raises:
            NotFound: There is no such queue.
            InvalidInput: The job cannot run on this queue.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(self.acreate(queue))

    @classmethod
    async def aget(cls, name: str, *, queue: str | None = None) -> Job:
        """Asynchronous twin of `get`."""
        async with connect() as client:
            found = await find(client, job=name)
            ours = [d for d in found if is_command_job(d)]
            if not ours:
                raise await _no_such_job(client, name)
            chosen = next((d for d in ours if d.name == queue), ours[0])
            return cls(spec_from(chosen, name), queues=[d.name for d in ours])

    @classmethod
    def get(cls, name: str, *, queue: str | None = None) -> Job:
        """A job that the server knows.

        Args:
            name: Its name.
            queue: Take it as this queue has it, where it is on several; otherwise the newest.

        Returns:
            The job.

        Raises:
            NotFound: There is none of that name.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(cls.aget(name, queue=queue))

    @classmethod
    async def alist(cls, *, warn: Callable[[str], None] = _log.warning) -> _Jobs:
        """Asynchronous twin of `list`; `warn` is told of what was left out."""
        async with connect() as client:
            found = [d for d in await find(client) if is_command_job(d)]
            names = await flow_names(client, {d.flow_id for d in found})
        queues: dict[str, list[str]] = {}
        specs: dict[str, JobSpec] = {}
        for deployment in found:  # newest first
            name = names.get(deployment.flow_id)
            if name is None:  # deleted meanwhile
                continue
            if name not in specs:
                try:
                    specs[name] = spec_from(deployment, name)
                # Somebody changed it in Prefect, or an older version of ours wrote it.
                except (InvalidInput, ValueError, TypeError, AttributeError) as error:
                    warn(
                        f"The job {name}/{deployment.name} cannot be read and is left out: {error} "
                        f"Submit it again, or remove it with `prefect deployment delete {name}/{deployment.name}`."
                    )
                    continue
            queues.setdefault(name, []).append(deployment.name)
        return [cls(specs[name], queues=sorted(queues[name])) for name in sorted(specs)]

    @classmethod
    def list(cls) -> _Jobs:
        """All jobs the server knows, by name; one that cannot be read is left out with a warning in the log.

        Raises:
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(cls.alist())

    async def arefuse_if_runs(self) -> None:
        """Refuse what `delete` refuses; nothing is deleted.

        Raises:
            InvalidInput: Runs of it wait or are in progress.
        """
        async with connect() as client:
            if deployments := await self._deployments(client):
                await self._refuse_if_runs(client, deployments)

    async def adelete(self, *, cancel_runs: bool = False) -> None:
        """Asynchronous twin of `delete`."""
        async with connect() as client:
            deployments = await self._deployments(client)
            if not deployments:
                return
            if cancel_runs:  # with a deployment Prefect deletes the runs that wait
                await endings.cancel_all(client, _runs_of(deployments), f"The job {self.name} was deleted.")
            else:
                await self._refuse_if_runs(client, deployments)
            for deployment in deployments:
                with suppress(ObjectNotFound):  # deleted meanwhile
                    await client.delete_deployment(deployment)

    async def _deployments(self, client: PrefectClient) -> _Ids:
        return [found.id for found in await find(client, job=self.name) if is_command_job(found)]

    async def _refuse_if_runs(self, client: PrefectClient, deployments: _Ids) -> None:
        command = f"prefect-launch job delete {self.name}"
        await endings.refuse_if_any(client, _runs_of(deployments), what=f"The job {self.name!r}", delete=command)

    def delete(self, *, cancel_runs: bool = False) -> None:
        """Remove the job from every queue. Its ended runs stay, with their logs.

        Args:
            cancel_runs: Cancel its runs that wait or are in progress; otherwise they are a reason to refuse.

        Raises:
            InvalidInput: Runs of it wait or are in progress.
            Unreachable: The Prefect API does not answer.
        """
        wait_for(self.adelete(cancel_runs=cancel_runs))


def _runs_of(deployments: Sequence[UUID]) -> endings.Whose:
    return {"deployment_filter": DeploymentFilter(id=DeploymentFilterId(any_=list(deployments)))}


def check_fits(spec: JobSpec, pool_type: str, queue: str) -> None:
    """Refuse early what a queue's target can never run.

    Raises:
        InvalidInput: It is such a job.
    """
    if pool_type.endswith("process") and isinstance(spec.source, ImageSource):
        raise InvalidInput(
            f"The queue {queue!r} runs processes and cannot run the image {spec.source.image}.",
            mend="Submit it to a queue of target docker.",
        )


async def flow_names(client: PrefectClient, ids: set[UUID]) -> dict[UUID, str]:
    """Names of flows by id."""
    names: dict[UUID, str] = {}
    for some in batched_iterable(ids, 200):
        wanted = FlowFilter(id=FlowFilterId(any_=list(some)))
        flows = await client.read_flows(flow_filter=wanted, limit=200, sort=FlowSort.NAME_ASC)
        names |= {flow.id: flow.name for flow in flows}
    return names


async def _no_such_job(client: PrefectClient, name: str) -> NotFound:
    found = [d for d in await find(client) if is_command_job(d)]
    names = sorted(set((await flow_names(client, {d.flow_id for d in found})).values()))
    close = nearest(name, names)
    there = f"Did you mean {close!r}?" if close else f"There are: {', '.join(names) or 'none yet'}."
    return NotFound(f"There is no job {name!r}. {there}", mend="See `prefect-launch job list`.")


# `Job.list` hides the type inside the class.
_Jobs = list[Job]
_Ids = list[UUID]
