"""An image with neither Python nor a shell nor any library: one static program, made here from `tiny.c`.

From a shell: `python tests/testbed/tiny_image.py` prints its name.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docker import DockerClient

SOURCE = Path(__file__).with_name("tiny.c")
REPOSITORY = "launch-prefect-test/tiny"


class NoCompilerError(Exception):
    """This machine cannot compile a static program."""


def tiny_image(engine: DockerClient) -> str:
    """The image's name; the image is made where the engine does not have it.

    It has no entrypoint, and its own command is `/tiny 0`.

    Raises:
        NoCompilerError: There is no C compiler, or no static C library.
    """
    tag = hashlib.sha256(SOURCE.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    name = f"{REPOSITORY}:{tag}"
    if not engine.images.list(name):
        engine.api.import_image_from_data(
            _archive(_compile()), repository=REPOSITORY, tag=tag, changes=['CMD ["/tiny", "0"]']
        )
    return name


def _compile() -> bytes:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompilerError("No C compiler is here; install gcc and libc6-dev.")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "tiny")
        done = subprocess.run(
            [compiler, "-static", "-Os", "-s", "-o", program, SOURCE],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NoCompilerError(f"{compiler} cannot make a static program; install libc6-dev.\n{done.stderr}")
        return program.read_bytes()


def _archive(program: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("tiny")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()


if __name__ == "__main__":
    import docker

    try:
        print(tiny_image(docker.from_env()))
    except NoCompilerError as error:
        sys.exit(str(error))
