"""States to the API: proposed until answered, and never twice."""

from types import SimpleNamespace
from uuid import UUID

import httpx
import pytest
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import (
    OrchestrationResult,
    SetStateStatus,
    StateAbortDetails,
    StateAcceptDetails,
    StateRejectDetails,
)
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling, Completed, Failed, Pending, Running
from tenacity import wait_none

from launch_prefect.workers import reporting
from launch_prefect.workers.reporting import Reporter, is_passing, until_answered

RUN = UUID(int=1)
REQUEST = httpx.Request("POST", "http://api/")


def answer(status):
    return PrefectHTTPStatusError(str(status), request=REQUEST, response=httpx.Response(status, request=REQUEST))


class Server:
    """A run on a server. `script` says what becomes of the next requests, of both kinds, in order.

    "before": the connection is lost before the state is set; "after": it is lost after; a number: that status; "abort"
    and "reject": the server's own decisions; None, and nothing more: the request is carried out.
    """

    def __init__(self, state=None, script=()):
        self.state = state or Pending()
        self.script = list(script)
        self.proposed = []
        self.reads = 0
        self.labels = {}
        self.deleted = False

    def _step(self):
        step = self.script.pop(0) if self.script else None
        if isinstance(step, int):
            raise answer(step)
        if step == "before":
            raise httpx.ConnectError("refused")
        if self.deleted:
            raise ObjectNotFound(http_exc=answer(404))
        return step

    async def set_flow_run_state(self, run_id, state, force=False):
        assert run_id == RUN
        assert not force
        self.proposed.append((state.type, state.name))
        step = self._step()
        if step == "abort":
            details = StateAbortDetails(reason="no")
            return OrchestrationResult(state=None, status=SetStateStatus.ABORT, details=details)
        if step == "reject":
            details = StateRejectDetails(reason="no")
            return OrchestrationResult(state=self.state, status=SetStateStatus.REJECT, details=details)
        self.state = state.model_copy()
        if step == "after":
            raise httpx.ReadTimeout("no answer")
        return OrchestrationResult(state=self.state, status=SetStateStatus.ACCEPT, details=StateAcceptDetails())

    async def read_flow_run(self, run_id):
        assert run_id == RUN
        self.reads += 1
        self._step()
        return SimpleNamespace(state=self.state)

    async def update_flow_run_labels(self, run_id, labels):
        step = self._step()
        self.labels |= labels
        if step == "after":
            raise httpx.ReadTimeout("no answer")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(reporting, "wait_exponential_jitter", lambda **_: wait_none())


async def propose(server, state):
    return await Reporter(server, RUN).propose(state)


async def test_a_state_is_proposed_once_and_returned():
    server = Server()
    state = await propose(server, Running(message="Runs."))
    assert state.is_running()
    assert state.message == "Runs."
    assert server.proposed == [(StateType.RUNNING, "Running")]
    assert server.reads == 0


@pytest.mark.parametrize("script", [["after"], ["after", 503, "before", None], [503, None, "after"]])
async def test_a_state_that_was_set_although_its_answer_was_lost_is_not_set_again(script):
    server = Server(script=script)
    state = await propose(server, Completed(message="Exit code 0."))
    assert state.is_completed()
    assert [kind for kind, _ in server.proposed].count(StateType.COMPLETED) == 1 + script.count(503) * (
        script[0] == 503
    )
    assert server.script == []


@pytest.mark.parametrize(
    "script", [["before"], ["before", None, "before"], [503, 503, None, 500, 429], ["before", "before"]]
)
async def test_a_state_that_was_not_set_is_proposed_again(script):
    server = Server(script=script)
    state = await propose(server, Failed(message="Exit code 1."))
    assert state.is_failed()
    assert server.state.message == "Exit code 1."
    assert len(server.proposed) >= 2


async def test_a_state_of_the_same_type_that_is_not_ours_is_no_answer():
    """A lost request is not taken for carried out because the run was Pending before it."""
    server = Server(Pending(name="Submitting", message="Taken by agent-1."), script=["before"])
    state = await propose(server, Pending(name="Building", message="agent-1 is building."))
    assert state.name == "Building"
    assert server.state.name == "Building"


async def test_a_rejection_gives_the_state_the_run_is_in():
    server = Server(Cancelling(), script=["reject"])
    state = await propose(server, Running())
    assert state.is_cancelling()
    assert len(server.proposed) == 1


async def test_an_abort_gives_the_state_the_run_is_in():
    server = Server(Cancelled(), script=["abort"])
    state = await propose(server, Running())
    assert state.is_cancelled()
    assert len(server.proposed) == 1


async def test_an_abort_whose_run_cannot_be_read_at_once_is_read_later():
    server = Server(Cancelled(), script=["abort", 503, None, "abort"])
    assert (await propose(server, Running())).is_cancelled()


async def test_a_deleted_run_has_no_state():
    server = Server()
    server.deleted = True
    assert await propose(server, Running()) is None
    assert len(server.proposed) == 1


async def test_a_run_deleted_while_in_doubt_has_no_state():
    server = Server(script=["before"])
    server.deleted = True
    assert await propose(server, Running()) is None


@pytest.mark.parametrize("status", [409, 422])
async def test_a_refusal_is_an_error_not_a_reason_to_try_for_ever(status):
    server = Server(script=[status])
    with pytest.raises(httpx.HTTPStatusError):
        await propose(server, Running())
    assert len(server.proposed) == 1


async def test_the_state_of_the_caller_is_not_changed():
    mine, server = Running(message="Runs."), Server()
    server.script = ["before"]
    before = (mine.id, mine.type, mine.name, mine.message)
    proposed = await propose(server, mine)
    assert proposed is not mine
    assert (mine.id, mine.type, mine.name, mine.message) == before


async def test_a_message_that_no_database_holds_does_not_keep_a_run_from_ending():
    server = Server(script=["after"])
    await propose(server, Failed(message="a\x00b \udcff"))
    assert server.state.message == "a\u2400b ?"
    assert len(server.proposed) == 1


@pytest.mark.parametrize("script", [[], [503, "before"], ["after"]])
async def test_labels_are_set_through_outages(script):
    server = Server(script=script)
    await Reporter(server, RUN).label({"launch.exit_code": 0})
    assert server.labels == {"launch.exit_code": 0}


@pytest.mark.parametrize("problem", [404, 422, "deleted"])
async def test_labels_that_cannot_be_set_keep_no_run_from_ending(problem):
    server = Server(script=[problem] if problem != "deleted" else [])
    server.deleted = problem == "deleted"
    await Reporter(server, RUN).label({"a": 1})
    assert server.labels == {}


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408, 401, 403])
def test_a_server_that_is_away_or_overloaded_or_lets_nobody_in_may_come_back(status):
    assert is_passing(answer(status))


@pytest.mark.parametrize(
    "error", [answer(400), answer(404), answer(409), answer(422), ValueError("x"), ObjectNotFound(http_exc=answer(404))]
)
def test_an_answer_is_final(error):
    assert not is_passing(error)


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError])
async def test_a_lost_connection_is_tried_again_until_there_is_an_answer(kind):
    tries = []

    async def call():
        tries.append(1)
        if len(tries) < 50:
            raise kind("lost")
        return "answer"

    assert await until_answered(call) == "answer"
    assert len(tries) == 50
