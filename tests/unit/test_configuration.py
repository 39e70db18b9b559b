"""Job variables: queue's defaults < job < run, mappings merged deeply, lists replaced; which variables are secret."""

import copy
from unittest.mock import MagicMock

import pytest

from launch_prefect.errors import InvalidInput
from launch_prefect.queues.pools import template_for
from launch_prefect.spec import QueueSpec
from launch_prefect.workers.configuration import LaunchJobConfiguration, run_variables, secret_names, with_macros
from launch_prefect.workers.docker import DockerLaunchJobConfiguration
from launch_prefect.workers.process import ProcessLaunchJobConfiguration, ProcessLaunchWorker
from launch_prefect.workers.resolve import with_ours

NO_CLIENT = MagicMock(name="nothing here asks the server")
BLOCK = "{{ prefect.blocks.secret.api-key }}"


def template(target="docker", **resource_config):
    return template_for(QueueSpec(queue_name="q", target=target, resource_config=resource_config))


async def resolved(queue, job=None, run=None, kind=DockerLaunchJobConfiguration):
    return await kind.from_template_and_values(queue, run_variables(job, run), client=NO_CLIENT)


async def test_queue_job_and_run_merge_deeply_and_the_later_wins():
    configuration = await resolved(
        template(resources={"cpu": 1, "gpu": 1, "memory": "1Gi"}, env={"A": "queue", "B": "queue", "C": "queue"}),
        {"resources": {"memory": "2Gi", "cpu": 2}, "env": {"B": "job", "C": "job", "D": "job"}},
        {"resources": {"memory": "3Gi"}, "env": {"C": "run", "E": "run"}},
    )
    assert configuration.resources.model_dump() == {"cpu": 2, "gpu": 1, "memory": "3Gi"}
    assert configuration.env == {"A": "queue", "B": "job", "C": "run", "D": "job", "E": "run"}


async def test_labels_and_whatever_else_is_a_mapping_merge_too():
    configuration = await resolved(
        template(labels={"team": "a", "tier": "queue"}, container_create_kwargs={"ulimits": {"a": 1}, "x": {"y": 1}}),
        {"labels": {"tier": "job"}},
        {"container_create_kwargs": {"x": {"z": 2}}},
    )
    assert configuration.labels == {"team": "a", "tier": "job"}
    assert configuration.container_create_kwargs == {"ulimits": {"a": 1}, "x": {"y": 1, "z": 2}}


async def test_lists_replace():
    queue = template(volumes=["/queue:/q"], networks=["a", "b"])
    configuration = await resolved(queue, {"volumes": ["/job:/j"]}, {"networks": []})
    assert configuration.volumes == ["/job:/j"]
    assert configuration.networks == []
    assert run_variables({"volumes": ["a", "b"]}, {"volumes": ["c"]}) == {"volumes": ["c"]}


async def test_single_values_replace_and_a_queue_s_default_holds_where_nothing_is_said():
    queue = template(timeout=10, stop_grace=3)
    assert (await resolved(queue)).timeout == 10
    assert (await resolved(queue, {"timeout": 20})).timeout == 20
    configuration = await resolved(queue, {"timeout": 20}, {"timeout": 30})
    assert (configuration.timeout, configuration.stop_grace) == (30, 3)


async def test_without_any_word_of_it_nothing_is_limited_or_passed_on():
    for target, kind in (("docker", DockerLaunchJobConfiguration), ("process", ProcessLaunchJobConfiguration)):
        configuration = await resolved(template(target), kind=kind)
        assert configuration.resources.model_dump(exclude_none=True) == {}
        assert configuration.timeout is None
        assert configuration.pass_env == []
        assert configuration.env == {}


async def test_resources_of_none_are_none():
    assert (await resolved(template(), {"resources": None})).resources.model_dump(exclude_none=True) == {}


async def test_merging_changes_none_of_its_inputs():
    queue, job = template(env={"A": "1"}), {"env": {"B": {"deep": [1]}}}
    before = copy.deepcopy((queue, job))
    merged = run_variables(job, {"env": {"C": "3"}})
    merged["env"]["B"]["deep"].append(2)
    await resolved(queue, {"env": {"B": "2"}, "resources": {"cpu": 1}})
    assert (queue, job) == before


@pytest.mark.parametrize("variables", [{"pass_env": ["HOME"]}, {"pass_env": []}])
async def test_only_the_queue_says_what_of_the_agent_s_environment_reaches_a_job(variables):
    """Whoever may submit a run must not be able to read the agent's own credentials with it."""
    queue = template(pass_env=["LISTED"])
    assert (await resolved(queue)).pass_env == ["LISTED"]
    for job, run in ((variables, None), (None, variables)):
        with pytest.raises(ValueError, match="pass_env"):
            await resolved(queue, job, run)


