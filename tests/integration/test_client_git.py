"""Jobs from git, queues' builders and Dockerfiles against a real Prefect server and a real git server."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
import pytest

from launch_prefect import Job
from launch_prefect.client.api import connect
from launch_prefect.client.needed import needed_code
from launch_prefect.settings import get_settings
from tests.testbed.git_servers import GitServers, HttpsServer, Repository
from tests.testbed.registry import (  # noqa: F401 - fixtures
    Registry,
    basic_registry_fixture,
    free_port,
    open_registry_fixture,
)

if TYPE_CHECKING:
    from tests.integration.launching import Launch

pytest_plugins = ["tests.integration.launching", "tests.testbed.git_fixtures"]

PYTHON = ("--", "python", "train.py")
WRONG = "wrong-token-of-the-tests"


@pytest.fixture
def repository(git_servers: GitServers) -> Repository:
    repository = git_servers.repository()
    repository.commit({"train.py": "print(1)\n", "lib/requirements.txt": "numpy==2.1.0\n", ".gitignore": "*.log\n"})
    return repository


@pytest.fixture
def url(git_https: HttpsServer, repository: Repository) -> str:
    address = f"{git_https.url}/{repository.path}"
    repository.git("remote", "set-url", "origin", address)
    repository.git("remote", "set-url", "--push", "origin", repository.bare)
    return address


@pytest.fixture
def trusting(git_https: HttpsServer) -> dict[str, str]:
    """Settings of a machine that trusts the git server."""
    return {"LAUNCH_CA_BUNDLE": str(git_https.certificate)}


@pytest.fixture
def here(environment: dict[str, str], trusting: dict[str, str]) -> Iterator[None]:
    """This process as the user's."""
    with mock.patch.dict(os.environ, environment | trusting, clear=True):
        get_settings.cache_clear()
        yield
    get_settings.cache_clear()


@pytest.fixture
def queue(launch: Launch) -> Iterator[Callable[..., str]]:
    """Makes queues that no agent serves."""
    made: list[str] = []

    def make(*options: str, target: str = "docker") -> str:
        made.append(f"git-{uuid.uuid4().hex[:8]}")
        launch("queue", "create", made[-1], "--target", target, *options)
        return made[-1]

    yield make
    for name in made:
        launch("queue", "delete", name, "--yes")


@pytest.fixture
def block(api: str) -> Callable[[str], str]:
    """Makes a secret block through the server's API, as its page does."""

    def make(value: str) -> str:
        kind = httpx.get(f"{api}/block_types/slug/secret").json()["id"]
        schemas = httpx.post(
            f"{api}/block_schemas/filter", json={"block_schemas": {"block_type_id": {"any_": [kind]}}}
        ).json()
        name = f"token-{uuid.uuid4().hex[:8]}"
        body = {"name": name, "data": {"value": value}, "block_type_id": kind, "block_schema_id": schemas[0]["id"]}
        made = httpx.post(f"{api}/block_documents/", json=body)
        assert made.status_code == 201, made.text
        return f"secret/{name}"

    return make


