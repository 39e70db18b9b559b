"""Deployments and jobs' names that a worker has read, so that taking a run mostly asks for nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowFilter, FlowFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import DeploymentSort, FlowSort


class Known:
    """What runs belong to.

    Args:
        client: Gives the API.
    """

    def __init__(self, client: Callable[[], PrefectClient]) -> None:
        self._client = client
        self._jobs: dict[UUID, str] = {}
        self._deployments: dict[UUID, DeploymentResponse] = {}

    def job(self, run: FlowRun) -> str:
        """Name of a run's job, once its deployment has been asked for."""
        return self._jobs.get(run.flow_id, str(run.flow_id))

    async def deployments(self, runs: Sequence[FlowRun]) -> dict[UUID, DeploymentResponse]:
        """All deployments and flow names of a poll in at most two requests, and mostly none.

        A run that we submitted carries its own copy of what its job said, so for it an older reading of the deployment
        does, and even one that has been deleted since.

        Args:
            runs: The runs.

        Returns:
            Their deployments by id.
        """
        if unnamed := {run.flow_id for run in runs} - self._jobs.keys():
            flows = await self._client().read_flows(
                flow_filter=FlowFilter(id=FlowFilterId(any_=list(unnamed))), sort=FlowSort.NAME_ASC
            )
            self._jobs |= {flow.id: flow.name for flow in flows}
        pinned = {run.deployment_id for run in runs if "source" in (run.job_variables or {})}
        bare = {run.deployment_id for run in runs if "source" not in (run.job_variables or {})}
        wanted = [i for i in (pinned - self._deployments.keys()) | bare if i is not None]
        if wanted:
            found = await self._client().read_deployments(
                deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=wanted)),
                sort=DeploymentSort.UPDATED_DESC,
            )
            self._deployments |= {deployment.id: deployment for deployment in found}
        return {i: self._deployments[i] for i in pinned | bare if i in self._deployments}
