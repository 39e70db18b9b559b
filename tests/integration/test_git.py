"""Git sources against real git servers: pins, files, credentials, mirrors, faults."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch_prefect.client.needed import named_by
from launch_prefect.errors import InvalidInput, LaunchError, NotFound
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.git import GitCode, GitCredentials, code, code_key, credentials_from, resolve
from launch_prefect.sources.git.command import remote_environment, run
from launch_prefect.sources.snapshot import take
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec import GitSource
from tests.conftest import missing
from tests.testbed.git_helpers import (
    NOBODY,
    add_link,
    fetching,
    files,
    git_processes,
    held_by,
    source,
    wait_until,
)
from tests.testbed.git_servers import GitServers, HttpsServer, Repository, SshServer

pytest_plugins = ["tests.testbed.git_fixtures"]


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
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings
    ) -> None:
        def commit(ref: str | None) -> str | None:
            return resolve(source(git_https, repository, ref=ref), git_settings).commit

        assert commit(None) == commit("HEAD") == commit("main") == commit("refs/heads/main") == self.new
        assert commit("v1.0") == self.old, "an annotated tag leads to its commit"
        assert commit(self.new[:9]) == self.new
        assert not held_by(git_settings), "for the tip of a branch the list of refs is enough"
        assert commit(self.between) == self.between
        assert commit(self.between[:10]) == self.between
        assert commit(self.old.upper()[:12]) == self.old

    def test_what_is_ambiguous_or_absent_is_named(
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings
    ) -> None:
        def refused(ref: str) -> str:
            with pytest.raises(NotFound) as caught:
                resolve(source(git_https, repository, ref=ref), git_settings)
            return str(caught.value)

        assert "refs/heads/both or refs/tags/both" in refused("both")
        assert "Did you mean 'main'? Its branches are: both, main." in refused("mian")
        assert "has no branch, tag or commit abcdef1" in refused("abcdef1")
        assert "a force-push has taken it away" in refused("ab" * 20)

    def test_a_pinned_source_stays(
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings
    ) -> None:
        pinned = source(git_https, repository, ref="main", commit=self.old)
        assert resolve(pinned, git_settings) == pinned
        assert not git_https.requests

    def test_an_empty_repository(
        self, git_https: HttpsServer, git_servers: GitServers, git_settings: LaunchSettings
    ) -> None:
        with pytest.raises(NotFound, match="is empty"):
            resolve(source(git_https, git_servers.repository()), git_settings)


class TestFiles:
    def test_the_same_files_have_the_same_digest_as_a_snapshot(
        self, git_https: HttpsServer, repository: Repository, git_settings: LaunchSettings, tmp_path: Path
    ) -> None:
        (repository.folder / "run.sh").write_text("#!/bin/sh\n")
        (repository.folder / "run.sh").chmod(0o755)
        (repository.folder / "link").symlink_to("lib/data.txt")
        repository.commit({"weights.bin": bytes(range(256)), "odd näme\n.txt": "x"})
        code = GitCode(resolve(source(git_https, repository), git_settings), git_settings)
        by_git = code.fetch(tmp_path / "into", log=print, stop=NOBODY)
        assert by_git == take(repository.folder, CodeStore(git_settings.code_store_url)).digest
        assert (tmp_path / "into" / "run.sh").stat().st_mode & 0o777 == 0o755
        assert ".git" not in {path.name for path in (tmp_path / "into").iterdir()}

    def test_key_is_of_commit_and_folder_not_of_the_address(self, git_settings: LaunchSettings) -> None:
        def key(url: str, **more: str) -> str:
            return GitCode(GitSource(git=url, commit="1" * 40, **more), git_settings).key

        assert (
            key("https://one.example.com/a")
            == key("git@two.example.com:b")
            == key("https://c.example.com/c", subdir=".")
        )
        assert key("https://one.example.com/a") != key("https://one.example.com/a", subdir="x")
        assert key("https://one.example.com/a") != key("https://one.example.com/a", patch="sha256:" + "0" * 64)

    def test_key_is_another_where_large_files_are_pointers(
        self, git_settings: LaunchSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pinned = GitSource(git="https://one.example.com/a", commit="1" * 40)
        keys = set()
        for has_lfs in (True, False):
            monkeypatch.setattr(code, "has_lfs", lambda has_lfs=has_lfs: has_lfs)
            keys.add(key := GitCode(pinned, git_settings).key)
            assert key == code_key(pinned, large_files=has_lfs)
        assert len(keys) == 2
        assert keys <= named_by({"source": pinned.model_dump()}), "house-keeping knows either"

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
        git_settings: LaunchSettings,
        fetch: Callable[..., Path],
        lines: list[str],
    ) -> None:
        named = source(git_https, repository, credentials="secret/my-token")
        assert "train.py" in files(fetch(named, credentials_from(git_token)))
        with pytest.raises(InvalidInput, match=r"No credentials were used.*secret/my-git-token"):
            resolve(source(git_https, repository), git_settings)
        with pytest.raises(InvalidInput, match="The token of the block secret/my-token was used") as caught:
            resolve(named, git_settings, GitCredentials(None, token="wrong-token"))
        assert "wrong-token" not in str(caught.value)
        for path in held_by(git_settings):
            assert git_token.encode() not in path.read_bytes(), path
        assert git_token not in "\n".join(lines)

    def test_the_token_is_on_no_command_line(
        self,
        git_https: HttpsServer,
        git_token: str,
        repository: Repository,
        git_settings: LaunchSettings,
        tmp_path: Path,
    ) -> None:
        credentials = GitCredentials("me", token=git_token)
        code = GitCode(resolve(source(git_https, repository), git_settings, credentials), git_settings, credentials)
        git_https.faults.stall = True
        with fetching(code, tmp_path / "into") as stop:
            wait_until(lambda: git_processes())
            seen = git_processes()
            assert any("fetch" in line for line in seen)
            assert not [line for line in seen if git_token in line]
            stop.set()

    def test_the_token_goes_to_its_own_server_only(
        self,
        git_https: HttpsServer,
        git_token: str,
        git_servers: GitServers,
        repository: Repository,
        git_settings: LaunchSettings,
        fetch: Callable[..., Path],
    ) -> None:
        other_folder = git_servers.part(f"other-{time.monotonic_ns()}")
        with HttpsServer(git_servers.root, other_folder, token="of another") as other:
            both = git_settings.home / "both.pem"
            both.write_text(git_https.certificate.read_text() + other.certificate.read_text())
            trusting = git_settings.model_copy(update={"ca_bundle": both})
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
                GitCode(pinned, trusting, credentials).fetch(git_settings.home / "into", log=print, stop=NOBODY)
            assert other.requests
            assert not [request for request in other.requests if request.authorization]

    def test_ssh_with_a_key(
        self,
        git_ssh: SshServer,
        repository: Repository,
        git_settings: LaunchSettings,
        fetch: Callable[..., Path],
    ) -> None:
        def keys() -> set[Path]:
            return {*Path("/dev/shm").glob("launch-key-*"), *Path("/tmp").glob("launch-key-*")}

        before = keys()
        assert "train.py" in files(fetch(source(git_ssh, repository), credentials_from(git_ssh.key)))
        with pytest.raises(InvalidInput, match=r"Permission denied.*The ssh key of the block secret/key was used"):
            resolve(
                source(git_ssh, repository, credentials="secret/key"), git_settings, credentials_from(git_ssh.other_key)
            )
        assert (git_settings.folder("git") / "known_hosts").is_file()
        assert keys() <= before, "no key is left on the disk"
        absent = GitSource(git=f"{git_ssh.url}/no/such.git")
        with pytest.raises(NotFound, match="does not appear to be a git repository"):
            resolve(absent, git_settings, credentials_from(git_ssh.key))

    def test_a_server_that_has_another_key_is_not_trusted(
        self, git_ssh: SshServer, repository: Repository, git_settings: LaunchSettings
    ) -> None:
        other = (git_ssh.folder / "other_key.pub").read_text()
        (git_settings.folder("git") / "known_hosts").write_text(f"[127.0.0.1]:{git_ssh.port} {other}")
        with pytest.raises(LaunchError, match="known_hosts"):
            resolve(source(git_ssh, repository), git_settings, credentials_from(git_ssh.key))

    def test_a_certificate_that_is_not_trusted(
        self, git_https: HttpsServer, repository: Repository, launch_home: Path
    ) -> None:
        with pytest.raises(LaunchError, match="LAUNCH_CA_BUNDLE"):
            resolve(source(git_https, repository), LaunchSettings(home=launch_home))


def test_git_sees_nothing_of_the_agents_environment(
    git_settings: LaunchSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AGENT_SECRET", "GIT_DIR", "GIT_TRACE_CURL", "GIT_SSH_COMMAND", "SSH_ASKPASS", "GIT_PROXY_COMMAND"):
        monkeypatch.setenv(name, "hidden")
    with remote_environment("https://host/x", git_settings, None) as env:
        shown = run(["-c", "alias.shown=!env", "shown"], env=env, cwd=tmp_path)
    assert "GIT_ALLOW_PROTOCOL=https:ssh" in shown.text
    assert "hidden" not in shown.text
    with remote_environment("https://host/x", git_settings, None) as env:
        for url in ("ext::sh -c true", "http://127.0.0.1:9/", str(tmp_path)):
            assert "not allowed" in run(["ls-remote", url], env=env, cwd=tmp_path).err, "even if one came so far"


def test_a_machine_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = "import launch_prefect.sources.git as g, pathlib; g.work_tree(pathlib.Path('.'))"
    done = subprocess.run([sys.executable, "-c", program], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert "LaunchError: This machine has no git. Install git" in done.stderr
