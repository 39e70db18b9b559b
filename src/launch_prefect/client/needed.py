"""Which snapshots of code somebody may still want: house-keeping leaves them alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort

from launch_prefect import naming
from launch_prefect.client.deployments import find

_PAGE = 200
_OVERLAP = 50  # of two pages: as many runs may end between them without another one being passed over
_NOT_FINAL = [state for state in StateType if state not in TERMINAL_STATES]


async def needed_code(client: PrefectClient) -> frozenset[str]:
    """Digests of the snapshots that jobs, and runs that have not ended, name: of folders, and of changes to commits.

    Args:
        client: The API.

    Returns:
        `sha256:…` each.
    """
    needed = {digest for deployment in await find(client) for digest in _digests(deployment.job_variables)}
    offset = 0
    while True:
        page = await _runs(client, offset)
        needed.update(digest for run in page for digest in _digests(run.job_variables))
        if len(page) < _PAGE:
            return frozenset(needed)
        offset += _PAGE - _OVERLAP


async def _runs(client: PrefectClient, offset: int) -> list[FlowRun]:
    ours = [naming.pool_type(target) for target in naming.TARGETS]
    return await client.read_flow_runs(
        work_pool_filter=WorkPoolFilter(type=WorkPoolFilterType(any_=ours)),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=_NOT_FINAL))),
        sort=FlowRunSort.ID_DESC,
        limit=_PAGE,
        offset=offset,
    )


def _digests(variables: Mapping[str, Any] | None) -> set[str]:
    source = (variables or {}).get("source")
    if not isinstance(source, Mapping):
        return set()
    return {str(source[name]) for name in ("digest", "patch") if source.get(name) and "image" not in source}
