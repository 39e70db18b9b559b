"""A job as a Prefect deployment `JOB/QUEUE`, both ways."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterId,
    FlowFilterName,
    WorkPoolFilter,
    WorkPoolFilterName,
    WorkPoolFilterType,
)
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort, FlowSort
from prefect.utilities.collections import batched_iterable

from launch_prefect import naming
from launch_prefect.errors import InvalidInput
from launch_prefect.spec import GitSource, JobSpec
from launch_prefect.spec.blocks import template

LABEL_JOB_TYPE = "launch_prefect.job-type"
_PAGE = 200


def job_variables(spec: JobSpec) -> dict[str, Any]:
    """What a deployment, and each run of it, carries of a job; nothing here is secret.

    Prefect puts the values of blocks in where it finds their templates: nowhere in `source`, which is shown to all.
    """
    variables: dict[str, Any] = {"source": spec.source.model_dump(exclude_none=True)}
    if isinstance(spec.source, GitSource) and spec.source.credentials:
        variables["git_credentials"] = template(spec.source.credentials)
    if build := spec.build.model_dump(mode="json", exclude_defaults=True):
        variables["build"] = with_templates(build)
    if spec.command is not None:
        variables["command"] = shlex.join(spec.command)
    if spec.env:
        variables["env"] = dict(spec.env)
    if resources := spec.resources.model_dump(exclude_none=True):
        variables["resources"] = resources
    if spec.timeout is not None:
        variables["timeout"] = spec.timeout
    variables["labels"] = {LABEL_JOB_TYPE: spec.job_type}
    return variables


def with_templates(build: Mapping[str, Any]) -> dict[str, Any]:
    """A job's `build` with Prefect's templates in place of the names of its secrets' blocks."""
    secrets = build.get("secrets", {})
    return {**build, **({"secrets": {name: template(block) for name, block in secrets.items()}} if secrets else {})}


def spec_from(deployment: DeploymentResponse, job: str) -> JobSpec:
    """The job that a deployment of ours holds.

    Args:
        deployment: The deployment.
        job: Its flow's name.

    Raises:
        InvalidInput: It was not made from a job.
    """
    variables = deployment.job_variables or {}
    if not is_command_job(deployment):
        raise InvalidInput(
            f"{job}/{deployment.name} is a Prefect flow, not a command job.",
            mend="Run it with `prefect deployment run`.",
        )
    schema: Mapping[str, Any] = deployment.parameter_openapi_schema or {}
    declared = schema.get("additionalProperties") is False
    return JobSpec.parse(
        {
            "name": job,
            "source": variables["source"],
            "command": shlex.split(variables["command"]) if variables.get("command") else None,
            "env": variables.get("env") or {},
            "config": deployment.parameters if declared else None,
            "resources": variables.get("resources") or {},
            "build": variables.get("build") or {},
            "timeout": variables.get("timeout"),
            "job_type": (variables.get("labels") or {}).get(LABEL_JOB_TYPE, "default"),
            "description": deployment.description or "",
        },
        what=f"the deployment {job}/{deployment.name}",
    )


def is_command_job(deployment: DeploymentResponse) -> bool:
    """Whether a deployment is a job of ours that the worker drives from outside."""
    return deployment.entrypoint is None and "source" in (deployment.job_variables or {})


async def deploy(client: PrefectClient, spec: JobSpec, queue: str) -> UUID:
    """Make or bring up to date the deployment of a job on a queue.

    Args:
        client: The API.
        spec: The job, pinned.
        queue: Name of an existing queue.

    Returns:
        The deployment's id.
    """
    known = [d for d in await find(client, job=spec.name, queue=queue) if d.name == queue]
    if known and not is_command_job(known[0]):
        raise InvalidInput(f"{spec.name}/{queue} is a Prefect flow's deployment.", mend="Give the job another name.")
    if known and _is_same(known[0], spec):
        return known[0].id
    flow = await client.create_flow_from_name(spec.name)
    return await client.create_deployment(
        flow_id=flow,
        name=queue,
        version=spec.version,
        work_pool_name=queue,
        description=spec.description,  # Prefect stores None as the text "None"
        parameters=dict(spec.config or {}),
        parameter_openapi_schema=spec.input_schema,
        enforce_parameter_schema=True,
        job_variables=job_variables(spec),
        pull_steps=[],
    )


def _is_same(deployment: DeploymentResponse, spec: JobSpec) -> bool:
    return (
        deployment.version == spec.version
        and deployment.job_variables == job_variables(spec)
        and deployment.parameters == dict(spec.config or {})
        and deployment.parameter_openapi_schema == spec.input_schema
        and (deployment.description or "") == spec.description
    )


async def find(client: PrefectClient, *, job: str | None = None, queue: str | None = None) -> list[DeploymentResponse]:
    """Deployments on queues of ours, of one job or of one queue or of all; newest first."""
    ours = [naming.pool_type(target) for target in naming.TARGETS]
    pools = WorkPoolFilter(type=WorkPoolFilterType(any_=ours), name=WorkPoolFilterName(any_=[queue]) if queue else None)
    flows = FlowFilter(name=FlowFilterName(any_=[job])) if job else None
    found: list[DeploymentResponse] = []
    while True:
        page = await client.read_deployments(
            flow_filter=flows,
            work_pool_filter=pools,
            limit=_PAGE,
            offset=len(found),
            sort=DeploymentSort.UPDATED_DESC,
        )
        found += page
        if len(page) < _PAGE:
            return found


async def flow_names(client: PrefectClient, ids: set[UUID]) -> dict[UUID, str]:
    """Names of flows by id."""
    names: dict[UUID, str] = {}
    for some in batched_iterable(ids, 200):
        wanted = FlowFilter(id=FlowFilterId(any_=list(some)))
        flows = await client.read_flows(flow_filter=wanted, limit=200, sort=FlowSort.NAME_ASC)
        names |= {flow.id: flow.name for flow in flows}
    return names
