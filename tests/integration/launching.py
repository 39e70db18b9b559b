"""The program as a user has it who has set the server's address alone; for tests to name in `pytest_plugins`."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from launch_prefect.cli import app
from launch_prefect.settings import get_settings
from tests.conftest import missing
from tests.e2e.system import Done


@pytest.fixture(scope="module")
def api(request: pytest.FixtureRequest) -> str:
    """Address of a Prefect API."""
    if url := os.environ.get("LAUNCH_TEST_API_URL"):
        return url
    try:
        return str(request.getfixturevalue("prefect_server"))
    except pytest.FixtureLookupError:
        missing("No Prefect server: name one in LAUNCH_TEST_API_URL.")


Launch = Callable[..., Done]


@pytest.fixture(scope="module")
def environment(api: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user who has set the server's address alone."""
    home = tmp_path_factory.mktemp("home")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "LAUNCH_"))}
    return inherited | {"PREFECT_API_URL": api, "LAUNCH_HOME": str(home), "PREFECT_HOME": str(home / "prefect")}


@pytest.fixture(scope="module")
def launch(environment: dict[str, str]) -> Launch:
    """Runs a command in this process, which spares importing Prefect each time; whatever it is given, no traceback."""

    def run(*words: str | Path, env: dict[str, str] | None = None, cwd: Path | str = "/", code: int | None = 0) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, environment | (env or {}), clear=True),
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            get_settings.cache_clear()
            try:
                ended = app.run([str(word) for word in words])
            finally:
                get_settings.cache_clear()
        done = Done(ended, out.getvalue(), err.getvalue())
        assert "Traceback" not in done.out + done.err
        if code is not None:
            assert done.code == code, done.out + done.err
        return done

    return run


@pytest.fixture(scope="module")
def program(environment: dict[str, str]) -> Launch:
    """Runs the program in a process of its own, as a user does."""

    def run(*words: str | Path, env: dict[str, str] | None = None, code: int) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "launch_prefect.cli", *map(str, words)],
            env=environment | (env or {}),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr
        assert done.returncode == code, done.stdout + done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="module")
def tag() -> str:
    """Part of every name, for a server that others use too."""
    return uuid.uuid4().hex[:8]
