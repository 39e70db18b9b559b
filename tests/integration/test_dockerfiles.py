"""Generated Dockerfiles, built by a real engine: what is installed, who the job runs as, and where secrets are not."""

from __future__ import annotations

import os
import shutil
import tarfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launch_prefect.errors import BuildFailed
from launch_prefect.images.builders.docker import DockerBuilder
from launch_prefect.images.detect import NOTHING_SAID, Environment, detect
from launch_prefect.images.dockerfile import CA_SECRET, CODE, FILES, RUNTIME, code_dockerfile, environment_dockerfile
from launch_prefect.spec.build import BuildSpec
from tests.testbed import packages

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.docker

SIX = "six==1.17.0 --hash=sha256:4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"
PASSWORD = "hunter2-correct-horse"


class Workshop:
    """Builds images from code as the service does, under names of its own, and removes them."""

    def __init__(self, folder: Path, engine: DockerClient, base: str) -> None:
        self.folder, self.engine, self.base = folder, engine, base
        self.tag = f"launch-prefect-test/dockerfiles-{uuid.uuid4().hex}"
        self.lines: list[str] = []
        self._tags: set[str] = set()

    def code(self, files: Mapping[str, str]) -> Path:
        code = self.folder / "code"
        for name, text in {"train.py": "print('hello')\n", **files}.items():
            (code / name).parent.mkdir(parents=True, exist_ok=True)
            (code / name).write_text(text)
        return code

    async def image(
        self,
        files: Mapping[str, str],
        *,
        build: BuildSpec = NOTHING_SAID,
        secrets: Mapping[str, str] | None = None,
        base: str | None = None,
    ) -> str:
        """Build both images; the name of the one with the code."""
        code = self.code(files)
        environment = detect(code, build=build)
        text = environment_dockerfile(environment, base or self.base, build=build, secrets=secrets or {})
        await self.build(self._environment_context(environment), text, "environment", secrets or {})
        context = self._code_context(code)
        return await self.build(context, code_dockerfile(f"{self.tag}:environment", build=build), "code")

    async def build(self, context: Path, text: str, name: str, secrets: Mapping[str, str] | None = None) -> str:
        files: dict[str, Path] = {}
        if bundle := os.environ.get("SSL_CERT_FILE"):
            files[CA_SECRET] = Path(bundle)
        for key, value in (secrets or {}).items():
            files[key] = self.folder / f"secret-{key}"
            files[key].write_text(value)
        tag = f"{self.tag}:{name}"
        self._tags.add(tag)
        await DockerBuilder().build(context, text, tag, secrets=files, labels={}, log=self.lines.append)
        return tag

    def _environment_context(self, environment: Environment) -> Path:
        context = self.folder / "environment"
        for name, content in environment.files.items():
            (context / FILES / name).parent.mkdir(parents=True, exist_ok=True)
            (context / FILES / name).write_bytes(content)
        context.mkdir(exist_ok=True)
        return context

    def _code_context(self, code: Path) -> Path:
        context = self.folder / "context"
        shutil.copytree(code, context / CODE)
        (context / RUNTIME).mkdir()
        (context / RUNTIME / "launch_run.py").write_text("here = True\n")
        return context

    def run(self, image: str, *command: str, **options: object) -> str:
        output = self.engine.containers.run(image, list(command), remove=True, init=True, **options)
        return bytes(output).decode().strip()

    def base_of(self, commands: str, name: str = "base") -> str:
        """A base image made from the one that is here by changing its files as root."""
        tag = f"{self.tag}:{name}"
        container = self.engine.containers.run(self.base, ["sh", "-ec", commands], detach=True)
        try:
            assert container.wait()["StatusCode"] == 0, container.logs()
            container.commit(*tag.split(":"))
        finally:
            container.remove()
        self._tags.add(tag)
        return tag

    def clean(self) -> None:
        for tag in self._tags:
            if self.engine.images.list(tag):
                self.engine.images.remove(tag, force=True)


@pytest.fixture
def workshop(tmp_path: Path, docker_engine: DockerClient, base_image: str) -> Iterator[Workshop]:
    workshop = Workshop(tmp_path, docker_engine, base_image)
    yield workshop
    workshop.clean()


