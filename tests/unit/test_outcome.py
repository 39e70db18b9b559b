"""The final state of a run: the right type, and a message with the cause and the mend."""

import pytest
from prefect.client.schemas.objects import StateType

from launch_prefect import errors
from launch_prefect.errors import LaunchError
from launch_prefect.workers.outcome import MESSAGE_LIMIT, Stopped, of_error, of_exit, of_stop
from launch_prefect.workers.running import Exit

LINES = ("epoch 1", "", "loss nan")


def test_zero_is_completed():
    state = of_exit(Exit(0), LINES)
    assert state.is_completed()
    assert state.message == "Exit code 0."


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (1, StateType.FAILED, ["Exit code 1."]),
        (3, StateType.FAILED, ["Exit code 3."]),
        (126, StateType.FAILED, ["Exit code 126.", "not executable"]),
        (127, StateType.FAILED, ["Exit code 127.", "not found"]),
        (128, StateType.FAILED, ["Exit code 128."]),
        (129, StateType.CRASHED, ["SIGHUP", "129"]),
        (134, StateType.CRASHED, ["SIGABRT", "134", "assertion"]),
        (137, StateType.CRASHED, ["SIGKILL", "137", "memory"]),
        (139, StateType.CRASHED, ["SIGSEGV", "139", "native code"]),
        (143, StateType.CRASHED, ["SIGTERM", "143", "outside"]),
        (255, StateType.FAILED, ["Exit code 255."]),
    ],
)
def test_every_other_end_names_its_cause_and_the_last_lines(code, kind, words):
    state = of_exit(Exit(code), LINES)
    assert state.type is kind
    for word in [*words, "Last lines:\nepoch 1\nloss nan"]:
        assert word in state.message


def test_every_code_has_an_end_and_only_zero_is_completed():
    for code in range(256):
        state = of_exit(Exit(code), ())
        assert state.is_completed() == (code == 0)
        assert state.is_final()
        assert str(code) in state.message
        assert state.message == state.message.strip()


@pytest.mark.parametrize("code", [137, 1, 0])
def test_out_of_memory_says_so_with_the_limit_and_the_mend(code):
    state = of_exit(Exit(code, out_of_memory=True), LINES, memory="8Gi")
    assert state.is_crashed()
    assert "Out of memory" in state.message
    assert "8Gi" in state.message
    assert "resources.memory" in state.message
    assert "loss nan" in state.message
    assert "None" not in of_exit(Exit(137, out_of_memory=True), ()).message


def test_without_output_no_last_lines_are_promised():
    assert of_exit(Exit(1), ()).message == "Exit code 1."
    assert of_exit(Exit(1), ("", "  ")).message == "Exit code 1."


def test_long_lines_keep_the_message_short_and_each_line_shows():
    lines = [f"{number} " + "x" * 100_000 for number in range(9)]
    message = of_exit(Exit(1), lines).message
    assert len(message) <= MESSAGE_LIMIT
    for number in range(4, 9):
        assert f"\n{number} x" in message


@pytest.mark.parametrize(
    ("code", "number"), [(0, None), (1, None), (128, None), (129, 1), (137, 9), (192, 64), (255, None)]
)
def test_a_signal_is_read_from_the_exit_code(code, number):
    assert Exit(code).signal == number


def test_stops_end_as_what_was_asked():
    cancelled = of_stop(Stopped.CANCELLED, exit_code=143)
    assert cancelled.is_cancelled()
    assert cancelled.message == "Cancelled on request. It ended with exit code 143."
    assert of_stop(Stopped.CANCELLED, started=False).message == "Cancelled on request. It had not started."

    late = of_stop(Stopped.TIMED_OUT, timeout=1.5)
    assert late.is_failed()
    assert late.name == "TimedOut"
    assert "1.5 s" in late.message
    assert "Raise `timeout`" in late.message

    left = of_stop(Stopped.AGENT)
    assert left.is_cancelled()
    assert "agent was stopped" in left.message
    assert of_stop(Stopped.AGENT, started=False).is_scheduled(), "it goes back into its queue"


FAILED = (
    errors.InvalidInput,
    errors.NotFound,
    errors.RunFailed,
    errors.BuildFailed,
    errors.ImageMissing,
    errors.RegistryRefused,
    errors.StartFailed,
)
CRASHED = (errors.LaunchError, errors.Unreachable, errors.InfrastructureLost, errors.DiskFull)


@pytest.mark.parametrize(
    ("error", "kind"),
    [*((kind, StateType.FAILED) for kind in FAILED), *((kind, StateType.CRASHED) for kind in CRASHED)],
)
def test_what_the_job_is_at_fault_for_failed_and_what_the_infrastructure_is_crashed(error, kind):
    state = of_error(error("The cause.", mend="The mend."))
    assert state.type is kind
    assert state.message == "The cause. The mend."


def test_every_error_of_the_family_is_mapped():
    def family(kind):
        return {kind, *(grandchild for child in kind.__subclasses__() for grandchild in family(child))}

    ours = {kind for kind in family(LaunchError) if kind.__module__ == errors.__name__}
    assert ours == {*FAILED, *CRASHED}


def test_a_long_cause_does_not_push_the_mend_out_of_the_message():
    state = of_error(
        errors.BuildFailed("It stopped at pip install:\n" + "x" * 10_000 + "\n", mend="Correct requirements.txt.")
    )
    assert len(state.message) <= MESSAGE_LIMIT
    assert state.message.startswith("It stopped at pip install:")
    assert state.message.endswith("Correct requirements.txt.")
