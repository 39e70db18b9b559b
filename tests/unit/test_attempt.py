"""One attempt: its environment (DESIGN 3.4), its words, its labels."""

import json
from uuid import UUID

import pytest

from launch_prefect import naming
from launch_prefect.errors import InvalidInput
from launch_prefect.settings import LaunchSettings
from launch_prefect.spec import CodeSource, ImageSource, Resources
from launch_prefect.workers.attempt import Attempt, environment_from, source_from, words_from
from launch_prefect.workers.process import ProcessLaunchJobConfiguration

RUN = UUID("0f0a2b3c-0000-4000-8000-000000000001")
SECRET = "s3cr${run_id}$et"


def attempt(**values):
    return Attempt(
        **{
            "run_id": RUN,
            "run_name": "brave-fox",
            "job": "train",
            "queue": "gpu",
            "number": 2,
            "agent": "agent-1",
            "author": "ada",
            "config": {"lr": 0.01, "model": {"depth": 3}},
            "source": ImageSource(image="busybox"),
            "command": ("python", "train.py", "${args}"),
            "env": {},
            "secrets": frozenset(),
            "resources": Resources(),
            "timeout": None,
            "stop_grace": 10,
        }
        | values
    )


def test_a_job_finds_everything_of_its_run_in_its_environment():
    environment = attempt().environment("/out")
    assert json.loads(environment.pop("LAUNCH_CONFIG")) == {"lr": 0.01, "model": {"depth": 3}}
    assert environment == {
        "LAUNCH_RUN_ID": str(RUN),
        "LAUNCH_RUN_NAME": "brave-fox",
        "LAUNCH_JOB": "train",
        "LAUNCH_QUEUE": "gpu",
        "LAUNCH_ATTEMPT": "2",
        "LAUNCH_OUTPUT_DIR": "/out",
    }


def test_nothing_of_the_agent_s_environment_is_in_it(monkeypatch):
    monkeypatch.setenv("AGENT_TOKEN", "hidden")
    monkeypatch.setenv("PREFECT_API_KEY", "hidden")
    made = attempt(env=environment_from(ProcessLaunchJobConfiguration(env={"A": "1"}))).environment("/out")
    assert "hidden" not in str(made)
    assert {name for name in made if not name.startswith("LAUNCH_")} == {"A"}


def test_what_the_operator_listed_is_and_the_job_s_own_wins(monkeypatch):
    monkeypatch.setenv("LISTED", "agent")
    monkeypatch.setenv("BOTH", "agent")
    monkeypatch.delenv("ABSENT", raising=False)
    configuration = ProcessLaunchJobConfiguration(
        pass_env=["LISTED", "BOTH", "ABSENT"], env={"BOTH": "job", "NONE": None}
    )
    assert environment_from(configuration) == {"LISTED": "agent", "BOTH": "job"}


@pytest.mark.parametrize("value", ["${run_id}", "a ${b} $${c} ${", "$HOME", "$$${x}"])
def test_a_listed_variable_reaches_the_job_as_it_is(monkeypatch, value):
    monkeypatch.setenv("LISTED", value)
    env = environment_from(ProcessLaunchJobConfiguration(pass_env=["LISTED"]))
    assert attempt(env=env).environment("/out")["LISTED"] == value


def test_macros_are_filled_in_the_job_s_own_variables():
    env = {
        "ALL": "${run_id} ${run_name} ${job_name} ${queue_name} ${image_uri} ${author}",
        "CONFIG": "${config.lr} ${config.model.depth} ${config.model}",
        "SHELL": "$HOME $${x}",
    }
    made = attempt(env=env).environment("/out", image="sha256:1")
    assert made["ALL"] == f"{RUN} brave-fox train gpu sha256:1 ada"
    assert made["CONFIG"] == '0.01 3 {"depth":3}'
    assert made["SHELL"] == "$HOME ${x}"


def test_a_secret_is_given_as_it_is():
    made = attempt(env={"TOKEN": SECRET, "OTHER": "${run_name}"}, secrets=frozenset({SECRET})).environment("/out")
    assert made["TOKEN"] == SECRET
    assert made["OTHER"] == "brave-fox"


def test_a_macro_without_a_value_is_refused_with_its_mend():
    with pytest.raises(InvalidInput, match="--set"):
        attempt(env={"A": "${config.absent}"}).environment("/out")
    with pytest.raises(InvalidInput, match="--set"):
        attempt(command=("echo", "${config.absent}")).words()


def test_words_have_their_macros_filled():
    found = attempt(command=("run", "${args}", "--as=${run_name}", "${image_uri}", "${config.lr}")).words("sha256:1")
    assert found == ["run", "--lr", "0.01", "--model", '{"depth":3}', "--as=brave-fox", "sha256:1", "0.01"]


def test_without_a_command_the_image_s_own_is_meant():
    assert attempt(command=None).words() is None


def test_labels_lead_from_what_runs_to_its_run():
    assert attempt().labels == {
        naming.LABEL: naming.LABEL_VERSION,
        naming.LABEL_RUN_ID: str(RUN),
        naming.LABEL_ATTEMPT: "2",
        naming.LABEL_AGENT: "agent-1",
        naming.LABEL_JOB: "train",
        naming.LABEL_QUEUE: "gpu",
    }


def test_no_secret_is_in_a_label_or_a_word_or_the_config():
    made = attempt(env={"TOKEN": SECRET, "SAME": SECRET}, secrets=frozenset({SECRET}))
    assert SECRET not in str(made.labels)
    assert SECRET not in str(made.words())
    assert SECRET not in str({k: v for k, v in made.environment("/out").items() if k not in ("TOKEN", "SAME")})


def test_each_attempt_has_its_own_folder_and_a_run_has_one_for_its_outputs(tmp_path):
    settings = LaunchSettings(home=tmp_path)
    one, two = attempt(number=1), attempt(number=2)
    assert one.folder(settings) != two.folder(settings)
    assert one.output_folder(settings) == two.output_folder(settings)
    assert not one.output_folder(settings).is_relative_to(one.folder(settings))  # kept when that is removed
    other = attempt(run_id=UUID(int=1))
    assert other.output_folder(settings) != one.output_folder(settings)


def test_a_source_is_read_from_job_variables():
    digest = "sha256:" + "a" * 64
    assert source_from({"image": "busybox:1"}) == ImageSource(image="busybox:1")
    assert source_from({"code": "train", "digest": digest}) == CodeSource(code="train", digest=digest)


@pytest.mark.parametrize("value", [None, {}, {"folder": "x"}, {"image": "A B"}, {"code": "x", "digest": "1"}, "x"])
def test_another_source_is_refused_with_the_mend(value):
    with pytest.raises(InvalidInput, match="Submit the job again"):
        source_from(value)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("python train.py", ("python", "train.py")),
        ("sh -c 'a b; c'", ("sh", "-c", "a b; c")),
        ("echo '' \"x y\"", ("echo", "", "x y")),
        ("", None),
        (None, None),
    ],
)
def test_a_command_is_split_as_a_shell_does(command, words):
    assert words_from(command) == words


def test_a_command_that_cannot_be_split_is_refused():
    with pytest.raises(InvalidInput, match="quotation"):
        words_from("echo 'open")
