"""`prefect-launch job`: jobs that the server knows."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from cyclopts import App

from launch_prefect.cli.options import NO_BUILD, NO_GIT, NO_JOB, BuildOptions, GitOptions, JobOptions, Words
from launch_prefect.cli.output import Json, facts, note, print_json, say, table
from launch_prefect.cli.run import value_text
from launch_prefect.cli.session import QueueName, Yes, assignments, chosen_queue, confirm, reach
from launch_prefect.cli.taking import code_facts, tell_left_out, tell_of_git, with_code
from launch_prefect.cli.what import (
    Definition,
    command_of,
    job_from_folder,
    job_from_git,
    job_from_image,
    kind_of,
    names_a_folder,
    resources_from,
)
from launch_prefect.errors import InvalidInput

if TYPE_CHECKING:
    from launch_prefect.client import Job
    from launch_prefect.spec import Source

app = App(name="job", help="Define jobs, look at them, delete them.")
create = App(name="create", help="Define a job and put it on queues, without running it.")
app.command(create)


@create.command
async def code(
    folder: str,
    /,
    *,
    options: JobOptions = NO_JOB,
    git: bool = False,
    git_credentials: str | None = None,
    build: BuildOptions = NO_BUILD,
    yes: Yes = False,
    command: Words = (),
) -> None:
    """Define a job from a folder of code.

    ```
    prefect-launch job create code ./train -q gpu --config-default learning_rate=0.01 -- python train.py
    ```

    Args:
        folder: The folder. Its content is taken now.
        options: The rest of the job.
        git: Of a folder in a git work tree take the pushed commit and the changes since, instead of its files.
        git_credentials: With --git: Prefect block with a token or an ssh key for its repository, as TYPE/NAME.
        build: How its image is made.
        yes: Do not ask, however large the folder is.
        command: The words after --.
    """
    if kind_of(folder) == "git":
        raise InvalidInput(f"{folder} is a git repository.", mend="Define its job with `job create git`.")
    if git_credentials is not None and not git:
        raise InvalidInput("--git-credentials belongs to --git.", mend="Add --git, or leave it out.")
    definition = _definition(options, command, build)
    job = job_from_folder(folder, definition, git=git, credentials=git_credentials)
    await _create(job, options, yes=yes)
    if not git and not options.json:
        tell_of_git(folder)


@create.command
async def git(
    url: str,
    /,
    *,
    options: JobOptions = NO_JOB,
    of_git: GitOptions = NO_GIT,
    build: BuildOptions = NO_BUILD,
    command: Words = (),
) -> None:
    """Define a job from a git repository. The commit that the ref leads to now is what its runs execute.

    ```
    prefect-launch job create git https://example.com/team/train.git@v1.2 -q gpu -- python train.py
    ```

    Args:
        url: The repository, https://…, ssh://… or git@host:path, or URL@REF.
        options: The rest of the job.
        of_git: Which part of the repository.
        build: How its image is made.
        command: The words after --.
    """
    if names_a_folder(url):
        raise InvalidInput(
            f"{url!r} is a folder.", mend="Define its job with `job create code`; there, --git takes its commit."
        )
    await _create(job_from_git(url, _definition(options, command, build), of_git), options)


@create.command
async def image(
    reference: str,
    /,
    *,
    options: JobOptions = NO_JOB,
    command: Words = (),
) -> None:
    """Define a job from a container image, which needs nothing of ours inside.

    ```
    prefect-launch job create image registry.example.com/team/train:1.4 -q gpu -- --epochs '${config.epochs}'
    ```

    Args:
        reference: The image.
        options: The rest of the job.
        command: The words after --.
    """
    await _create(job_from_image(reference, _definition(options, command)), options)


@app.command(name="list")
async def list_(*, queue: QueueName = None, json: Json = False) -> None:
    """List the jobs that the server knows.

    ```
    prefect-launch job list
    ```

    Args:
        queue: Only of this queue.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Job, Queue

    await reach()
    if queue is not None:
        await Queue(queue).aload()
    jobs = [job for job in await Job.alist(warn=note) if queue is None or queue in job.queues]
    if json:
        print_json([_as_json(job) for job in jobs])
        return
    table(
        ("NAME", "VERSION", "QUEUES", "COMMAND"),
        [(job.name, job.spec.version, ", ".join(job.queues), shlex.join(job.spec.command or ())) for job in jobs],
        empty="There are no jobs yet. Submit a folder or an image, or define one with `prefect-launch job create`.",
    )


