"""What jobs run in: found, built once and ahead, explained when it fails, and ended when nobody wants it."""

from __future__ import annotations

import io
import os
import re
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prefect.blocks.system import Secret

from launch_prefect import Job, Queue, Run
from tests.e2e.building import Door, PackageIndex, code
from tests.e2e.system import System, explained, processes_naming, said, submit, texts, until

if TYPE_CHECKING:
    from docker import DockerClient

END_SECONDS = 90
MAIN = ("-E", "python main.py")
RAN = {"main.py": "print('ran')\n"}


def _name() -> str:
    return f"e2e-{uuid.uuid4().hex[:8]}"


# Which environment, and why


def test_code_changes_and_the_environment_is_kept(system: System, queue: str, tmp_path: Path) -> None:
    requirements = f"six==1.16.0  # {uuid.uuid4().hex}\n"
    folder = code(tmp_path / "e2e-kept", {"main.py": "import six; print(1)", "requirements.txt": requirements})
    first = system.submit(queue, folder, *MAIN).wait(END_SECONDS)
    assert texts(first) == ["1"], explained(first)
    assert "requirements.txt found: environment built" in said(first)
    (folder / "main.py").write_text("import six; print(2)")
    second = system.submit(queue, folder, *MAIN).wait(END_SECONDS)
    assert texts(second) == ["2"], explained(second)
    assert "requirements.txt found" in said(second)
    kept = "environment kept, code added" if queue == "docker" else "the environment is here already"
    assert kept in said(second)
    assert not re.search(r"six|pip install", said(second))


def _own(folder: Path, base_image: str, name: str, door: Door | None = None) -> Path:
    """Code with a Dockerfile of its own, which may stop at a door."""
    step = door.step(name) if door else f"RUN echo building {name}\n"
    dockerfile = f"FROM {base_image}\nWORKDIR /app\n{step}COPY main.py .\nENV FROM_DOCKERFILE=yes\n"
    return code(folder, {**RAN, "Dockerfile.launch": dockerfile})


def test_a_dockerfile_of_the_jobs_own(
    system: System, docker_engine: DockerClient, base_image: str, tmp_path: Path
) -> None:
    marker = uuid.uuid4().hex
    folder = _own(tmp_path / "e2e-own", base_image, marker)
    (folder / "requirements.txt").write_text("this is not looked at\n")
    (folder / "main.py").write_text("import os, launch_run; print(os.getcwd(), os.environ['FROM_DOCKERFILE'])")
    beside = system.submit("docker", folder, *MAIN).wait(END_SECONDS)
    assert texts(beside) == ["/app yes"], explained(beside)
    assert "Dockerfile.launch found: built as it says." in said(beside)
    assert f"building {marker}" in said(beside)
    (folder / "docker").mkdir()
    (folder / "docker" / "Dockerfile").write_text(
        f"FROM {base_image}\nCOPY main.py /srv/\nWORKDIR /srv\nENV FROM_DOCKERFILE=no\n"
    )
    named = system.submit("docker", folder, *MAIN, "--dockerfile", "docker/Dockerfile").wait(END_SECONDS)
    assert texts(named) == ["/srv no"], explained(named)
    assert "docker/Dockerfile" in said(named)
    passed_over = system.submit("local", folder, *MAIN, "--job-name", "e2e-own-local").wait(END_SECONDS)
    assert "Dockerfile.launch is passed over" in said(passed_over), explained(passed_over)


def test_who_the_job_is(system: System, docker_engine: DockerClient, tmp_path: Path) -> None:
    program = """
import os, pathlib, launch_run
print(os.getuid(), os.getgid())
for folder in (os.environ["HOME"], "/workspace", os.environ["LAUNCH_OUTPUT_DIR"]):
    (pathlib.Path(folder) / "made.txt").write_text("made by the job")
"""
    folder = code(tmp_path / "e2e-user", {"main.py": program})
    run = system.submit("docker", folder, *MAIN).wait(END_SECONDS)
    assert run.succeeded, explained(run)
    assert texts(run) == ["1000 1000"]
    copied = run.outputs(tmp_path / "outputs")
    assert (tmp_path / "outputs" / "made.txt").read_text() == "made by the job", copied


