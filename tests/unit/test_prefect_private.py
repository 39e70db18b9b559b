"""What `workers/_prefect.py` and `dockerpy.py` take for granted of the installed Prefect, prefect-docker and docker-py.

A new version of one of them that changes it makes a test here fail, with the name of what has changed.
"""

import ast
import inspect
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import anyio
import pytest
from prefect.workers.base import BaseWorker
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration

from launch_prefect.workers import _prefect
from launch_prefect.workers.docker import DockerLaunchJobConfiguration, DockerLaunchWorker
from launch_prefect.workers.process import ProcessLaunchWorker

SOURCE = Path(_prefect.__file__)
ONE, TWO = UUID(int=1), UUID(int=2)


@pytest.fixture(params=[DockerLaunchWorker, ProcessLaunchWorker])
def worker(request, launch_home):
    return request.param("gpu", work_queues=["high", "critical"], name="agent-1")


def parameters(function):
    return list(inspect.signature(function).parameters)


def private_names(path):
    """Attributes with one leading underscore of anything but `self`, `cls` and this package's own."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }


GUARDED = {
    "_work_pool",
    "_work_pool_name",
    "_work_queues",
    "_last_polled_time",
    "_limiter",
    "_release_limit_slot",
    "_submit_scheduled_flow_runs",
    "_build_container_settings",
}


def test_everything_private_that_is_touched_is_guarded_here():
    assert private_names(SOURCE) == GUARDED


def test_methods_have_the_parameters_we_give():
    assert parameters(BaseWorker._release_limit_slot) == ["self", "flow_run_id"]
    assert not inspect.iscoroutinefunction(BaseWorker._release_limit_slot)
    assert parameters(BaseWorker._submit_scheduled_flow_runs) == ["self", "flow_run_response"]
    assert inspect.iscoroutinefunction(BaseWorker._submit_scheduled_flow_runs)
    assert parameters(DockerWorker._build_container_settings) == ["self", "docker_client", "configuration"]
    assert not inspect.iscoroutinefunction(DockerWorker._build_container_settings)


def test_hooks_that_we_override_are_still_called_by_that_name():
    assert inspect.iscoroutinefunction(BaseWorker.get_and_submit_flow_runs)
    assert inspect.iscoroutinefunction(BaseWorker.setup)
    assert inspect.iscoroutinefunction(BaseWorker.teardown)
    assert "self.get_and_submit_flow_runs" in inspect.getsource(BaseWorker.start)
    found = inspect.signature(BaseWorker.job_configuration.from_template_and_values).parameters
    assert list(found) == ["base_job_template", "values", "client"]
    assert parameters(DockerWorkerJobConfiguration.get_network_mode) == ["self"]
    assert parameters(DockerWorkerJobConfiguration.get_extra_hosts) == ["self", "docker_client"]


def test_a_worker_tells_its_pool_and_queues(worker):
    assert _prefect.pool_name(worker) == "gpu"
    assert _prefect.work_queue_names(worker) == ["critical", "high"]
    assert _prefect.work_queue_names(type(worker)("gpu")) == []
    assert _prefect.is_synced(worker) is False
    worker._work_pool = SimpleNamespace(name="gpu")
    assert _prefect.is_synced(worker) is True


def test_a_poll_of_ours_keeps_the_worker_healthy(worker):
    _prefect.poll_seen(worker, datetime(2020, 1, 1, tzinfo=UTC))
    assert worker.is_worker_still_polling(query_interval_seconds=10) is False
    _prefect.poll_seen(worker, datetime.now(UTC))
    assert worker.is_worker_still_polling(query_interval_seconds=10) is True


async def test_without_a_limit_there_is_always_a_slot(worker):
    assert all(_prefect.take_slot(worker, UUID(int=number)) for number in range(100))
    _prefect.free_slot(worker, ONE)


async def test_a_worker_s_own_limit_is_kept_and_slots_come_back(worker):
    worker._limiter = anyio.CapacityLimiter(1)
    assert _prefect.take_slot(worker, ONE)
    assert not _prefect.take_slot(worker, TWO)
    _prefect.free_slot(worker, ONE)
    _prefect.free_slot(worker, ONE)  # twice does no harm
    assert _prefect.take_slot(worker, TWO)


def test_the_worker_makes_its_limit_of_that_kind():
    assert "CapacityLimiter(" in inspect.getsource(BaseWorker.setup)
    assert "self._limiter" in inspect.getsource(BaseWorker.setup)


def test_container_settings_are_docker_py_s_own_arguments(launch_home):
    from docker.models.containers import ContainerCollection

    configuration = DockerLaunchJobConfiguration(
        image="sha256:1",
        name="launch-train-1",
        command="python train.py",
        env={"A": "1"},
        labels={"launch_prefect": "1"},
        volumes=["/a:/b"],
        auto_remove=False,
    )
    configuration._command_job = True
    settings = _prefect.container_settings(DockerLaunchWorker("gpu"), SimpleNamespace(), configuration)
    assert settings["image"] == "sha256:1"
    assert settings["name"] == "launch-train-1"
    assert settings["environment"] == {"A": "1"}
    assert settings["labels"]["launch_prefect"] == "1"
    assert settings["volumes"] == ["/a:/b"]
    assert settings["auto_remove"] is False
    assert not settings.get("network_mode")
    assert "command" in settings  # replaced by ours, as words
    assert "kwargs" in inspect.signature(ContainerCollection.create).parameters


def test_a_local_api_does_not_turn_a_command_job_s_network_to_the_host_s(monkeypatch, launch_home):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    configuration = DockerLaunchJobConfiguration(image="x")
    configuration._command_job = True
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        assert configuration.get_network_mode() is None
        assert configuration.get_extra_hosts(SimpleNamespace()) is None


RAISED = """
{imports}
import docker, requests
from docker import APIClient
from launch_prefect import dockerpy

def raised(status, text):
    response = requests.Response()
    response.status_code, response._content, response.url = status, text.encode(), "http://engine/"
    client = dockerpy.docker.APIClient(base_url="tcp://127.0.0.1:1", version="1.41")
    try:
        client._raise_for_status(response)
    except Exception as error:
        return error

missing = raised(404, '{{"message": "No such container: x"}}')
image = raised(404, '{{"message": "No such image: x"}}')
broken = raised(500, '{{"message": "server error"}}')
assert type(missing) is dockerpy.NotFound, type(missing)
assert type(image) is dockerpy.ImageNotFound, type(image)
assert type(broken) is dockerpy.APIError, type(broken)
assert isinstance(image, dockerpy.NotFound) and isinstance(missing, dockerpy.APIError)
assert isinstance(broken, dockerpy.DockerException) and isinstance(broken, requests.HTTPError)
assert missing.explanation == "No such container: x" and broken.status_code == 500
try:
    dockerpy.docker.from_env(environment={{"DOCKER_HOST": "unix:///nowhere/at/all.sock"}}).ping()
except (dockerpy.DockerException, OSError):
    pass
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import docker.errors",
        "import prefect.utilities.dockerutils, docker.errors",
        "from launch_prefect import dockerpy; import prefect.utilities.dockerutils, docker.errors",
    ],
)
def test_docker_py_s_errors_are_those_it_raises_whoever_imported_it_first(imports):
    program = RAISED.format(imports=imports)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
