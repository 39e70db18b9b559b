"""Git sources against real git servers: pins, files, credentials, mirrors, faults."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from launch_prefect.errors import InvalidInput, LaunchError, NotFound, Unreachable
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.content import all_files, describe, digest_of
from launch_prefect.sources.git import GitCode, GitCredentials, GivenUp, credentials_from, resolve
from launch_prefect.sources.snapshot import take
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec import GitSource
from tests.conftest import missing
from tests.testbed.git_servers import GitServers, HttpsServer, Repository, SshServer, git

pytest_plugins = ["tests.testbed.git_fixtures"]

NOBODY = threading.Event()


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def settings(launch_home: Path, git_https: HttpsServer) -> LaunchSettings:
    return LaunchSettings(home=launch_home, ca_bundle=git_https.certificate)


@pytest.fixture
def repository(git_servers: GitServers) -> Repository:
    repository = git_servers.repository()
    repository.commit({"train.py": "print(1)\n", "lib/data.txt": "one\n", "lib/inner/more.txt": "more\n"})
    return repository


@pytest.fixture
def fetch(settings: LaunchSettings, tmp_path: Path, lines: list[str]) -> Callable[..., Path]:
    """Resolve and fetch a source into a new folder."""

    def fetch(source: GitSource, credentials: GitCredentials | None = None) -> Path:
        into = tmp_path / f"into-{len(list(tmp_path.iterdir()))}"
        pinned = resolve(source, settings, credentials, log=lines.append)
        digest = GitCode(pinned, settings, credentials).fetch(into, log=lines.append, stop=NOBODY)
        assert digest == digest_of(describe(into, path) for path in all_files(into))
        return into

    return fetch


def source(server: HttpsServer | SshServer, repository: Repository, **more: str | None) -> GitSource:
    return GitSource(git=f"{server.url}/{repository.path}", **more)


def files(folder: Path) -> set[str]:
    return set(all_files(folder))


def held_by(settings: LaunchSettings) -> list[Path]:
    return [path for path in settings.folder("git").rglob("*") if path.is_file()]


class TestRefs:
    @pytest.fixture(autouse=True)
    def _make(self, repository: Repository) -> None:
        self.old = repository.git("rev-parse", "HEAD")
        repository.git("tag", "--annotate", "--message", "Release", "v1.0")
        self.between = repository.commit({"train.py": "print(2)\n"})
        self.new = repository.commit({"train.py": "print(3)\n"})
        repository.git(
            "push", "--quiet", "origin", "v1.0", f"{self.between}:refs/heads/both", f"{self.old}:refs/tags/both"
        )

    def test_default_branch_branch_tag_and_sha(
        self, git_https: HttpsServer, repository: Repository, settings: LaunchSettings
    ) -> None:
        def commit(ref: str | None) -> str | None:
            return resolve(source(git_https, repository, ref=ref), settings).commit

        assert commit(None) == commit("HEAD") == commit("main") == commit("refs/heads/main") == self.new
        assert commit("v1.0") == self.old, "an annotated tag leads to its commit"
        assert commit(self.new[:9]) == self.new
        assert not held_by(settings), "for the tip of a branch the list of refs is enough"
        assert commit(self.between) == self.between
        assert commit(self.between[:10]) == self.between
        assert commit(self.old.upper()[:12]) == self.old

    def test_what_is_ambiguous_or_absent_is_named(
        self, git_https: HttpsServer, repository: Repository, settings: LaunchSettings
    ) -> None:
        def refused(ref: str) -> str:
            with pytest.raises(NotFound) as caught:
                resolve(source(git_https, repository, ref=ref), settings)
            return str(caught.value)

        assert "refs/heads/both or refs/tags/both" in refused("both")
        assert "Did you mean 'main'? Its branches are: both, main." in refused("mian")
        assert "has no branch, tag or commit abcdef1" in refused("abcdef1")
        assert "a force-push has taken it away" in refused("ab" * 20)

    def test_a_pinned_source_stays(
        self, git_https: HttpsServer, repository: Repository, settings: LaunchSettings
    ) -> None:
        pinned = source(git_https, repository, ref="main", commit=self.old)
        assert resolve(pinned, settings) == pinned
        assert not git_https.requests

    def test_an_empty_repository(
        self, git_https: HttpsServer, git_servers: GitServers, settings: LaunchSettings
    ) -> None:
        with pytest.raises(NotFound, match="is empty"):
            resolve(source(git_https, git_servers.repository()), settings)


class TestFiles:
    def test_the_same_files_have_the_same_digest_as_a_snapshot(
        self, git_https: HttpsServer, repository: Repository, settings: LaunchSettings, tmp_path: Path
    ) -> None:
        (repository.folder / "run.sh").write_text("#!/bin/sh\n")
        (repository.folder / "run.sh").chmod(0o755)
        (repository.folder / "link").symlink_to("lib/data.txt")
        repository.commit({"weights.bin": bytes(range(256)), "odd näme\n.txt": "x"})
        code = GitCode(resolve(source(git_https, repository), settings), settings)
        by_git = code.fetch(tmp_path / "into", log=print, stop=NOBODY)
        assert by_git == take(repository.folder, CodeStore(settings.code_store_url)).digest
        assert (tmp_path / "into" / "run.sh").stat().st_mode & 0o777 == 0o755
        assert ".git" not in {path.name for path in (tmp_path / "into").iterdir()}

    def test_key_is_of_commit_and_folder_not_of_the_address(self, settings: LaunchSettings) -> None:
        def key(url: str, **more: str) -> str:
            return GitCode(GitSource(git=url, commit="1" * 40, **more), settings).key

        assert (
            key("https://one.example.com/a")
            == key("git@two.example.com:b")
            == key("https://c.example.com/c", subdir=".")
        )
        assert key("https://one.example.com/a") != key("https://one.example.com/a", subdir="x")
        assert key("https://one.example.com/a") != key("https://one.example.com/a", patch="sha256:" + "0" * 64)

    def test_a_folder_of_it(
        self, git_https: HttpsServer, repository: Repository, fetch: Callable[..., Path], tmp_path: Path
    ) -> None:
        assert files(fetch(source(git_https, repository, subdir="lib"))) == {"data.txt", "inner/more.txt"}
        assert files(fetch(source(git_https, repository, subdir="lib/inner/"))) == {"more.txt"}
        for absent in ("nothing", "train.py", "li", "-x", ":(glob)*"):
            with pytest.raises(NotFound, match=r"no folder|is a file"):
                fetch(source(git_https, repository, subdir=absent))
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "nothing half-made stays"

    @pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "lib/../../outside", "around"])
    def test_a_link_that_leaves_the_folder_is_refused(
        self, target: str, git_https: HttpsServer, repository: Repository, fetch: Callable[..., Path], tmp_path: Path
    ) -> None:
        (repository.folder / "around").symlink_to(target)
        repository.commit({})
        with pytest.raises(InvalidInput, match="The link around leads to"):
            fetch(source(git_https, repository))
        assert list(tmp_path.iterdir()) == []

    def test_submodules(
        self, git_https: HttpsServer, git_servers: GitServers, repository: Repository, fetch: Callable[..., Path]
    ) -> None:
        inner, outer = git_servers.repository("lib/inner.git"), git_servers.repository("lib/outer.git")
        inner.commit({"inner.txt": "inner"})
        outer.commit(
            {"outer.txt": "outer", ".gitmodules": '[submodule "i"]\npath = deep/inner\nurl = ./../inner.git\n'}
        )
        add_link(outer, "deep/inner", inner.git("rev-parse", "HEAD"))
        url = f"{git_https.url}/{outer.path}"
        repository.commit({".gitmodules": f'[submodule "o"]\npath = parts/outer\nurl = {url}\n'})
        add_link(repository, "parts/outer", outer.git("rev-parse", "HEAD"))
        found = files(fetch(source(git_https, repository)))
        assert {"parts/outer/outer.txt", "parts/outer/deep/inner/inner.txt", "train.py"} <= found
        assert files(fetch(source(git_https, repository, subdir="parts/outer/deep"))) == {"inner/inner.txt"}
        git_https.requests.clear()
        fetch(source(git_https, repository, subdir="lib"))
        assert not [request for request in git_https.requests if "/lib/" in request.path], (
            "not those outside the folder"
        )

    @pytest.mark.parametrize(
        "url",
        ["ext::sh -c touch% /tmp/pwned", "file:///etc", "/etc", "-u./x", "http://127.0.0.1/x", "../../../../../x"],
    )
    def test_a_submodule_with_a_dangerous_address_is_refused(
        self, url: str, git_https: HttpsServer, repository: Repository, fetch: Callable[..., Path], tmp_path: Path
    ) -> None:
        repository.commit({".gitmodules": f'[submodule "bad"]\npath = bad\nurl = "{url}"\n'})
        add_link(repository, "bad", "1" * 40)
        with pytest.raises(InvalidInput, match=r"submodule|gitmodulesUrl"):
            fetch(source(git_https, repository))
        assert list(tmp_path.iterdir()) == []

    def test_large_files(
        self, git_https: HttpsServer, repository: Repository, fetch: Callable[..., Path], git_token: str
    ) -> None:
        if shutil.which("git-lfs") is None:
            missing("git-lfs is not installed; on Debian: apt-get install git-lfs")
        repository.git("lfs", "install", "--local", "--skip-repo")
        content = bytes(range(256)) * 5000
        repository.commit({".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "sub/big.bin": content})
        assert len(repository.git("show", "HEAD:sub/big.bin")) < 200
        shutil.rmtree(repository.bare / "lfs")
        with pytest.raises(NotFound, match="does not exist on the server"):
            fetch(source(git_https, repository), GitCredentials(None, token=git_token))
        shutil.copytree(repository.folder / ".git" / "lfs" / "objects", repository.bare / "lfs" / "objects")
        for subdir in (None, "sub"):
            found = fetch(source(git_https, repository, subdir=subdir), GitCredentials(None, token=git_token))
            assert next(found.rglob("big.bin")).read_bytes() == content
        assert not [request for request in git_https.requests[-3:] if "lfs" in request.path], "kept in the mirror"

    def test_without_git_lfs_the_log_tells(
        self,
        git_https: HttpsServer,
        repository: Repository,
        fetch: Callable[..., Path],
        lines: list[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 5\n"
        repository.commit({".gitattributes": "*.bin filter=lfs\n", "big.bin": pointer})
        programs = tmp_path_factory.mktemp("bin")
        for name in ("git", "env", "sh"):
            (programs / name).symlink_to(str(shutil.which(name)))
        monkeypatch.setenv("PATH", str(programs))
        assert (fetch(source(git_https, repository)) / "big.bin").read_text() == pointer
        assert any("1 large files (LFS) are pointers only" in line and "git-lfs" in line for line in lines)


class TestCredentials:
    def test_https_with_a_token_and_without(
        self,
        git_https: HttpsServer,
        git_token: str,
        repository: Repository,
        settings: LaunchSettings,
        fetch: Callable[..., Path],
        lines: list[str],
    ) -> None:
        named = source(git_https, repository, credentials="secret/my-token")
        assert "train.py" in files(fetch(named, credentials_from(git_token)))
        with pytest.raises(InvalidInput, match=r"No credentials were used.*secret/my-git-token"):
            resolve(source(git_https, repository), settings)
        with pytest.raises(InvalidInput, match="The token of the block secret/my-token was used") as caught:
            resolve(named, settings, GitCredentials(None, token="wrong-token"))
        assert "wrong-token" not in str(caught.value)
        for path in held_by(settings):
            assert git_token.encode() not in path.read_bytes(), path
        assert git_token not in "\n".join(lines)

    def test_the_token_is_on_no_command_line(
        self, git_https: HttpsServer, git_token: str, repository: Repository, settings: LaunchSettings, tmp_path: Path
    ) -> None:
        credentials = GitCredentials("me", token=git_token)
        code = GitCode(resolve(source(git_https, repository), settings, credentials), settings, credentials)
        git_https.faults.stall = True
        with fetching(code, tmp_path / "into") as stop:
            wait_until(lambda: git_processes())
            seen = [" ".join(process.cmdline()) for process in git_processes()]
            assert any("fetch" in line for line in seen)
            assert not [line for line in seen if git_token in line]
            stop.set()

    def test_the_token_goes_to_its_own_server_only(
        self,
        git_https: HttpsServer,
        git_token: str,
        git_servers: GitServers,
        repository: Repository,
        settings: LaunchSettings,
        fetch: Callable[..., Path],
    ) -> None:
        other_folder = git_servers.part(f"other-{time.monotonic_ns()}")
        with HttpsServer(git_servers.root, other_folder, token="of another") as other:
            both = settings.home / "both.pem"
            both.write_text(git_https.certificate.read_text() + other.certificate.read_text())
            trusting = settings.model_copy(update={"ca_bundle": both})
            credentials = GitCredentials(None, token=git_token)
            git_https.faults.redirect = f"{other.url}{{path}}"
            with pytest.raises(LaunchError) as caught:
                resolve(source(git_https, repository), trusting, credentials)
            assert other.requests, "git follows the redirect"
            assert not [request for request in other.requests if request.authorization]
            assert git_token not in str(caught.value)
            git_https.faults.redirect = None
            repository.commit({".gitmodules": f'[submodule "o"]\npath = o\nurl = {other.url}/{repository.path}\n'})
            add_link(repository, "o", repository.git("rev-parse", "HEAD"))
            pinned = resolve(source(git_https, repository), trusting, credentials)
            other.requests.clear()
            with pytest.raises(InvalidInput, match="No credentials were used"):
                GitCode(pinned, trusting, credentials).fetch(settings.home / "into", log=print, stop=NOBODY)
            assert other.requests
            assert not [request for request in other.requests if request.authorization]

    def test_ssh_with_a_key(
        self,
        git_ssh: SshServer,
        repository: Repository,
        settings: LaunchSettings,
        fetch: Callable[..., Path],
    ) -> None:
        def keys() -> set[Path]:
            return {*Path("/dev/shm").glob("launch-key-*"), *Path("/tmp").glob("launch-key-*")}

        before = keys()
        assert "train.py" in files(fetch(source(git_ssh, repository), credentials_from(git_ssh.key)))
        with pytest.raises(InvalidInput, match=r"Permission denied.*The ssh key of the block secret/key was used"):
            resolve(
                source(git_ssh, repository, credentials="secret/key"), settings, credentials_from(git_ssh.other_key)
            )
        assert (settings.folder("git") / "known_hosts").is_file()
        assert keys() <= before, "no key is left on the disk"
        absent = GitSource(git=f"{git_ssh.url}/no/such.git")
        with pytest.raises(NotFound, match="does not appear to be a git repository"):
            resolve(absent, settings, credentials_from(git_ssh.key))

    def test_a_server_that_has_another_key_is_not_trusted(
        self, git_ssh: SshServer, repository: Repository, settings: LaunchSettings
    ) -> None:
        other = (git_ssh.folder / "other_key.pub").read_text()
        (settings.folder("git") / "known_hosts").write_text(f"[127.0.0.1]:{git_ssh.port} {other}")
        with pytest.raises(LaunchError, match="known_hosts"):
            resolve(source(git_ssh, repository), settings, credentials_from(git_ssh.key))

    def test_a_certificate_that_is_not_trusted(
        self, git_https: HttpsServer, repository: Repository, launch_home: Path
    ) -> None:
        with pytest.raises(LaunchError, match="LAUNCH_CA_BUNDLE"):
            resolve(source(git_https, repository), LaunchSettings(home=launch_home))


def add_link(repository: Repository, path: str, commit: str) -> None:
    """Commit a submodule as git keeps it; its commit need not be here."""
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    repository.git("commit", "--quiet", "--message", "Submodule")
    repository.git("push", "--quiet", "origin", "HEAD:refs/heads/main")


def git_processes() -> list[psutil.Process]:
    """Processes of git that this one has started, and theirs, but for the server's."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "git" in process.name()
        and not re.search("upload-pack|pack-objects|http-backend", " ".join(process.cmdline()))
    ]


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class fetching:  # noqa: N801 - reads as what it does
    """A fetch in a thread that is to be given up."""

    def __init__(self, code: GitCode, into: Path) -> None:
        self.stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._fetch = self._pool.submit(code.fetch, into, log=print, stop=self.stop)

    def __enter__(self) -> threading.Event:
        return self.stop

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        with pytest.raises(GivenUp):
            self._fetch.result(5)
        self._pool.shutdown()


