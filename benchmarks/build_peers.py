"""What `build.py` measures beside us: a bare `docker run`, one `docker build` of a plain Dockerfile, repo2docker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path

from build_ours import COMMAND, Bench, Failed, Folder, secret_options

from launch_prefect.images.shell import CA_SECRET

# The one that W&B Launch generates has this shape: the code first, then pip with a cache of its own.
DOCKERFILE = f"""\
FROM {{base}}
COPY . /workspace
WORKDIR /workspace
RUN --mount=type=cache,id={{cache}},target=/root/.cache/pip --mount=type=secret,id={CA_SECRET} \\
    if [ -s /run/secrets/{CA_SECRET} ]; then export PIP_CERT=/run/secrets/{CA_SECRET}; fi \\
    && python -m pip install --disable-pip-version-check --root-user-action=ignore -r requirements.txt
"""
# repo2docker's builder knows neither mounts nor secrets.
DOCKERFILE_WITHOUT_MOUNTS = """\
FROM {base}
COPY . /workspace
WORKDIR /workspace
RUN if [ -s ca-bundle.pem ]; then export PIP_CERT=/workspace/ca-bundle.pem; fi \\
    && python -m pip install --disable-pip-version-check --root-user-action=ignore -r requirements.txt
"""
SECONDS = 900


def bare_run(bench: Bench, image: str) -> float:
    """Seconds from the call of `docker run` to the start of its container."""
    file = bench.folder / f"cid-{uuid.uuid4().hex}"
    # It may run as long as it likes: the start is what counts.
    words = [bench.program, "run", "--init", "--cidfile", str(file), "--entrypoint", COMMAND[0], image, *COMMAND[1:]]
    began = time.time()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    container = file.read_text().strip()
    try:
        return bench.started({"container": container}, began) - began
    finally:
        bench.engine.api.remove_container(container, v=True, force=True)


class Plain:
    """One `docker build` of a plain Dockerfile, with the client and the engine that we use.

    Args:
        bench: Where.
        code: The folder. A copy of it with the Dockerfile is what is built.
    """

    def __init__(self, bench: Bench, code: Folder) -> None:
        self._bench = bench
        self._code = code
        self._cache = f"bench-{uuid.uuid4().hex}"  # empty for the first build, and kept for the next
        self._built: list[str] = []
        bench.at_end.callback(self._clean)

    def build(self) -> float:
        """Seconds that a build of the folder as it is now takes.

        Raises:
            Failed: It cannot be built.
        """
        context = _copied(self._bench, self._code, DOCKERFILE.format(base=self._bench.base_image, cache=self._cache))
        file = self._bench.folder / f"id-{uuid.uuid4().hex}"
        words = [*self._bench.client.command, "--quiet", "--iidfile", str(file), *secret_options(), str(context)]
        began = time.monotonic()
        done = subprocess.run(
            words, env=os.environ | self._bench.client.env, capture_output=True, text=True, check=False
        )
        took = time.monotonic() - began
        shutil.rmtree(context)
        if done.returncode:
            raise Failed(f"The plain Dockerfile could not be built:\n{done.stderr[-2000:]}")
        self._built.append(file.read_text().strip())
        return took

    def _clean(self) -> None:
        """Remove its images, and what was downloaded for them."""
        self._bench.remove(self._built)
        self._bench.empty_cache(self._cache)


class NotMeasured(Exception):
    """Something does not work here; the message says why."""


class Repo2Docker:
    """repo2docker from the package index, in a virtual environment of its own.

    Args:
        bench: Where.
        base_image: What its own Dockerfiles stand on. Default: what it chooses.

    Attributes:
        version: Its version.

    Raises:
        NotMeasured: It cannot be installed.
    """

    def __init__(self, bench: Bench, base_image: str | None = None) -> None:
        self._bench = bench
        self._options = [f"--Repo2Docker.base_image={base_image}"] if base_image else []
        self._built: list[str] = []
        bench.at_end.callback(self._clean)
        venv = bench.folder / "repo2docker"
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        python = venv / "bin" / "python"
        has_buildx = subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0
        # Later ones want the buildx plugin. It uses what chardet 6 has taken out.
        what = ["jupyter-repo2docker"] if has_buildx else ["jupyter-repo2docker<2024", "chardet<6"]
        _call([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what])
        ask = "import importlib.metadata as m; print(m.version('jupyter-repo2docker'))"
        self.version = _call([python, "-c", ask]).strip()
        self._program = venv / "bin" / "jupyter-repo2docker"

    def build(self, code: Folder, *, own_dockerfile: bool) -> float:
        """Seconds that a build of the folder as it is now takes.

        Args:
            code: The folder. A copy of it is what is built.
            own_dockerfile: With the plain Dockerfile in it; otherwise repo2docker makes one, with the Python and the
                packages that it always installs.

        Raises:
            NotMeasured: It does not work here.
        """
        text = DOCKERFILE_WITHOUT_MOUNTS.format(base=self._bench.base_image) if own_dockerfile else None
        context = _copied(self._bench, code, text)
        bundle = os.environ.get("SSL_CERT_FILE")
        if own_dockerfile and bundle:
            shutil.copy(bundle, context / "ca-bundle.pem")
        name = f"launch-prefect-bench/{uuid.uuid4().hex}"
        words = ["--no-run", "--user-id=1000", "--user-name=bench", f"--image-name={name}", *self._options]
        began = time.monotonic()
        try:
            _call([self._program, *words, context])
        finally:
            shutil.rmtree(context)
        self._built.append(name)
        return time.monotonic() - began

    def _clean(self) -> None:
        """Remove its images."""
        self._bench.remove(self._built)


def _call(words: list[str | Path]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"it did not end within {SECONDS} s") from None
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise NotMeasured(_reason(lines))
    return done.stdout


def _reason(lines: list[str]) -> str:
    """The line of a program's output that says why it failed, shortened."""
    likely = [line for line in lines if "no such host" in line or "not found" in line or "Error" in line]
    return " ".join((likely or lines or ["it said nothing"])[-1].split())[:200]


def _copied(bench: Bench, code: Folder, dockerfile: str | None) -> Path:
    context = bench.folder / f"context-{uuid.uuid4().hex}"
    shutil.copytree(code.path, context)
    if dockerfile is not None:
        (context / "Dockerfile").write_text(dockerfile)
    return context
