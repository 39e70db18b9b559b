"""What is deleted does not take its runs along unseen: they are a reason to refuse, or are cancelled first."""

from __future__ import annotations

from contextlib import suppress
from typing import TypedDict

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Cancelling

from launch_prefect.errors import InvalidInput

_WAITING = (StateType.SCHEDULED,)
_IN_PROGRESS = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
_TO_CANCEL = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)


class Whose(TypedDict, total=False):
    """Whose runs are meant: a queue's or a job's."""

    work_pool_filter: WorkPoolFilter
    deployment_filter: DeploymentFilter


async def counts(client: PrefectClient, whose: Whose) -> tuple[int, int]:
    """How many runs wait, and how many are in progress."""
    waiting = await client.count_flow_runs(**whose, flow_run_filter=_in(_WAITING))
    return waiting, await client.count_flow_runs(**whose, flow_run_filter=_in(_IN_PROGRESS))


async def refuse_if_any(client: PrefectClient, whose: Whose, *, what: str, delete: str) -> None:
    """Refuse to delete what still has runs.

    Args:
        client: The API.
        whose: Whose runs.
        what: What is to be deleted, such as `The queue 'gpu'`.
        delete: The command that deletes it.

    Raises:
        InvalidInput: Runs wait or are in progress.
    """
    waiting, busy = await counts(client, whose)
    if waiting or busy:
        raise InvalidInput(
            f"{what} still has runs: {waiting} waiting, {busy} in progress.",
            mend=f"Wait for them, or cancel them with it: `{delete} --yes` (in Python: cancel_runs=True).",
        )


async def cancel_all(client: PrefectClient, whose: Whose, message: str) -> None:
    """End the runs that wait, and ask the agents to stop the others; it is not waited for their end.

    Args:
        client: The API.
        whose: Whose runs.
        message: Why, as their state says.
    """
    while runs := await client.read_flow_runs(**whose, flow_run_filter=_in(_TO_CANCEL), limit=200):
        for run in runs:
            waits = run.state is not None and run.state.is_scheduled()
            with suppress(ObjectNotFound):  # deleted meanwhile
                await client.set_flow_run_state(
                    run.id, (Cancelled if waits else Cancelling)(message=message), force=True
                )


def _in(types: tuple[StateType, ...]) -> FlowRunFilter:
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[*types])))