# What fails


def test_requirements_that_fail(system: System, queue: str, tmp_path: Path) -> None:
    folder = code(tmp_path / "e2e-fails", {**RAN, "requirements.txt": f"six==1.16.0 # {_name()}\nsix==1.15.0\n"})
    run = system.submit(queue, folder, *MAIN).wait(END_SECONDS)
    assert run.state == "Failed", explained(run)
    assert "six" in run.message
    assert re.search("(?i)conflict|unsatisfiable", run.message)
    assert "RUN python -m pip install" in run.message or queue == "local"
    assert run.message.count("Correct what the lines above name") == 1
    lines = [line for line in run.logs() if line.stream == "launch"]
    last_of_build = lines[[line.text.startswith("Failed: ") for line in lines].index(True) - 1]
    ended = run.flow_run.end_time
    assert ended is not None
    assert ended.timestamp() - last_of_build.at.timestamp() < 1, explained(run)
    again = system.submit(queue, folder, *MAIN).wait(END_SECONDS)
    assert again.state == "Failed", explained(again)
    assert "was not tried again" in again.message
    assert "--rebuild" in again.message
    assert "six" in again.message
    assert "Building" not in said(again)
    anew = system.submit(queue, folder, *MAIN, "--rebuild").wait(END_SECONDS)
    assert anew.state == "Failed", explained(anew)
    assert "was not tried again" not in anew.message
    assert "Building" in said(anew)


# Secrets of builds


