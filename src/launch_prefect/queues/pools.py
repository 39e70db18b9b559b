"""A queue as a Prefect work pool, both ways."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import httpx
from jsonschema import Draft202012Validator
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.workers.base import BaseWorker

from launch_prefect import naming
from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.spec import BuilderSpec, QueueSpec, Resources, blocks, macros
from launch_prefect.spec.base import nearest

# What a queue's resource configuration cannot say, and where it is said instead
_ELSEWHERE = {
    "builder": "write it beside resource_config, as builder.",
    "build": "a job says how its image is made; write `builder` for what holds for the queue.",
    "source": "a job says what it runs.",
    "git_credentials": "a job's git source names its credentials.",
    "rebuild": "a run asks for it when it is submitted.",
}


def template_for(spec: QueueSpec) -> dict[str, Any]:
    """The base job template of a queue: its target's, with the queue's configuration and builder as defaults.

    Args:
        spec: The queue.

    Returns:
        The template, as `prefect work-pool create` makes it from the worker's class.

    Raises:
        InvalidInput: The resource configuration names a variable the target has not, or a value that does not fit.
    """
    template = _template_of(spec.target)
    properties = template["variables"]["properties"]
    for name, value in spec.resource_config.items():
        if name in _ELSEWHERE:
            raise InvalidInput(f"resource_config.{name}: {_ELSEWHERE[name]}")
        if name not in properties:
            close = nearest(name, properties)
            hint = f"did you mean {close!r}?" if close else f"known are: {', '.join(sorted(properties))}."
            raise InvalidInput(f"resource_config.{name}: target {spec.target} has no such job variable; {hint}")
        _check_variable(name, value, template["variables"])
        properties[name]["default"] = value
    _put_builder(template, spec.builder)
    return template


def _template_of(target: str) -> dict[str, Any]:
    worker = BaseWorker.get_worker_class_from_type(naming.pool_type(target))
    if worker is None:
        raise InvalidInput(f"The target {target!r} is not installed.", mend=f"pip install 'launch-prefect[{target}]'.")
    return copy.deepcopy(worker.get_default_base_job_template())


def _put_builder(template: dict[str, Any], builder: BuilderSpec) -> None:
    said = builder.model_dump(mode="json", exclude_none=True)
    if builder.registry_credentials is not None:
        said["registry_credentials"] = blocks.template(builder.registry_credentials)
    said["secrets"] = {name: blocks.template(block) for name, block in builder.secrets.items()}
    template["variables"]["properties"]["builder"]["default"] = said


def builder_of(pool: WorkPool) -> BuilderSpec:
    """Who builds a queue's images, as its template says.

    Raises:
        InvalidInput: Somebody has changed it in Prefect to what cannot be read.
    """
    return BuilderSpec.parse(_defaults(pool).get("builder") or {}, what=f"The builder of the queue {pool.name!r}")


def registry_credentials_of(pool: WorkPool) -> str | None:
    """The block with a queue's credentials of registries, as `TYPE/NAME`; None where none can be read."""
    try:
        return builder_of(pool).registry_credentials
    except InvalidInput:  # each of its runs says so
        return None


def base_image_of(pool: WorkPool) -> str | None:
    """Base image of generated Dockerfiles that a queue names, as its builder's or in its resource configuration."""
    said = _defaults(pool).get("base_image")
    return builder_of(pool).base_image or (said if isinstance(said, str) else None)


def _defaults(pool: WorkPool) -> dict[str, Any]:
    """The values that a queue's template gives to job variables; whatever somebody has made of it in Prefect."""
    variables = pool.base_job_template.get("variables")
    properties = variables.get("properties") if isinstance(variables, dict) else None
    schemas = properties if isinstance(properties, dict) else {}
    known = {name: schema for name, schema in schemas.items() if isinstance(schema, dict)}
    return {name: schema["default"] for name, schema in known.items() if "default" in schema}


def _updated(pool: WorkPool, spec: QueueSpec) -> dict[str, Any]:
    """The template of an existing queue, with what a queue file says; what it leaves out stays."""
    fresh = template_for(spec)
    if spec.resource_config:
        template = fresh
    else:
        template = copy.deepcopy(pool.base_job_template)
        complete(template, fresh)
    _put_builder(template, spec.builder if "builder" in spec.model_fields_set else builder_of(pool))
    return template