@pytest.fixture
def host(docker_engine: DockerClient) -> str:
    """Address of this machine as the engine's containers see it."""
    return str(docker_engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"])


async def test_constraints_and_hashes(workshop: Workshop) -> None:
    image = await workshop.image({"requirements.txt": f"-r req/more.txt\n{SIX}\n", "req/more.txt": "-c limits.txt\n",
                                  "req/limits.txt": "six<2\n"})  # fmt: skip
    assert workshop.run(image, "python", "-c", "import six; print(six.__version__)") == "1.17.0"
    shutil.rmtree(workshop.folder / "context")
    with pytest.raises(BuildFailed, match="DO NOT MATCH THE HASHES"):
        await workshop.image({"requirements.txt": SIX[:-4] + "0000"})
    with pytest.raises(BuildFailed, match="constraint"):
        await workshop.image({"requirements.txt": "six==1.17.0\n-r req/more.txt\n", "req/limits.txt": "six<1.17\n"})


async def test_the_job_has_no_rights_and_can_write_where_it_must(workshop: Workshop) -> None:
    image = await workshop.image({})
    assert workshop.run(image, "id") == "uid=1000(launch) gid=1000(launch) groups=1000(launch)"
    (output := workshop.folder / "output").mkdir()
    output.chmod(0o777)
    script = "touch $HOME/a /workspace/a /output/a train.py && mkdir new && pwd && echo $HOME"
    where = workshop.run(image, "sh", "-ec", script, volumes={str(output): {"bind": "/output", "mode": "rw"}})
    assert where.split() == ["/workspace", "/home/launch"]
    assert (output / "a").stat().st_uid == 1000
    outcome = workshop.run(image, "sh", "-c", "touch /etc/a /a /opt/launch-prefect/a || echo refused", stderr=True)
    assert outcome.count("Permission denied") == 3
    assert (
        workshop.run(image, "python", "-c", "import launch_run, pathlib; print(pathlib.Path.home())") == "/home/launch"
    )
    assert workshop.run(image, "sh", "-c", "touch $HOME/b && echo written", user="1234:1234") == "written"
    assert workshop.run(image, "stat", "-c", "%a %u", "/") == "755 0"


async def test_root_for_who_asks(workshop: Workshop) -> None:
    image = await workshop.image({}, build=BuildSpec(user="root"))
    assert workshop.run(image, "id", "-u") == "0"
    assert workshop.run(image, "sh", "-c", "touch a $HOME/a && echo $HOME && ls /home") == "/root"


@pytest.mark.parametrize(
    ("commands", "name"),
    [
        ("echo someone:x:1000:100::/home/someone:/bin/sh >>/etc/passwd", "someone"),
        ("printf root:x:0:0:root:/root:/bin/sh >/etc/passwd; printf root:x:0: >/etc/group", "launch"),
        ("rm /etc/passwd /etc/group", "launch"),
        ("echo other:x:11000:1000::/:/bin/sh >>/etc/passwd; echo other:x:1000: >>/etc/group", "launch"),
    ],
)
async def test_users_that_a_base_image_has(workshop: Workshop, commands: str, name: str) -> None:
    image = await workshop.image({}, base=workshop.base_of(commands))
    assert workshop.run(image, "id", "-un") == name
    assert workshop.run(image, "sh", "-c", "touch $HOME/a a && tail -n 1 /etc/passwd").startswith(f"{name}:x:1000:")


async def test_a_base_with_another_user_and_shell(workshop: Workshop) -> None:
    base = await workshop.build(workshop.code({}), f'FROM {workshop.base}\nUSER 65534\nSHELL ["/bin/ash", "-c"]\n', "b")
    image = await workshop.image({"requirements.txt": "six"}, base=base)
    assert workshop.run(image, "python", "-c", "import six, os; print(os.getuid())") == "1000"


@pytest.mark.parametrize(
    ("commands", "prefix"),
    [
        ("touch /a", "/usr"),
        ("rm $(command -v python)", "/opt/venv"),
        ("python3 -m pip uninstall -qy pip --break-system-packages 2>/dev/null; rm $(command -v python)", "/opt/venv"),
    ],
)
async def test_the_python_of_a_base_is_taken_where_it_fits(workshop: Workshop, commands: str, prefix: str) -> None:
    image = await workshop.image({"requirements.txt": "six"}, base=workshop.base_of(commands))
    assert workshop.run(image, "python", "-c", "import six; print(six.__file__)").startswith(prefix)


async def test_a_base_without_python_and_package_manager(workshop: Workshop) -> None:
    base = workshop.base_of("rm $(command -v python) $(command -v python3)")
    with pytest.raises(BuildFailed, match="no package manager to install Python with"):
        await workshop.image({"requirements.txt": "six"}, base=base)
    (workshop.folder / "code" / "requirements.txt").unlink()
    with pytest.raises(BuildFailed, match="no package manager to install system_packages with"):
        await workshop.image({}, base=base, build=BuildSpec(system_packages=("ffmpeg",)))
    assert workshop.run(await workshop.image({}, base=base), "cat", "train.py") == "print('hello')"


async def test_a_private_index_by_a_build_secret_that_stays_nowhere(workshop: Workshop, host: str) -> None:
    packages.make_wheel(workshop.folder / "index", "teampackage")
    with packages.served(workshop.folder / "index", host, PASSWORD) as address:
        secrets = {
            "PIP_EXTRA_INDEX_URL": f"http://reader:{PASSWORD}@{address}/simple\n",
            "PIP_TRUSTED_HOST": host,
        }
        image = await workshop.image({"requirements.txt": "teampackage"}, secrets=secrets)
        assert workshop.run(image, "python", "-c", "import teampackage as t; print(t.__version__)") == "1.0"
        assert_nowhere(workshop, image, PASSWORD)
        # The same by uv, and by a .netrc
        shutil.rmtree(workshop.folder / "context")
        secrets["NETRC"] = f"machine {host}\nlogin reader\npassword {PASSWORD}\n"
        secrets["PIP_EXTRA_INDEX_URL"] = f"http://{address}/simple"
        (workshop.folder / "code" / "requirements.txt").unlink()
        project = '[project]\nname = "x"\nversion = "1"\ndependencies = ["teampackage"]\n'
        image = await workshop.image({"pyproject.toml": project}, secrets=secrets)
        assert workshop.run(image, "python", "-c", "import teampackage as t; print(t.__version__)") == "1.0"
        assert_nowhere(workshop, image, PASSWORD)


def assert_nowhere(workshop: Workshop, image: str, secret: str) -> None:
    """Not in the log, nor in what `docker history` and `docker inspect` show, nor in a file of any layer."""
    assert secret not in "\n".join(workshop.lines)
    found = workshop.engine.images.get(image)
    assert secret not in str(found.history()) + str(found.attrs)
    saved = workshop.folder / "image.tar"
    with saved.open("wb") as file:
        file.writelines(found.save())
    looked_at = 0
    with tarfile.open(saved) as archive:
        for member in archive:
            content = archive.extractfile(member)
            looked_at += 1
            assert content is None or secret.encode() not in content.read()
    assert looked_at > 5
    assert workshop.run(image, "sh", "-c", "cat /run/secrets/* 2>/dev/null | wc -c") == "0"
    assert "PIP_" not in workshop.run(image, "env")


async def test_the_jobs_own_dockerfile_keeps_its_user_and_folder(workshop: Workshop) -> None:
    text = f"FROM {workshop.base}\nCOPY src/train.py /app/\nWORKDIR /app\nUSER 4321\n"
    code = workshop.code({"src/train.py": "print('own')", "src/Dockerfile.launch": text})
    found = detect(code, command=["python", "src/train.py"])
    assert found.dockerfile == "src/Dockerfile.launch"
    own = await workshop.build(code / found.context, found.files[found.dockerfile].decode(), "own")
    context = workshop._code_context(code)
    image = await workshop.build(context, code_dockerfile(own, with_code=False), "code")
    assert workshop.run(image, "sh", "-c", "id -u; pwd; ls; ls /workspace 2>/dev/null || echo none") == (
        "4321\n/app\ntrain.py\nnone"
    )
    assert workshop.run(image, "python", "-c", "import launch_run; print(launch_run.here)") == "True"


async def test_conda(workshop: Workshop, host: str) -> None:
    packages.make_wheel(workshop.folder / "served", "teampackage", "2.0")
    python = workshop.run(workshop.base, "python", "-c", "import os, sys; print(os.path.realpath(sys.executable))")
    greet = {"bin/greet": b"#!/bin/sh\necho greetings\n"}
    newer = {"bin/greet": b"#!/bin/sh\necho newer\n"}
    content = {"greet-1.2": greet, "greet-1.3": newer, "python-3.11": packages.python_package(python)}
    packages.make_channel(workshop.folder / "served" / "channel", content)
    with packages.served(workshop.folder / "served", host) as address:
        pip = f"[--extra-index-url http://{address}/simple, teampackage]"
        text = f"name: mine\nchannels: [http://{address}/channel]\ndependencies: [greet=1.2, python, pip: {pip}]\n"
        image = await workshop.image({"environment.yml": text})
    assert workshop.run(image, "greet") == "greetings"
    assert workshop.run(image, "python", "-c", "import teampackage as t, sys; print(t.__version__, sys.prefix)") == (
        "2.0 /opt/conda-environment"
    )
    assert workshop.run(image, "ls", "/tmp") == ""
    assert any("greet 1.2" in line for line in workshop.lines)


async def test_conda_that_does_not_resolve(workshop: Workshop, host: str) -> None:
    packages.make_channel(workshop.folder / "served", {"greet-1.2": {}})
    with packages.served(workshop.folder / "served", host) as address:
        text = f"channels: [http://{address}]\ndependencies: [greet=9]\n"
        with pytest.raises(BuildFailed, match=r"could not be installed: .*greet") as caught:
            await workshop.image({"environment.yml": text})
    assert "Traceback" not in caught.value.message