@app.command
async def show(name: str, /, *, queue: QueueName = None, dockerfile: bool = False, json: Json = False) -> None:
    """Show a job: what it runs, its inputs and what it needs.

    ```
    prefect-launch job show train
    prefect-launch job show train --dockerfile
    ```

    Args:
        name: The job.
        queue: As this queue has it, where it is on several; otherwise the newest.
        dockerfile: Print the Dockerfiles that its image is made by, and nothing else.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Job

    if dockerfile and json:
        raise InvalidInput("--dockerfile prints no JSON.", mend="Leave one of --dockerfile and --json out.")
    await reach()
    job = await Job.aget(name, queue=queue)
    if dockerfile:
        from launch_prefect.cli.dockerfiles import dockerfiles_of

        sys.stdout.write(await dockerfiles_of(job, queue))
        return
    if json:
        print_json(_as_json(job))
        return
    _show(job)


def _show(job: Job) -> None:
    spec = job.spec
    needs = spec.resources.model_dump(exclude_none=True)
    build = spec.build.model_dump(exclude_defaults=True)
    facts(
        [
            ("version", spec.version),
            *_source(spec.source),
            ("command", shlex.join(spec.command) if spec.command else "the image's own"),
            ("queues", ", ".join(job.queues)),
            ("job type", spec.job_type),
            ("time-out", f"{spec.timeout:g} s" if spec.timeout else None),
            ("resources", ", ".join(f"{key}: {value}" for key, value in needs.items())),
            ("environment", "\n".join(f"{key}={value}" for key, value in spec.env.items())),
            *((key.replace("_", " "), _listed(value)) for key, value in build.items()),
            ("description", spec.description),
        ],
        title=spec.name,
    )  # fmt: skip
    say("")
    if spec.config is None:
        say("Inputs: it declares none; a run may set any.")
    else:
        facts([(key, value_text(value)) for key, value in spec.config.items()], title="Inputs and their defaults")


def _source(source: Source) -> list[tuple[str, str | None]]:
    """What a job runs, as named values."""
    from launch_prefect.spec import CodeSource, GitSource

    if isinstance(source, CodeSource):
        return [("folder", source.code), ("digest", source.digest)]
    if isinstance(source, GitSource):
        changes = f"{source.patch}, since that commit" if source.patch else None
        return [
            ("repository", source.git),
            ("ref", source.ref or "the default branch"),
            ("commit", source.commit),
            ("folder", source.subdir),
            ("changes", changes),
            ("credentials", source.credentials),
        ]
    return [("image", source.image), ("digest", source.digest)]


def _listed(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} from {block}" for name, block in value.items())
    return ", ".join(value) if isinstance(value, tuple | list) else str(value)


@app.command
async def delete(name: str, /, *, yes: Yes = False, json: Json = False) -> None:
    """Remove a job from every queue. Refused while runs of it wait or are in progress. Ended runs stay.

    ```
    prefect-launch job delete train
    ```

    Args:
        name: The job.
        yes: Do not ask, and delete it also where its runs wait or are in progress: they are cancelled.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Job

    await reach()
    job = await Job.aget(name)
    if not yes:
        await job.arefuse_if_runs()  # rather than ask first
        confirm(f"Delete the job {name!r} from {', '.join(job.queues)}?")
    await job.adelete(cancel_runs=yes)
    if json:
        print_json({"deleted": name, "queues": job.queues})
    else:
        say(f"Deleted the job {name}.")


def _definition(options: JobOptions, words: tuple[str, ...], build: BuildOptions = NO_BUILD) -> Definition:
    from launch_prefect.spec import inputs

    return Definition(
        command=command_of(options.entrypoint, words),
        name=options.name,
        env=assignments(options.env or (), "--env"),
        config=inputs.parse_assignments(options.config_default, {}) if options.config_default else None,
        resources=resources_from(options.resource_config),
        timeout=options.timeout,
        job_type=options.job_type,
        description=options.description,
        build=build,
    )


async def _create(job: Job, options: JobOptions, *, yes: bool = False) -> None:
    from launch_prefect.client import Queue

    await reach()
    names = list(dict.fromkeys(options.queue or [await chosen_queue(None)]))
    for name in names:  # before anything is made: all or none
        await Queue(name).aload()

    async def create_all() -> None:
        for name in names:
            await job.acreate(name)

    await with_code(job, create_all, message=f"Creating {job.name}", yes=yes)
    job.queues = tuple(names)
    tell_left_out(job)
    if options.json:
        print_json(_as_json(job))
        return
    facts(code_facts(job), title=f"Created the job {job.name} ({job.spec.version}) on {', '.join(names)}.")
    say(f"Run it with `prefect-launch submit -q {names[0]} --job {job.name}`.")


def _as_json(job: Job) -> dict[str, Any]:
    spec = job.spec
    return {
        "name": spec.name,
        "version": spec.version,
        "queues": job.queues,
        "source": spec.source.model_dump(exclude_none=True),
        "command": spec.command,
        "env": spec.env,
        "config": spec.config,
        "resources": spec.resources.model_dump(exclude_none=True),
        "build": spec.build.model_dump(exclude_defaults=True),
        "timeout": spec.timeout,
        "job_type": spec.job_type,
        "description": spec.description,
    }