def variables_of(api: str, run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{api}/flow_runs/{run['id']}").json()["job_variables"]
    return found


def test_a_job_from_git_is_pinned_when_it_is_submitted(
    launch: Launch, queue: Callable[..., str], repository: Repository, url: str, trusting: dict[str, str], api: str
) -> None:
    on, first = queue(), repository.git("rev-parse", "HEAD")
    name = f"job-{uuid.uuid4().hex[:8]}"
    about = ("-q", on, "--python", "3.12", "--system-package", "ffmpeg", "--build-secret", "UV_INDEX=secret/index")
    made = launch(
        "job", "create", "git", f"{url}@main", *about, "--subdir", "lib", "--name", name, "--json", *PYTHON,
        env=trusting,
    ).json  # fmt: skip
    assert made["source"] == {"git": url, "ref": "main", "subdir": "lib", "commit": first}
    assert made["version"] == f"git-{first[:12]}"
    assert made["build"] == {"python": "3.12", "system_packages": ["ffmpeg"], "secrets": {"UV_INDEX": "secret/index"}}
    assert launch("job", "show", name, "--json").json == made, "what the server gives back is the job"
    shown = launch("job", "show", name).out
    for part in (first, "main", url, "lib", "3.12", "ffmpeg", "UV_INDEX from secret/index"):
        assert part in shown

    second = repository.commit({"train.py": "print(2)\n"})
    known = launch("submit", "-q", on, name, "--json").json
    assert variables_of(api, known)["source"]["commit"] == first, "a job that the server knows stays where it is"
    told = launch("submit", "-q", on, url, "--job-name", name, "--rebuild", *PYTHON, env=trusting).out
    assert second in told
    newest = launch("run", "list", "-q", on, "-n", "1", "--json").json[0]
    variables = variables_of(api, newest)
    assert (variables["source"]["commit"], variables["rebuild"]) == (second, True)
    assert "rebuild" not in variables_of(api, known)
    assert "build" not in variables


def test_what_git_does_not_have_is_refused_and_nothing_is_made(
    launch: Launch, queue: Callable[..., str], url: str, trusting: dict[str, str]
) -> None:
    on = queue()
    for words, says in (
        ((f"{url}@mian",), "Did you mean 'main'"),
        ((url.replace("repository", "no-such"),), "no-such"),
        ((url, "--git-credentials", "secret/no-such-block"), "There is no block 'secret/no-such-block'"),
    ):
        assert says in launch("submit", "-q", on, *words, *PYTHON, env=trusting, code=2).err
    images_only = queue("--builder", "none")
    assert "builds no images" in launch("submit", "-q", images_only, url, *PYTHON, env=trusting, code=2).err
    assert launch("job", "list", "-q", images_only, "--json").json == []


def test_credentials_come_from_a_block_and_stand_nowhere(
    launch: Launch,
    queue: Callable[..., str],
    block: Callable[[str], str],
    repository: Repository,
    url: str,
    git_token: str,
    trusting: dict[str, str],
    api: str,
    environment: dict[str, str],
) -> None:
    on, good, bad = queue(), block(git_token), block(WRONG)
    done = launch("submit", "-q", on, url, "--git-credentials", good, "--json", *PYTHON, env=trusting)
    variables = variables_of(api, done.json)
    assert variables["source"]["commit"] == repository.git("rev-parse", "HEAD")
    assert variables["source"]["credentials"] == good
    assert variables["git_credentials"] == f"{{{{ prefect.blocks.{good.replace('/', '.')} }}}}"
    refused = launch("submit", "-q", on, url, "--git-credentials", bad, *PYTHON, env=trusting, code=2)
    assert bad in refused.err, "which block it was"
    without = launch("submit", "-q", on, url, *PYTHON, env=trusting, code=2)
    assert "credentials" in without.err
    seen = json.dumps(variables) + done.out + done.err + refused.out + refused.err + without.err
    kept = [file for file in Path(environment["LAUNCH_HOME"]).rglob("*") if file.is_file()]
    for secret in (git_token, WRONG):
        assert secret not in seen
        assert not [file for file in kept if secret.encode() in file.read_bytes()]


def test_a_work_tree_is_submitted_as_its_commit_and_the_changes_since(
    launch: Launch,
    queue: Callable[..., str],
    repository: Repository,
    url: str,
    trusting: dict[str, str],
    api: str,
    environment: dict[str, str],
) -> None:
    on, folder = queue(), repository.folder
    clean = launch("submit", "-q", on, ".", "--git", "--json", *PYTHON, env=trusting, cwd=folder)
    source = variables_of(api, clean.json)["source"]
    assert source == {"git": url, "ref": "main", "commit": repository.git("rev-parse", "HEAD")}
    assert not clean.err.replace("Note: No agent serves", "").count("Note: This is a git work tree")

    (folder / "train.py").write_text("print('changed')\n")
    (folder / "new.py").write_text("")
    (folder / "noise.log").write_text("")
    told = launch("submit", "-q", on, ".", "--git", *PYTHON, env=trusting, cwd=folder)
    assert "1 file since that commit" in told.out
    assert "does not track them: new.py." in told.err
    assert "noise.log" not in told.err
    run = launch("run", "list", "-q", on, "-n", "1", "--json").json[0]
    changed = variables_of(api, run)["source"]
    assert changed["commit"] == source["commit"]
    assert list(Path(environment["LAUNCH_HOME"]).rglob(f"*{changed['patch'].removeprefix('sha256:')}*"))

    repository.git("commit", "--quiet", "--all", "--message", "Not pushed")
    inner = launch("job", "create", "code", "lib", "--git", "-q", on, "--json", *PYTHON, env=trusting, cwd=folder)
    assert inner.json["source"]["subdir"] == "lib"
    unpushed = launch("submit", "-q", on, ".", "--git", *PYTHON, env=trusting, cwd=folder)
    assert "with 1 commit not pushed" in unpushed.out


def test_that_git_could_be_taken_is_said_where_it_could(
    launch: Launch, queue: Callable[..., str], repository: Repository, url: str, tmp_path: Path
) -> None:
    on = queue()
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "train.py").touch()
    words = ("submit", "-q", on, ".", *PYTHON)
    assert "--git submits its pushed commit" in launch(*words, cwd=repository.folder).err
    assert "--git" in launch(*words, cwd=repository.folder / "lib").err
    assert "--git" not in launch("submit", "--json", *words[1:], cwd=repository.folder).err
    assert "--git" not in launch(*words, cwd=tmp_path / "plain").err


