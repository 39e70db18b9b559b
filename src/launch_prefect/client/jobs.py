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
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.exceptions import ObjectNotFound

from launch_prefect.client import endings, pinning
from launch_prefect.client.api import connect, wait_for
from launch_prefect.client.deployments import deploy, find, flow_names, is_command_job, spec_from
from launch_prefect.client.fits import check_fits
from launch_prefect.client.options import BuiltJobOptions, JobOptions, job_spec
from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.queues import pools
from launch_prefect.settings import get_settings
from launch_prefect.sources.git import WorkTree
from launch_prefect.sources.snapshot import Progress, Snapshot, take
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec import CodeSource, GitSource, ImageSource, JobSpec, Source
from launch_prefect.spec.base import nearest

_log = logging.getLogger(__name__)


class Job:
    """A job: a folder of code or an image, its command, its inputs and what it needs.

    Make one with `from_code` or `from_image`, or get one that a server knows with `get`.

    Attributes:
        spec: What the job is.
        queues: Names of the queues it is known on, where it came from a server.
        snapshot: The snapshot of its folder, once taken.
        work_tree: What was taken of its work tree, where it comes from one.
        code_limit: Bytes that its folder may hold, 0 for any number. None is the setting LAUNCH_CODE_LIMIT.
        on_progress: Called with bytes done and bytes in all while the snapshot is taken, in another thread.
    """

    def __init__(self, spec: JobSpec, *, folder: Path | None = None, queues: Sequence[str] = ()) -> None:
        self.spec = spec
        self.queues = tuple(queues)
        self.snapshot: Snapshot | None = None
        self.work_tree: WorkTree | None = None
        self.code_limit: int | None = None
        self.on_progress: Progress | None = None
        self._given = spec.source
        self._folder = folder
        self._deployed: dict[str, tuple[JobSpec, UUID]] = {}
        self._registry_credentials: dict[str, str | None] = {}

    def __repr__(self) -> str:
        return f"Job({self.spec.name!r}, {self.spec.version})"

    @property
    def name(self) -> str:
        """The job's name."""
        return self.spec.name

    @classmethod
    def from_code(
        cls, folder: str | Path, *, entrypoint: Sequence[str] | None = None, **options: Unpack[BuiltJobOptions]
    ) -> Job:
        """A job from a folder of code.

        Args:
            folder: The folder. Its content is taken when the job is created or submitted.
            entrypoint: Program and arguments, run inside the folder; may hold macros such as `${args}`. Only a job
                with a Dockerfile of its own may leave it out.
            **options: See `JobOptions` and `BuiltJobOptions`.

        Returns:
            The job; nothing is stored or sent yet.

        Raises:
            InvalidInput: A value does not fit.
            NotFound: There is no such folder.
        """
        path = _folder(folder)
        source = {"code": path.name or "code"}
        return cls(job_spec(source, entrypoint, options, name=path.name, accepted=BuiltJobOptions), folder=path)

    @classmethod
    def from_git(
        cls,
        url: str,
        *,
        entrypoint: Sequence[str] | None = None,
        ref: str | None = None,
        subdir: str | None = None,
        credentials: str | None = None,
        **options: Unpack[BuiltJobOptions],
    ) -> Job:
        """A job from a git repository.

        Args:
            url: Its address: `https://…`, `ssh://…` or `git@host:path`.
            entrypoint: See `from_code`; it runs inside `subdir`.
            ref: Branch, tag or commit, found when the job is created or submitted. Default: the default branch.
            subdir: Folder of it that is the job's. Default: all of it.
            credentials: Prefect block with a token or an ssh key, as `TYPE/NAME`. Default: what git on this machine,
                and on the agent's, knows by itself.
            **options: See `JobOptions` and `BuiltJobOptions`.

        Returns:
            The job; nothing is asked of the git server yet.

        Raises:
            InvalidInput: A value does not fit.
        """
        given = {"git": url, "ref": ref, "subdir": subdir, "credentials": credentials}
        source = {key: value for key, value in given.items() if value is not None}
        name = url.rstrip("/").replace(":", "/").rpartition("/")[2].removesuffix(".git")
        return cls(job_spec(source, entrypoint, options, name=name, accepted=BuiltJobOptions))

    @classmethod
    def from_work_tree(
        cls,
        folder: str | Path,
        *,
        entrypoint: Sequence[str] | None = None,
        credentials: str | None = None,
        **options: Unpack[BuiltJobOptions],
    ) -> Job:
        """A job from a folder of a git work tree: the newest commit that its server has, and the changes since.

        Both are those of the moment when the job is created or submitted. Changes are commits that are not pushed,
        and what is not committed; files that git does not track are not taken.

        Args:
            folder: The work tree, or a folder in it.
            entrypoint: See `from_code`.
            credentials: See `from_git`.
            **options: See `JobOptions` and `BuiltJobOptions`.

        Returns:
            The job; nothing is stored or sent yet.

        Raises:
            InvalidInput: It is in no work tree, which has a remote repository and a pushed commit; a value does not
                fit.
            NotFound: There is no such folder.
        """
        path = _folder(folder)
        tree = pinning.work_tree_at(path)
        given = {"git": tree.url, "ref": tree.branch, "subdir": tree.subdir, "credentials": credentials}
        source = {key: value for key, value in given.items() if value is not None}
        job = cls(job_spec(source, entrypoint, options, name=path.name, accepted=BuiltJobOptions), folder=path)
        job.work_tree = tree
        return job

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

    async def apin(self, registry_credentials: str | None = None) -> JobSpec:
        """Pin what the job runs: take the snapshot of its folder, find the commit or the image's digest.

        A job that the server knows is pinned already; of an image whose registry does not answer the name is kept.

        Args:
            registry_credentials: Block with the credentials of an image's registry, as `TYPE/NAME`: the queue's.

        Returns:
            The job as a queue keeps it.

        Raises:
            InvalidInput: The folder is empty, holds a link that leaves it, or is larger than `code_limit`; the git
                server refuses the credentials.
            NotFound: There is no such repository, branch, tag, commit or block.
            DiskFull: The code store has no space.
            Unreachable: The code store, the git server or the Prefect API does not answer.
        """
        self.spec = self.spec.model_copy(update={"source": await self._pinned(registry_credentials)})
        return self.spec

    async def _pinned(self, registry_credentials: str | None) -> Source:
        source = self._given
        if self._folder is not None and isinstance(source, CodeSource):
            store = CodeStore(get_settings().code_store_url)
            self.snapshot = await anyio.to_thread.run_sync(self._take, self._folder, store)
            return source.model_copy(update={"digest": self.snapshot.digest, "store": store.url})
        if self._folder is not None and isinstance(source, GitSource):
            self.work_tree = await anyio.to_thread.run_sync(pinning.work_tree_at, self._folder)
            return await pinning.pinned_work_tree(self.work_tree, source.credentials)
        if isinstance(source, GitSource) and source.commit is None:
            return await pinning.pinned_git(source)
        if isinstance(source, ImageSource) and source.digest is None:
            return await pinning.pinned_image(source, registry_credentials)
        return source

    def _take(self, folder: Path, store: CodeStore) -> Snapshot:
        limit = get_settings().code_limit if self.code_limit is None else self.code_limit
        dockerfile = self.spec.build.dockerfile
        return take(folder, store, progress=self.on_progress, limit=limit or None, dockerfile=dockerfile)

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
            check_fits(self.spec, pool)
            self._registry_credentials[queue] = pools.registry_credentials_of(pool)
        spec = await self.apin(self._registry_credentials.get(queue))
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


def _folder(folder: str | Path) -> Path:
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        what = "is a file, not a folder" if path.is_file() else "does not exist"
        raise NotFound(f"The folder {str(folder)!r} {what}.", mend="Give the folder that holds the job's code.")
    return path


async def _no_such_job(client: PrefectClient, name: str) -> NotFound:
    found = [d for d in await find(client) if is_command_job(d)]
    names = sorted(set((await flow_names(client, {d.flow_id for d in found})).values()))
    close = nearest(name, names)
    there = f"Did you mean {close!r}?" if close else f"There are: {', '.join(names) or 'none yet'}."
    return NotFound(f"There is no job {name!r}. {there}", mend="See `prefect-launch job list`.")


# `Job.list` hides the type inside the class.
_Jobs = list[Job]
_Ids = list[UUID]