def test_a_build_secret(
    system: System, queue: str, package_index: PackageIndex, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    names = {"PIP_INDEX_URL": package_index.url, "PIP_TRUSTED_HOST": package_index.host.partition(":")[0]}
    words = []
    for name, value in names.items():
        Secret(value=value).save(block := f"e2e-{uuid.uuid4().hex[:8]}")
        words += ["--build-secret", f"{name}=secret/{block}"]
    requirements = f"e2e-private==1.0 # {uuid.uuid4().hex}\n"
    program = "import e2e_private, os; print(e2e_private.NAME, 'PIP_INDEX_URL' in os.environ)"
    folder = code(tmp_path / "e2e-secret", {"main.py": program, "requirements.txt": requirements})
    package_index.close("e2e-private")
    run = system.submit(queue, folder, *MAIN, *words)
    until(lambda: package_index.waiting("e2e-private"), "the installer at the index", 60)
    lines = [file for file in Path("/proc").glob("[0-9]*/cmdline") if package_index.password in _content(file)]
    assert lines == []
    package_index.open("e2e-private")
    run.wait(END_SECONDS)
    assert texts(run) == ["the private package False"], explained(run)
    assert package_index.password not in explained(run)
    if queue == "docker":
        engine: DockerClient = request.getfixturevalue("docker_engine")
        assert _images_with(engine, run.facts["image"], package_index.password) == []


def _content(file: Path) -> str:
    try:
        return file.read_bytes().decode(errors="replace")
    except OSError:  # it has ended
        return ""


def _images_with(engine: DockerClient, image: str, text: str) -> list[str]:
    """Parts of an image, its layers and its settings, that hold a text."""
    saved = io.BytesIO(b"".join(engine.images.get(image).save()))
    found = []
    with tarfile.open(fileobj=saved) as archive:
        parts = [member for member in archive if member.isfile()]
        assert any(member.name.endswith("layer.tar") or "blobs" in member.name for member in parts)
        for member in parts:
            file = archive.extractfile(member)
            if file is not None and text.encode() in file.read():
                found.append(member.name)
    return found


def test_a_secret_that_a_build_prints(
    system: System, docker_engine: DockerClient, base_image: str, tmp_path: Path
) -> None:
    value = f"the-secret-{uuid.uuid4().hex}"
    Secret(value=value).save(block := f"e2e-{uuid.uuid4().hex[:8]}")
    step = 'RUN --mount=type=secret,id=MY_TOKEN echo "it is $(cat /run/secrets/MY_TOKEN)"\n'
    dockerfile = f"FROM {base_image}\nWORKDIR /app\nCOPY . .\n{step}"
    folder = code(tmp_path / "e2e-prints", {**RAN, "Dockerfile.launch": dockerfile})
    run = system.submit("docker", folder, *MAIN, "--build-secret", f"MY_TOKEN=secret/{block}").wait(END_SECONDS)
    assert texts(run) == ["ran"], explained(run)
    assert re.search(r"it is \*+$", said(run), re.MULTILINE)
    assert value not in explained(run)
    assert _images_with(docker_engine, run.facts["image"], value) == []


# Ahead, cancelled, limited


@pytest.fixture
def long_run(system: System, docker_engine: DockerClient) -> Iterator[Run]:
    """A run that has the queue `one` for itself; no run of that queue goes on after the test."""
    run = submit("one", "sleep", 600)
    until(lambda: run.refresh().state == "Running", "the long run", END_SECONDS)
    yield run
    left = [other for other in Run.list(queue="one") if not other.is_final]
    for other in left:
        other.cancel()
    for other in left:
        other.wait(30)


def _image_of(engine: DockerClient, job: str) -> Any:
    return next(iter(engine.images.list(filters={"label": f"launch_prefect.job={job}"})), None)


def test_built_ahead_of_its_turn(
    system: System, docker_engine: DockerClient, base_image: str, door: Door, long_run: Run, tmp_path: Path
) -> None:
    job, name = _name(), uuid.uuid4().hex
    waiting = system.submit("one", _own(tmp_path / job, base_image, name), *MAIN)
    until(lambda: _image_of(docker_engine, job), "its image", 60)
    assert waiting.refresh().state == "Scheduled"
    assert long_run.refresh().state == "Running"
    assert "builds ahead" in said(waiting)
    # One that is cancelled while it waits has its build stopped.
    dropped = system.submit("one", _own(tmp_path / _name(), base_image, name, door), *MAIN)
    until(lambda: door.waiting(name), "its build", 60)
    system.cli("run", "cancel", str(dropped.id))
    until(lambda: not door.waiting(name), "the end of its build", 10)
    assert dropped.wait(10).state == "Cancelled"
    long_run.cancel()
    waiting.wait(END_SECONDS)
    assert texts(waiting) == ["ran"], explained(waiting)
    assert said(waiting).count("Building image") == 1
    assert "the image is here already" in said(waiting).lower()


def test_cancelling_a_run_that_builds(
    system: System, docker_engine: DockerClient, base_image: str, door: Door, tmp_path: Path
) -> None:
    name = uuid.uuid4().hex
    folder = _own(tmp_path / _name(), base_image, name, door)
    alone = system.submit("docker", folder, *MAIN)
    until(lambda: door.waiting(name), "its build", 60)
    assert alone.refresh().state == "Building"
    began = time.monotonic()
    alone.cancel()
    alone.wait(10)
    took = time.monotonic() - began
    assert alone.state == "Cancelled", explained(alone)
    assert took < 5
    until(lambda: not door.waiting(name), "the end of its build", 5)
    assert [process for process in processes_naming(name) if process.name() == "docker"] == []
    # Where another run wants the same, the build goes on.
    first, second = (system.submit("docker", folder, *MAIN) for _ in range(2))
    until(lambda: door.waiting(name), "the build of two", 60)
    until(lambda: {run.refresh().state for run in (first, second)} == {"Building"}, "both wait for it", 30)
    arrived = door.arrived.count(name)
    first.cancel()
    assert first.wait(10).state == "Cancelled", explained(first)
    assert door.waiting(name) == 1
    door.open(name)
    second.wait(END_SECONDS)
    assert texts(second) == ["ran"], explained(second)
    assert door.arrived.count(name) == arrived


def test_builds_wait_for_one_another(
    system: System, docker_engine: DockerClient, base_image: str, door: Door, long_run: Run, tmp_path: Path
) -> None:
    names = [uuid.uuid4().hex for _ in range(2)]
    runs = [system.submit("one", _own(tmp_path / _name(), base_image, name, door), *MAIN) for name in names]
    until(lambda: any("max_builds" in said(run) for run in runs), "one build waits for the other", 60)
    until(lambda: sum(map(door.waiting, names)) == 1, "the other build", 30)
    [first] = [name for name in names if door.waiting(name)]
    [second] = set(names) - {first}
    assert second not in door.arrived
    door.open(first)
    until(lambda: door.waiting(second), "the second build", 60)
    assert first not in [name for name in names if door.waiting(name)]
    door.open(second)
    until(lambda: all(_image_of(docker_engine, run.job) for run in runs), "both images", 60)


# Refused early


def test_builders_that_do_not_fit(system: System, docker_engine: DockerClient, tmp_path: Path) -> None:
    def apply(**queue: Any) -> Path:
        file = tmp_path / f"{uuid.uuid4().hex[:8]}.yaml"
        file.write_text(yaml.safe_dump({"queue_name": "e2e-images-only", "target": "docker", **queue}))
        return file

    wrong = {
        ("builder.regstry", "did you mean 'registry'"): apply(builder={"regstry": "example.com/team"}),
        ("builder.registry", "without scheme"): apply(builder={"registry": "https://example.com/team"}),
        ("builder.max_builds", "greater than or equal to 1"): apply(builder={"max_builds": 0}),
        ("builder.type", "its builder is process"): apply(target="process", builder={"type": "docker"}),
        ("builder.registry", "builds no images"): apply(target="process", builder={"registry": "example.com/team"}),
    }
    for expected, file in wrong.items():
        done = system.cli("queue", "apply", file, code=2)
        for part in expected:
            assert part in done.err, (file.read_text(), done.err)
    assert "e2e-images-only" not in {queue.name for queue in Queue.list()}
    system.cli("queue", "apply", apply(builder={"type": "none"}))
    folder = code(tmp_path / "e2e-no-builder", RAN)
    refused = system.cli("submit", "-q", "e2e-images-only", folder, *MAIN, code=2)
    assert "builder: none" in refused.err or "builds no images" in refused.err
    assert "e2e-no-builder" not in {job.name for job in Job.list()}
    system.cli("queue", "delete", "e2e-images-only")


def test_what_a_snapshot_does_not_take(system: System, tmp_path: Path) -> None:
    program = "import pathlib; print(sorted(p.name for p in pathlib.Path('.').iterdir()))"
    folder = code(tmp_path / "e2e-left-out", {"main.py": program, ".env": "TOKEN=of-mine\n"})
    (folder / "deploy-key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n")
    (folder / "weights.bin").write_bytes(os.urandom(300_000))
    limit = {"LAUNCH_CODE_LIMIT": "100Ki"}
    large = system.cli("submit", "-q", "local", folder, *MAIN, env=limit, code=2)
    assert "--yes" in large.err
    assert "weights.bin" in large.err
    assert "e2e-left-out" not in {job.name for job in Job.list()}
    done = system.cli("submit", "-q", "local", folder, *MAIN, "--yes", "--json", env=limit)
    assert ".env" in done.err
    assert "deploy-key" in done.err
    run = Run.get(done.json["id"]).wait(END_SECONDS)
    assert texts(run) == ["['anew.txt', 'main.py', 'weights.bin']"], explained(run)
