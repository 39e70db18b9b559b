"""Mirrors of git repositories: what they spare, and what they survive of servers, cables and disks."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launch_prefect.errors import InvalidInput, LaunchError, NotFound, Unreachable
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.git import GitCode, command, resolve
from launch_prefect.spec import GitSource
from tests.testbed.git_helpers import (
    NOBODY,
    fetching,
    files,
    git_processes,
    kill_git,
    source,
    wait_until,
)
from tests.testbed.git_servers import HttpsServer, Repository, git

pytest_plugins = ["tests.testbed.git_fixtures"]


class TestMirror:
    @pytest.fixture(autouse=True)
    def _make(self, repository: Repository) -> None:
        repository.commit({"big.txt": "\n".join(str(n * 7919 % 104729) for n in range(200_000))})

    def test_a_second_fetch_asks_for_nothing_and_a_new_commit_for_little(
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings, fetch: Callable[..., Path]
    ) -> None:
        pinned = resolve(source(git_https, repository), git_settings)
        fetch(pinned)
        first = git_https.sent
        git_https.reset()
        fetch(pinned)
        assert git_https.requests == []
        repository.commit({"train.py": "print('new')\n"})
        assert (fetch(source(git_https, repository)) / "train.py").read_text() == "print('new')\n"
        assert git_https.sent < 4096 < 100_000 < first

    def test_a_commit_that_was_forced_away(
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings, fetch: Callable[..., Path]
    ) -> None:
        held = resolve(source(git_https, repository), git_settings)
        fetch(held)
        repository.git("reset", "--quiet", "--hard", "HEAD~1")
        repository.commit({"train.py": "print('other')\n"})
        lost = GitSource(git=held.git, commit="12" * 20)
        assert "big.txt" in files(fetch(held)), "this machine still has it"
        with pytest.raises(NotFound, match="force-push"):
            fetch(lost)

    def test_each_use_renews_the_time_of_its_folder(
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings, fetch: Callable[..., Path]
    ) -> None:
        pinned = resolve(source(git_https, repository), git_settings)
        fetch(pinned)
        mirror = next(path for path in git_settings.folder("git").iterdir() if path.is_dir())
        os.utime(mirror, (0, 0))
        started = time.time() - 1
        fetch(pinned)
        assert mirror.stat().st_mtime > started, "house-keeping leaves alone what was used lately"

    def test_a_connection_that_is_cut_is_tried_again(
        self,
        git_https: HttpsServer,
        repository: Repository,
        git_settings: LaunchSettings,
        fetch: Callable[..., Path],
        lines: list[str],
    ) -> None:
        pinned = resolve(source(git_https, repository), git_settings)
        git_https.faults.cut_after, git_https.faults.cuts = 50_000, 2
        assert "big.txt" in files(fetch(pinned))
        assert [line for line in lines if "Trying again (3 of 3)" in line]
        mirror = next(path for path in git_settings.folder("git").iterdir() if path.is_dir())
        git("fsck", "--strict", cwd=mirror)

    def test_a_server_that_goes_on_cutting_is_unreachable(
        self,
        git_https: HttpsServer,
        repository: Repository,
        git_settings: LaunchSettings,
        fetch: Callable[..., Path],
        tmp_path: Path,
    ) -> None:
        pinned = resolve(source(git_https, repository), git_settings)
        git_https.faults.cut_after, git_https.faults.cuts = 50_000, 99
        with pytest.raises(Unreachable):
            fetch(pinned)
        assert list(tmp_path.iterdir()) == []
        git_https.reset()
        assert "big.txt" in files(fetch(pinned))

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_a_server_in_trouble(
        self, status: int, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings
    ) -> None:
        git_https.faults.status = status
        with pytest.raises(Unreachable, match=str(status)):
            resolve(source(git_https, repository), git_settings)
        assert len(git_https.requests) == 3

    @pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (403, InvalidInput)])
    def test_a_server_that_refuses(
        self,
        status: int,
        kind: type[LaunchError],
        git_https: HttpsServer,
        repository: Repository,
        git_settings: LaunchSettings,
    ) -> None:
        git_https.faults.status = status
        with pytest.raises(kind, match="name a block with a token"):
            resolve(source(git_https, repository), git_settings)
        assert len(git_https.requests) == 1, "asking again would not help"

    def test_a_server_that_stops_sending_is_unreachable(
        self,
        git_https: HttpsServer,
        repository: Repository,
        git_settings: LaunchSettings,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        pinned = resolve(source(git_https, repository), git_settings)
        monkeypatch.setattr(command, "STALLED_AFTER", 1)
        git_https.faults.stall = True
        with pytest.raises(Unreachable, match="too slow"):
            GitCode(pinned, git_settings).fetch(tmp_path / "into", log=print, stop=NOBODY)

    @pytest.mark.parametrize("scheme", ["https://", "ssh://git@"])
    def test_a_server_that_takes_the_connection_and_says_nothing_is_unreachable(
        self, scheme: str, git_settings: LaunchSettings, lines: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(command, "TOLD_AFTER", 0.3)
        monkeypatch.setattr(command, "SILENT_AFTER", 0.6)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"{scheme}127.0.0.1:{silent.getsockname()[1]}/x.git"
            started = time.monotonic()
            with pytest.raises(Unreachable, match=r"127\.0\.0\.1 does not answer"):
                resolve(GitSource(git=url), git_settings, log=lines.append)
        assert time.monotonic() - started < 10
        assert git_processes() == []
        assert [line for line in lines if "does not answer. Trying again (3 of 3)" in line]
        assert lines.count("Waiting for 127.0.0.1.") == 3

    def test_a_server_that_is_slow_and_not_silent_is_waited_for(
        self,
        git_https: HttpsServer,
        repository: Repository,
        git_settings: LaunchSettings,
        fetch: Callable[..., Path],
        lines: list[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        pinned = resolve(source(git_https, repository), git_settings)
        monkeypatch.setattr(command, "SILENT_AFTER", 2)
        git_https.faults.slow = 0.5
        started = time.monotonic()
        assert "big.txt" in files(fetch(pinned))
        assert time.monotonic() - started > 3
        assert not [line for line in lines if "Trying again" in line]

    def test_no_server_at_all(self, git_settings: LaunchSettings) -> None:
        with pytest.raises(Unreachable, match="Failed to connect"):
            resolve(GitSource(git="https://127.0.0.1:9/x.git"), git_settings)

    def test_a_fetch_from_a_slow_server_is_given_up_within_a_second(
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings, tmp_path: Path
    ) -> None:
        pinned = resolve(source(git_https, repository), git_settings)
        git_https.faults.stall = True
        with fetching(GitCode(pinned, git_settings), tmp_path / "into") as stop:
            wait_until(lambda: [request for request in git_https.requests if "upload-pack" in request.path])
            wait_until(git_processes)
            started = time.monotonic()
            stop.set()
        assert time.monotonic() - started < 1
        assert git_processes() == []
        assert list(tmp_path.iterdir()) == []

    def test_a_killed_fetch_leaves_a_mirror_that_works(
        self,
        git_https: HttpsServer,
        repository: Repository,
        git_settings: LaunchSettings,
        fetch: Callable[..., Path],
        tmp_path: Path,
    ) -> None:
        pinned = resolve(source(git_https, repository), git_settings)
        fetch(pinned)
        newer = repository.commit({"more.txt": "\n".join(str(n * 7907 % 104729) for n in range(200_000))})
        git_https.faults.cut_after, git_https.faults.cuts = 50_000, 0
        git_https.faults.stall = True
        with fetching(GitCode(pinned.model_copy(update={"commit": newer}), git_settings), tmp_path / "half"):
            wait_until(git_processes)
            kill_git()
        mirror = next(path for path in git_settings.folder("git").iterdir() if path.is_dir())
        for left in (
            "shallow.lock",
            "packed-refs.lock",
            f"refs/launch/commits/{newer}.lock",
            "objects/pack/tmp_pack_x",
        ):
            (mirror / left).write_text("half")
        git_https.reset()
        (mirror / "mark").touch()
        assert "more.txt" in files(fetch(pinned.model_copy(update={"commit": newer})))
        assert (mirror / "mark").exists(), "what it held is not fetched again"
        assert not list(mirror.rglob("*.lock"))
        assert not list(mirror.rglob("tmp_*"))

    @pytest.mark.parametrize("damage", ["pack", "head", "ref"])
    def test_a_damaged_mirror_is_made_anew(
        self,
        damage: str,
        git_https: HttpsServer,
        repository: Repository,
        git_settings: LaunchSettings,
        fetch: Callable[..., Path],
    ) -> None:
        pinned = resolve(source(git_https, repository), git_settings)
        fetch(pinned)
        mirror = next(path for path in git_settings.folder("git").iterdir() if path.is_dir())
        if damage == "pack":
            pack = next(mirror.glob("objects/pack/*.pack"))
            pack.chmod(0o644)
            content = bytearray(pack.read_bytes())
            content[12:-20] = bytes(len(content) - 32)
            pack.write_bytes(content)
        elif damage == "head":
            (mirror / "HEAD").unlink()
        else:
            (mirror / "refs" / "launch" / "commits" / str(pinned.commit)).write_text("")
        assert "big.txt" in files(fetch(pinned))

    def test_two_fetches_at_once(
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings, tmp_path: Path
    ) -> None:
        code = GitCode(resolve(source(git_https, repository), git_settings), git_settings)
        git_https.reset()
        with ThreadPoolExecutor(4) as pool:
            digests = set(pool.map(lambda n: code.fetch(tmp_path / str(n), log=print, stop=NOBODY), range(4)))
        assert len(digests) == 1
        assert (
            len(
                [
                    request
                    for request in git_https.requests
                    if request.path.endswith("/info/refs?service=git-upload-pack")
                ]
            )
            == 1
        )

    def test_a_server_that_gives_no_commit_by_its_name(
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings, fetch: Callable[..., Path]
    ) -> None:
        git("-C", repository.bare, "config", "protocol.version", "0")
        pinned = GitSource(git=f"{git_https.url}/{repository.path}", commit=repository.git("rev-parse", "HEAD~1"))
        assert "big.txt" not in files(fetch(pinned))