def complete(template: dict[str, Any], fresh: Mapping[str, Any], *, only: Collection[str] | None = None) -> None:
    """Add the variables that a queue lacks because an older version of ours has made it.

    Args:
        template: The queue's template; it is changed.
        fresh: The template that its target has now.
        only: Names that may be added; None for all.
    """
    variables, known = template.setdefault("variables", {}), fresh["variables"]
    missing = known["properties"].keys() - variables.setdefault("properties", {}).keys()
    missing = missing if only is None else missing.intersection(only)
    for name in missing:
        variables["properties"][name] = known["properties"][name]
        if name in fresh["job_configuration"]:
            template.setdefault("job_configuration", {})[name] = fresh["job_configuration"][name]
    if missing:
        variables["$defs"] = {**known.get("$defs", {}), **variables.get("$defs", {})}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


def _check_variable(name: str, value: Any, variables: Mapping[str, Any]) -> None:
    if name == "resources":
        Resources.parse(value, what="resource_config.resources")
    schema = {**variables["properties"][name], "$defs": variables.get("$defs", {})}
    for error in Draft202012Validator(schema).iter_errors(value):
        where = ".".join(["resource_config", name, *map(str, error.absolute_path)])
        raise InvalidInput(f"{where}: {error.message}.")
    of_run = name in ("command", "env")  # these may name the run's config; the rest is the same for every run
    macros.check(list(_texts(value)), None if of_run else (), where=f"resource_config.{name}", args=of_run)


async def create(client: PrefectClient, spec: QueueSpec) -> WorkPool:
    """Make a queue.

    Raises:
        InvalidInput: One of that name exists, or the resource configuration does not fit.
    """
    template = template_for(spec)
    try:
        return await client.create_work_pool(
            WorkPoolCreate(
                name=spec.queue_name,
                type=naming.pool_type(spec.target),
                description=spec.description or None,
                base_job_template=template,
                concurrency_limit=spec.concurrency,
            )
        )
    except ObjectAlreadyExists:
        raise InvalidInput(
            f"A queue {spec.queue_name!r} exists already.", mend=f"Look at it with `queue show {spec.queue_name}`."
        ) from None
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (403, 422):
            raise InvalidInput(f"The server refuses the queue {spec.queue_name!r}: {error.response.text}.") from None
        raise


async def ensure(client: PrefectClient, spec: QueueSpec) -> WorkPool:
    """Make a queue, or bring the existing one to what `spec` says.

    Raises:
        InvalidInput: The existing one is of another target.
    """
    try:
        pool = await read(client, spec.queue_name)
    except NotFound:
        return await create(client, spec)
    target = naming.target_of(pool.type)
    if target != spec.target:
        raise InvalidInput(
            f"The queue {spec.queue_name!r} exists with target {target}, not {spec.target}.",
            mend="Take another name, or delete it first.",
        )
    wanted = WorkPoolUpdate(
        description=spec.description or pool.description,
        base_job_template=_updated(pool, spec),
        concurrency_limit=spec.concurrency if spec.concurrency is not None else pool.concurrency_limit,
    )
    same = (
        wanted.description == pool.description
        and wanted.base_job_template == pool.base_job_template
        and wanted.concurrency_limit == pool.concurrency_limit
    )
    if not same:
        await client.update_work_pool(spec.queue_name, wanted)
    return await read(client, spec.queue_name)


async def read(client: PrefectClient, name: str) -> WorkPool:
    """A queue's work pool.

    Raises:
        NotFound: There is none, or it is no queue of ours; the names of those there are stand in the message.
    """
    try:
        pool = await client.read_work_pool(name)
    except ObjectNotFound:
        pool = None
    if pool is not None and naming.target_of(pool.type) is not None:
        return pool
    names = sorted(other.name for other in await read_all(client))
    if pool is not None:
        raise NotFound(f"The work pool {name!r} is of type {pool.type!r}, not one of {naming.TYPE_PREFIX}….")
    close = nearest(name, names)
    there = f"Did you mean {close!r}?" if close else f"There are: {', '.join(names) or 'none yet'}."
    raise NotFound(
        f"There is no queue {name!r}. {there}",
        mend=f"Make it with `prefect-launch queue create {name} --target docker`.",
    )


async def read_all(client: PrefectClient) -> list[WorkPool]:
    """The work pools that are queues of ours, by name."""
    pools: list[WorkPool] = []
    while page := await client.read_work_pools(limit=200, offset=len(pools)):
        pools += page
        if len(page) < 200:
            break
    return sorted((pool for pool in pools if naming.target_of(pool.type) is not None), key=lambda pool: pool.name)