def test_a_large_folder_is_asked_about(launch: Launch, queue: Callable[..., str], tmp_path: Path) -> None:
    on, folder = queue(), tmp_path / "large"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "big.bin").write_bytes(os.urandom(300_000))
    (folder / "train.py").touch()
    small = {"LAUNCH_CODE_LIMIT": "200000"}
    refused = launch("submit", "-q", on, folder, *PYTHON, env=small, code=2)
    assert "data/" in refused.err, "what is large in it"
    assert "--yes" in refused.err
    assert not refused.out
    assert launch("job", "list", "-q", on, "--json").json == []
    launch("submit", "-q", on, folder, "--yes", *PYTHON, env=small)
    launch("job", "create", "code", folder, "-q", on, "--yes", *PYTHON, env=small)
    launch("submit", "-q", on, folder, *PYTHON, env={"LAUNCH_CODE_LIMIT": "0"})


async def _needed() -> frozenset[str]:
    async with connect() as client:
        return await needed_code(client)


def test_snapshots_of_jobs_and_of_runs_that_wait_are_needed(
    launch: Launch,
    queue: Callable[..., str],
    repository: Repository,
    url: str,
    here: None,
    trusting: dict[str, str],
    tmp_path: Path,
    api: str,
) -> None:
    on, folder = queue(), tmp_path / f"code-{uuid.uuid4().hex[:8]}"
    folder.mkdir()

    def submitted(text: str) -> tuple[str, str]:
        (folder / "train.py").write_text(text)
        run = launch("submit", "-q", on, folder, "--json", *PYTHON).json
        return run["id"], variables_of(api, run)["source"]["digest"]

    (first_run, first), (_, second) = submitted("1"), submitted("2")
    (repository.folder / "train.py").write_text("print('changed')\n")
    patched = launch("submit", "-q", on, ".", "--git", "--json", *PYTHON, env=trusting, cwd=repository.folder).json
    patch = variables_of(api, patched)["source"]["patch"]
    assert {first, second, patch} <= asyncio.run(_needed())
    launch("run", "cancel", first_run)
    assert {second, patch} == asyncio.run(_needed()) & {first, second, patch}, "nobody wants an ended run's code"
    launch("job", "delete", folder.name, "--yes")
    assert second not in asyncio.run(_needed())


