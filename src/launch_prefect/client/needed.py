"""Which code somebody may still want: house-keeping leaves alone what is made of it."""

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
from pydantic import ValidationError

from launch_prefect import naming
from launch_prefect.client.deployments import find
from launch_prefect.errors import InvalidInput
from launch_prefect.sources.git import code_key
from launch_prefect.spec import GitSource

_PAGE = 200
_OVERLAP = 50  # of two pages: as many runs may end between them without another one being passed over
_NOT_FINAL = [state for state in StateType if state not in TERMINAL_STATES]


async def needed_code(client: PrefectClient) -> frozenset[str]:
    """The code that jobs, and runs that have not ended, name.

    Args:
        client: The API.

    Returns:
        `sha256:…` each: digests of snapshots, of folders and of changes to commits, and the keys of git sources.
    """
    needed = {code for deployment in await find(client) for code in named_by(deployment.job_variables)}
    offset = 0
    while True:
        page = await _runs(client, offset)
        needed.update(code for run in page for code in named_by(run.job_variables))
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


def named_by(variables: Mapping[str, Any] | None) -> set[str]:
    """The code that the variables of a job or a run name; see `needed_code`."""
    source = (variables or {}).get("source")
    if not isinstance(source, Mapping) or "image" in source:
        return set()
    named = {str(source[name]) for name in ("digest", "patch") if source.get(name)}
    if "git" not in source:
        return named
    try:
        pinned = GitSource.model_validate(source)
        # Agents of this machine may have been started with and without git-lfs.
        return named | {code_key(pinned), code_key(pinned, large_files=False)}
    except (ValidationError, InvalidInput):  # it is not pinned, or no run can use it
        return named
