"""What only containers do, and what only they can suffer."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launch_prefect import Job, Queue, Run
from launch_prefect.naming import LABEL_JOB, LABEL_RUN_ID
from tests.e2e.system import System, explained, submit, texts, until

if TYPE_CHECKING:
    from docker import DockerClient

END_SECONDS = 60


def test_an_image_with_neither_python_nor_a_shell(system: System, docker_engine: DockerClient, tiny_image: str) -> None:
    own = system.cli("submit", "-q", "docker", "--image", tiny_image, "--job-name", "e2e-tiny", "--follow")
    assert "LAUNCH_RUN_ID=" in own.out
    job = Job.from_image(tiny_image, command=["/tiny", "7", "${config.seconds}", "a b"], name="e2e-tiny")
    run = Queue("docker").submit(job, config={"seconds": 0}).wait(END_SECONDS)
    assert (run.state, run.exit_code) == ("Failed", 7), explained(run)
    assert texts(run) == ["argument 1: 7", "argument 2: 0", "argument 3: a b", f"LAUNCH_RUN_ID={run.id}"]
    assert run.facts["image"] == docker_engine.images.get(tiny_image).id


def test_an_image_that_does_not_exist(system: System, docker_engine: DockerClient) -> None:
    reference = "127.0.0.1:9/team/no-such-image:1.4"
    began = time.monotonic()
    run = Queue("docker").submit(Job.from_image(reference, name="e2e-missing")).wait(END_SECONDS)
    assert time.monotonic() - began < 30
    assert run.state == "Failed", explained(run)
    assert reference in run.message
    assert run.message.rstrip(".").count(".") >= 1  # a second sentence: the mend
    by_id = Queue("docker").submit(Job.from_image(f"sha256:{'0' * 64}", name="e2e-missing")).wait(END_SECONDS)
    assert by_id.state == "Failed", explained(by_id)


def test_a_command_that_the_image_has_not(docker_engine: DockerClient, tiny_image: str) -> None:
    job = Job.from_image(tiny_image, command=["python", "train.py"], name="e2e-tiny")
    run = Queue("docker").submit(job).wait(END_SECONDS)
    assert run.state == "Failed", explained(run)
    assert "exec python failed" in run.message
    assert "use an image that contains it" in run.message


def test_out_of_memory(docker_engine: DockerClient) -> None:
    run = submit("docker", "take_memory", resources={"memory": "64Mi"}).wait(END_SECONDS)
    assert (run.state, run.exit_code) == ("Crashed", 137), explained(run)
    assert "Out of memory" in run.message
    assert "64Mi" in run.message
    assert "resources.memory" in run.message


def test_a_container_removed_behind_our_back(docker_engine: DockerClient, tiny_image: str) -> None:
    run = Queue("docker").submit(Job.from_image(tiny_image, command=["/tiny", "0", "300"], name="e2e-tiny"))
    until(lambda: texts(run), "a line of the run", END_SECONDS)
    [container] = docker_engine.containers.list(filters={"label": f"{LABEL_RUN_ID}={run.id}"})
    container.remove(force=True)
    run.wait(30)
    assert run.state == "Crashed", explained(run)
    assert "was removed by somebody else" in run.message
    assert "Submit the run again" in run.message


@pytest.fixture
def own_queue(docker_engine: DockerClient) -> str:
    """A queue that no agent serves yet."""
    return Queue.create(f"docker-{uuid.uuid4().hex[:8]}", target="docker").name


def test_an_engine_that_does_not_answer(system: System, own_queue: str, tiny_image: str) -> None:
    engine = f"unix://{system.folder}/none.sock"
    with system.agent(own_queue, env={"DOCKER_HOST": engine}):
        began = time.monotonic()
        runs = [Queue(own_queue).submit(Job.from_image(tiny_image, name="e2e-tiny")), submit(own_queue, "talk")]
        for run in runs:
            run.wait(30)
            assert run.state == "Crashed", explained(run)
            assert "Docker engine" in run.message
            assert "Start it" in run.message
        assert time.monotonic() - began < 20
    Queue(own_queue).delete()


def _new_folder(folder: Path, name: str) -> Path:
    """Code that nothing has been built for."""
    made = folder / name
    made.mkdir()
    (made / "main.py").write_text(f"import tinypkg\nprint({uuid.uuid4().hex!r})\n")
    package = made / "tinypkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (made / "requirements.txt").write_text(f"# {uuid.uuid4().hex}\n")
    return made


def _builds_in(run: Run) -> list[str]:
    return [line for line in texts(run, "launch") if line.startswith("Building ")]


def test_the_same_folder_builds_one_image(system: System, docker_engine: DockerClient, tmp_path: Path) -> None:
    folder = _new_folder(tmp_path, "e2e-once")

    def images() -> set[str]:
        return {str(image.id) for image in docker_engine.images.list(filters={"label": f"{LABEL_JOB}=e2e-once"})}

    first, second = (_submit_and_wait(system, "docker", folder) for _ in range(2))
    assert images() == {first.facts["image"]} == {second.facts["image"]}
    assert len(_builds_in(first)) >= 1
    assert _builds_in(second) == []


def test_the_same_folder_builds_one_environment(system: System, tmp_path: Path) -> None:
    folder = _new_folder(tmp_path, "e2e-once")

    def environments() -> set[str]:
        return {path.name for path in (system.home / "envs").iterdir() if path.is_dir()}

    before = environments() if (system.home / "envs").is_dir() else set()
    first = _submit_and_wait(system, "local", folder)
    [made] = environments() - before
    stamp = (system.home / "envs" / made).stat().st_mtime_ns
    second = _submit_and_wait(system, "local", folder)
    assert environments() == {*before, made}
    assert (system.home / "envs" / made).stat().st_mtime_ns == stamp
    assert first.facts["environment"].endswith(made)
    assert first.facts["environment"] == second.facts["environment"]
    assert len(_builds_in(first)) >= 1
    assert _builds_in(second) == []


def _submit_and_wait(system: System, queue: str, folder: Path) -> Run:
    done = system.cli("submit", "-q", queue, folder, "-E", "python main.py", "--follow", "--json")
    return Run.get(done.json["id"])