@pytest.mark.parametrize("resources", [{"cpu": -1}, {"memory": "much"}, {"gpus": 1}, "big"])
async def test_resources_that_do_not_fit_are_an_error_that_names_them(resources):
    with pytest.raises(ValueError, match="resources"):
        await resolved(template(), {"resources": resources})


def test_variables_from_blocks_are_secret_wherever_they_are_written():
    queue = template(env={"FROM_QUEUE": BLOCK, "PLAIN": "text"})
    job = {"env": {"FROM_JOB": BLOCK, "OTHER": "{{ prefect.variables.mode }}"}}
    run = {"env": {"FROM_RUN": BLOCK}}
    assert secret_names(queue, run_variables(job, run)) == {"FROM_QUEUE", "FROM_JOB", "FROM_RUN"}


def test_variables_from_blocks_are_secret_in_an_edited_template():
    queue = template()
    queue["job_configuration"]["env"] = {"FIXED": BLOCK, "PLAIN": "x"}
    assert secret_names(queue, {}) == {"FIXED"}


def test_variables_from_blocks_are_secret_when_written_with_a_dot():
    """Prefect takes `env.NAME` for a key inside `env`."""
    assert secret_names(template(), {"env.TOKEN": BLOCK, "env.PLAIN": "x"}) == {"TOKEN"}


def test_nothing_is_secret_where_nothing_comes_from_a_block():
    assert secret_names(template(), {}) == set()
    assert secret_names({}, {"env": None}) == set()
    assert secret_names(template(env={"A": "b"}), {"env": {"C": "d"}, "command": f"echo {BLOCK}"}) == set()


@pytest.mark.parametrize(
    ("resource_config", "words"),
    [
        ({"resources": {"cpu": -1}}, ["resource_config.resources", "cpu", "-1"]),
        ({"resources": {"gpus": 1}}, ["resource_config.resources", "gpus"]),
        ({"volumes": "x:/y"}, ["resource_config.volumes", "x:/y"]),
        ({"volume": ["x:/y"]}, ["resource_config.volume", "did you mean 'volumes'"]),
    ],
)
def test_a_queue_s_defaults_are_refused_early_by_their_path(resource_config, words):
    with pytest.raises(InvalidInput) as error:
        template(**resource_config)
    assert all(word in str(error.value) for word in words), error.value


def test_resource_configuration_takes_the_run_macros() -> None:
    configuration = LaunchJobConfiguration(
        name="train-${run_name}",
        labels={"run": "${run_id}", "price": "$${5}"},
        env={"A": "${run_id}"},
        command="x ${args}",
    )
    filled = with_macros(configuration, {"run_id": "17", "run_name": "fox"})
    assert filled.name == "train-fox"
    assert filled.labels == {"run": "17", "price": "${5}"}
    assert (filled.env, filled.command) == ({"A": "${run_id}"}, "x ${args}"), "these are filled with the run's config"
    with pytest.raises(InvalidInput, match="nothing"):
        with_macros(LaunchJobConfiguration(name="${nothing}"), {})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"resources": {"memory": "much"}}, "memory"),
        ({"resources": {"memry": "1Gi"}}, "memory"),
        ({"name": "${run_nam}"}, "run_name"),
        ({"volumes": "/a:/b"}, "volumes"),
        ({"volume": ["/a:/b"]}, "volumes"),
    ],
)
def test_a_queue_with_a_wrong_resource_configuration_is_refused(wrong: dict, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        template_for(QueueSpec(queue_name="q", target="docker", resource_config=wrong))


def test_a_run_that_carries_its_job_takes_nothing_of_what_its_job_says_now():
    own = {"source": {"code": "x"}, "env": {"B": "2"}}
    assert run_variables({"source": {"code": "y"}, "env": {"A": "1"}, "build": {"python": "3.9"}}, own) == own


def test_a_run_made_elsewhere_has_its_own_over_those_of_its_job():
    job = {"source": {"code": "y"}, "env": {"A": "1"}}
    assert run_variables(job, {"env": {"B": "2"}}) == {"source": {"code": "y"}, "env": {"A": "1", "B": "2"}}


def test_a_queue_of_an_older_version_takes_what_is_ours_and_not_what_was_taken_out():
    old = ProcessLaunchWorker.get_default_base_job_template()
    for name in ("build", "builder", "rebuild", "git_credentials", "working_dir"):
        del old["variables"]["properties"][name]
        del old["job_configuration"][name]
    old["job_configuration"]["rebuild"] = False  # fixed by the queue's owner
    new = with_ours(old, ProcessLaunchWorker)
    assert new["job_configuration"]["build"] == "{{ build }}"
    assert "git_credentials" in new["variables"]["properties"]
    assert "rebuild" not in new["variables"]["properties"]
    assert "working_dir" not in new["variables"]["properties"]
    assert "build" not in old["variables"]["properties"]
