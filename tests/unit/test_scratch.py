"""Temporary files: for their user alone, and removed after whoever was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launch_prefect.scratch import leave, scratch, sweep
from launch_prefect.settings import LaunchSettings


@pytest.fixture
def settings(tmp_path: Path) -> LaunchSettings:
    return LaunchSettings(home=tmp_path)


def test_nobody_else_may_enter_it(settings: LaunchSettings) -> None:
    folder = scratch(settings)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert scratch(settings) == folder


def test_what_a_killed_process_has_left_is_removed_and_what_others_use_stays(settings: LaunchSettings) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; from launch_prefect.scratch import scratch;"
        "from launch_prefect.settings import LaunchSettings;"
        f"folder = scratch(LaunchSettings(home={str(settings.home)!r})); (folder / 'secret').write_text('hunter2');"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    (left,) = [path for path in (settings.home / "tmp").iterdir() if path.is_dir()]
    assert (left / "secret").read_text() == "hunter2"
    own = scratch(settings)
    (own / "file").touch()
    (settings.home / "tmp" / "stray").mkdir()
    sweep(settings)
    assert [path for path in (settings.home / "tmp").iterdir() if path.is_dir()] == [own]
    assert (own / "file").exists()
    assert len(list((settings.home / "tmp").iterdir())) == 2  # the folder and its lock


def test_a_live_process_keeps_its_own_while_another_one_sweeps(settings: LaunchSettings) -> None:
    (scratch(settings) / "secret").touch()
    program = (
        "from launch_prefect.scratch import sweep; from launch_prefect.settings import LaunchSettings;"
        f"sweep(LaunchSettings(home={str(settings.home)!r}))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (scratch(settings) / "secret").exists()


def test_at_the_end_it_goes_if_it_is_empty(settings: LaunchSettings) -> None:
    folder = scratch(settings)
    (folder / "file").touch()
    leave(settings)
    assert folder.exists()
    (folder / "file").unlink()
    leave(settings)
    assert not any((settings.home / "tmp").iterdir())
    leave(settings)  # with nothing to leave
    assert scratch(settings).is_dir()