class TestMirror:
    @pytest.fixture(autouse=True)
    def _make(self, repository: Repository) -> None:
        repository.commit({"big.txt": "\n".join(str(n * 7919 % 104729) for n in range(200_000))})

    def test_a_second_fetch_asks_for_nothing_and_a_new_commit_for_little(
        self, git_https: HttpsServer, repository: Repository, settings: LaunchSettings, fetch: Callable[..., Path]
    ) -> None:
        pinned = resolve(source(git_https, repository), settings)
        fetch(pinned)
        first = git_https.sent
        git_https.reset()
        fetch(pinned)
        assert git_https.requests == []
        repository.commit({"train.py": "print('new')\n"})
        assert (fetch(source(git_https, repository)) / "train.py").read_text() == "print('new')\n"
        assert git_https.sent < 4096 < 100_000 < first

    def test_a_commit_that_was_forced_away(
        self, git_https: HttpsServer, repository: Repository, settings: LaunchSettings, fetch: Callable[..., Path]
    ) -> None:
        held = resolve(source(git_https, repository), settings)
        fetch(held)
        repository.git("reset", "--quiet", "--hard", "HEAD~1")
        repository.commit({"train.py": "print('other')\n"})
        lost = GitSource(git=held.git, commit="12" * 20)
        assert "big.txt" in files(fetch(held)), "this machine still has it"
        with pytest.raises(NotFound, match="force-push"):
            fetch(lost)

    def test_a_connection_that_is_cut_is_tried_again(
        self,
        git_https: HttpsServer,
        repository: Repository,
        settings: LaunchSettings,
        fetch: Callable[..., Path],
        lines: list[str],
    ) -> None:
        pinned = resolve(source(git_https, repository), settings)
        git_https.faults.cut_after, git_https.faults.cuts = 50_000, 2
        assert "big.txt" in files(fetch(pinned))
        assert [line for line in lines if "Trying again (3 of 3)" in line]
        mirror = next(path for path in settings.folder("git").iterdir() if path.is_dir())
        git("fsck", "--strict", cwd=mirror)

    def test_a_server_that_goes_on_cutting_is_unreachable(
        self,
        git_https: HttpsServer,
        repository: Repository,
        settings: LaunchSettings,
        fetch: Callable[..., Path],
        tmp_path: Path,
    ) -> None:
        pinned = resolve(source(git_https, repository), settings)
        git_https.faults.cut_after, git_https.faults.cuts = 50_000, 99
        with pytest.raises(Unreachable):
            fetch(pinned)
        assert list(tmp_path.iterdir()) == []
        git_https.reset()
        assert "big.txt" in files(fetch(pinned))

    @pytest.mark.parametrize("status", [500, 503, 429])
    def test_a_server_in_trouble(
        self, status: int, git_https: HttpsServer, repository: Repository, settings: LaunchSettings
    ) -> None:
        git_https.faults.status = status
        with pytest.raises(Unreachable, match=str(status)):
            resolve(source(git_https, repository), settings)
        assert len(git_https.requests) == 3

    @pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (403, InvalidInput)])
    def test_a_server_that_refuses(
        self,
        status: int,
        kind: type[LaunchError],
        git_https: HttpsServer,
        repository: Repository,
        settings: LaunchSettings,
    ) -> None:
        git_https.faults.status = status
        with pytest.raises(kind, match="name a block with a token"):
            resolve(source(git_https, repository), settings)
        assert len(git_https.requests) == 1, "asking again would not help"

    def test_no_server_at_all(self, settings: LaunchSettings) -> None:
        with pytest.raises(Unreachable, match="Failed to connect"):
            resolve(GitSource(git="https://127.0.0.1:9/x.git"), settings)

    def test_a_fetch_from_a_slow_server_is_given_up_within_a_second(
        self, git_https: HttpsServer, repository: Repository, settings: LaunchSettings, tmp_path: Path
    ) -> None:
        pinned = resolve(source(git_https, repository), settings)
        git_https.faults.stall = True
        with fetching(GitCode(pinned, settings), tmp_path / "into") as stop:
            wait_until(lambda: [request for request in git_https.requests if "upload-pack" in request.path])
            wait_until(git_processes)
            started = time.monotonic()
            stop.set()
        assert time.monotonic() - started < 1
        assert [process.cmdline() for process in git_processes()] == []
        assert list(tmp_path.iterdir()) == []

    def test_a_killed_fetch_leaves_a_mirror_that_works(
        self,
        git_https: HttpsServer,
        repository: Repository,
        settings: LaunchSettings,
        fetch: Callable[..., Path],
        tmp_path: Path,
    ) -> None:
        pinned = resolve(source(git_https, repository), settings)
        fetch(pinned)
        newer = repository.commit({"more.txt": "\n".join(str(n * 7907 % 104729) for n in range(200_000))})
        git_https.faults.cut_after, git_https.faults.cuts = 50_000, 0
        git_https.faults.stall = True
        with fetching(GitCode(pinned.model_copy(update={"commit": newer}), settings), tmp_path / "half"):
            wait_until(git_processes)
            for process in git_processes():
                process.kill()
        mirror = next(path for path in settings.folder("git").iterdir() if path.is_dir())
        for left in (
            "shallow.lock",
            "packed-refs.lock",
            f"refs/launch/commits/{newer}.lock",
            "objects/pack/tmp_pack_x",
        ):
            (mirror / left).write_text("half")
        git_https.reset()
        assert "more.txt" in files(fetch(pinned.model_copy(update={"commit": newer})))
        assert not list(mirror.rglob("*.lock"))
        assert not list(mirror.rglob("tmp_*"))

    @pytest.mark.parametrize("damage", ["pack", "head", "ref"])
    def test_a_damaged_mirror_is_made_anew(
        self,
        damage: str,
        git_https: HttpsServer,
        repository: Repository,
        settings: LaunchSettings,
        fetch: Callable[..., Path],
    ) -> None:
        pinned = resolve(source(git_https, repository), settings)
        fetch(pinned)
        mirror = next(path for path in settings.folder("git").iterdir() if path.is_dir())
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
        self, git_https: HttpsServer, repository: Repository, settings: LaunchSettings, tmp_path: Path
    ) -> None:
        code = GitCode(resolve(source(git_https, repository), settings), settings)
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
        self, git_https: HttpsServer, repository: Repository, settings: LaunchSettings, fetch: Callable[..., Path]
    ) -> None:
        git("-C", repository.bare, "config", "protocol.version", "0")
        pinned = GitSource(git=f"{git_https.url}/{repository.path}", commit=repository.git("rev-parse", "HEAD~1"))
        assert "big.txt" not in files(fetch(pinned))


def test_a_machine_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = "import launch_prefect.sources.git as g, pathlib; g.work_tree(pathlib.Path('.'))"
    done = subprocess.run([sys.executable, "-c", program], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert "LaunchError: This machine has no git. Install git" in done.stderr