def test_all_runs_are_looked_at_page_by_page(
    queue: Callable[..., str], here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from launch_prefect import Queue
    from launch_prefect.client import needed

    monkeypatch.setattr(needed, "_PAGE", 4)
    monkeypatch.setattr(needed, "_OVERLAP", 1)
    folder = tmp_path / f"code-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    on = Queue(queue())

    async def submit_all() -> set[str]:
        digests = set()
        for number in range(10):
            (folder / "train.py").write_text(str(number))
            job = Job.from_code(folder, entrypoint=["python", "train.py"])
            await on.asubmit(job)
            assert job.snapshot is not None
            digests.add(job.snapshot.digest)
        return digests

    digests = asyncio.run(submit_all())
    assert len(digests) == 10
    assert digests <= asyncio.run(_needed())


# Dockerfiles and builders


def test_dockerfiles_are_printed_without_an_engine(
    launch: Launch,
    queue: Callable[..., str],
    repository: Repository,
    url: str,
    trusting: dict[str, str],
    tmp_path: Path,
) -> None:
    file = tmp_path / "queue.yaml"
    docker, processes = queue(), queue(target="process")
    file.write_text(
        f"queue_name: {docker}\ntarget: docker\n"
        "builder: {base_image: 'example.com/cuda:{python}', secrets: {UV_INDEX: {block: secret/index}}}\n"
    )
    launch("queue", "apply", file)
    name = f"job-{uuid.uuid4().hex[:8]}"
    about = ("-q", processes, "-q", docker, "--name", name, "--subdir", "lib", "--python", "3.12")
    launch("job", "create", "git", url, *about, *PYTHON, env=trusting)
    no_engine = trusting | {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    printed = launch("job", "show", name, "--dockerfile", env=no_engine)
    lines = printed.out.splitlines()
    assert "FROM example.com/cuda:3.12" in lines
    assert "requirements.txt" in printed.out
    assert "UV_INDEX" in printed.out
    assert lines[0].startswith("#"), "nothing but Dockerfiles"
    assert not printed.err
    assert printed.out == launch("job", "show", name, "--dockerfile", "-q", docker, env=no_engine).out
    assert "no images are built" in launch("job", "show", name, "--dockerfile", "-q", processes, code=2).err

    own = tmp_path / "own"
    own.mkdir()
    (own / "Dockerfile").write_text("FROM example.com/own\nCMD train\n")
    launch("job", "create", "code", own, "-q", docker, "--name", f"{name}-own", "--dockerfile", "Dockerfile")
    assert "FROM example.com/own\n" in launch("job", "show", f"{name}-own", "--dockerfile", env=no_engine).out
    launch("job", "create", "image", "sha256:" + "0" * 64, "-q", docker, "--name", f"{name}-image")
    assert "runs the image" in launch("job", "show", f"{name}-image", "--dockerfile", code=2).err


def test_a_queue_says_who_builds(launch: Launch, queue: Callable[..., str], tmp_path: Path) -> None:
    name = queue(
        "--registry", "registry.example.com/team", "--registry-credentials", "docker-registry-credentials/team",
        "--platform", "linux/arm64",
    )  # fmt: skip
    given = {
        "registry": "registry.example.com/team",
        "registry_credentials": "docker-registry-credentials/team",
        "platform": "linux/arm64",
    }
    assert launch("queue", "show", name, "--json").json["builder"] == given
    shown = launch("queue", "show", name).out
    assert "registry.example.com/team" in shown
    assert "linux/arm64" in shown
    file = tmp_path / "queue.yaml"
    file.write_text(f"queue_name: {name}\ntarget: docker\nconcurrency: 3\n")
    applied = launch("queue", "apply", file, "--json").json
    assert (applied["builder"], applied["concurrency"]) == (given, 3), "what a file leaves out stays"
    file.write_text(f"queue_name: {name}\ntarget: docker\nbuilder: {{type: none}}\n")
    assert launch("queue", "apply", file, "--json").json["builder"] == {"type": "none"}
    assert "images only" in launch("queue", "show", name).out

    for options, says in (
        (("-t", "process", "--builder", "docker"), "builder.type: target process runs no images"),
        (("-t", "process", "--registry", "example.com/a"), "builder.registry: target process builds no images"),
        (("-t", "docker", "--registry", "https://example.com"), "without scheme or user"),
        (("-t", "docker", "--registry", "e.com/a", "--registry-credentials", "hunter2"), "as TYPE/NAME"),
        (("-t", "docker", "--platform", "arm"), "linux/amd64"),
    ):
        assert says in launch("queue", "create", f"{name}-x", *options, code=2).err


def test_a_builder_that_cannot_be_read_hides_no_queue(launch: Launch, queue: Callable[..., str], api: str) -> None:
    name = queue()
    template = httpx.get(f"{api}/work_pools/{name}").json()["base_job_template"]
    template["variables"]["properties"]["builder"]["default"] = {"registri": "a"}
    changed = httpx.patch(f"{api}/work_pools/{name}", json={"base_job_template": template})
    assert changed.status_code == 204, changed.text
    listed = launch("queue", "list", "--json")
    assert name in [queue["name"] for queue in listed.json]
    assert "did you mean 'registry'" in listed.err
    assert "cannot be read" in launch("queue", "show", name).out
    checks = {check["name"]: check for check in launch("doctor", "-q", name, "--json", code=None).json["checks"]}
    assert checks[f"builder of {name}"]["level"] == "problem"


def test_doctor_looks_at_git(launch: Launch, queue: Callable[..., str], tmp_path: Path) -> None:
    name = queue(target="process")

    def git(path: str) -> dict[str, str]:
        found = launch("doctor", "-q", name, "--json", env={"PATH": path}, code=None).json["checks"]
        return next(check for check in found if check["name"] == "git")

    assert git(os.environ["PATH"])["message"].startswith("Version 2.")
    assert git(str(tmp_path)) == {
        "name": "git",
        "level": "warning",
        "message": "It is not installed: no job from git can be run here.",
        "mend": "Install git.",
    }


def test_prune_removes_what_nobody_needs(
    launch: Launch, queue: Callable[..., str], tmp_path: Path, environment: dict[str, str]
) -> None:
    on, home, no_engine = queue(), tmp_path / "home", f"unix://{tmp_path}/none.sock"
    env = {"LAUNCH_HOME": str(home), "DOCKER_HOST": no_engine}
    wanted, unwanted = (tmp_path / f"{name}-{uuid.uuid4().hex[:8]}" for name in ("wanted", "unwanted"))
    for folder in (wanted, unwanted):
        folder.mkdir()
        (folder / "train.py").write_text(folder.name)
        launch("job", "create", "code", folder, "-q", on, *PYTHON, env=env)
    digest = launch("job", "show", unwanted.name, "--json").json["source"]["digest"]
    launch("job", "delete", unwanted.name, "--yes")
    kept = sorted((home / "code").glob("*.tar.gz"))
    for file in kept:
        os.utime(file, (1, 1))

    assert launch("prune", "--json", env=env).json["removed"] == [], "there is room"
    would = launch("prune", "--budget", "0", "--dry-run", "--json", env=env).json
    assert [(each["kind"], each["name"]) for each in would["removed"]] == [("snapshot", digest)]
    assert would["freed"] > 0
    assert sorted((home / "code").glob("*.tar.gz")) == kept
    done = launch("prune", "--budget", "0", env=env)
    assert digest in done.out
    assert "images are left alone" in done.err
    assert len(list((home / "code").glob("*.tar.gz"))) == 1
    assert "nothing to remove" in launch("prune", "--budget", "0", env=env).err
    assert launch("prune", env=env | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}, code=3)


def test_doctor_asks_the_registry(
    launch: Launch, queue: Callable[..., str], basic_registry: Registry, open_registry: Registry, tmp_path: Path
) -> None:
    def check(name: str) -> dict[str, str]:
        env = {"DOCKER_CONFIG": str(tmp_path)}
        found = launch("doctor", "-q", name, "--json", env=env, code=None).json["checks"]
        return next(check for check in found if check["name"] == f"registry of {name}")

    assert check(queue("--registry", f"{open_registry.address}/team"))["level"] == "ok"
    refused = check(queue("--registry", f"{basic_registry.address}/team"))
    assert refused["level"] == "problem"
    assert "refuses" in refused["message"]
    assert "docker login" in refused["mend"]
    gone = check(queue("--registry", f"127.0.0.1:{free_port()}/team"))
    assert "does not answer" in gone["message"]
