"""`submit --git`: what a folder in a work tree is against its remote, and the way of its changes to an agent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.git import GitCode, WorkTree, keep_patch, work_tree
from launch_prefect.sources.snapshot import take
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec import GitSource
from tests.testbed.git_helpers import NOBODY
from tests.testbed.git_servers import GitServers, HttpsServer, Repository, git

pytest_plugins = ["tests.testbed.git_fixtures"]


@pytest.fixture
def repository(git_servers: GitServers, git_https: HttpsServer) -> Repository:
    """One whose work tree has the https server as its remote, as far as it knows."""
    repository = git_servers.repository()
    repository.commit({"train.py": "print(1)\n", "lib/data.txt": "one\n", "gone.txt": "x\n", "bin": bytes(range(256))})
    repository.git("remote", "set-url", "origin", f"{git_https.url}/{repository.path}")
    return repository


def found(folder: Path) -> WorkTree:
    tree = work_tree(folder)
    assert tree is not None
    return tree


def change(repository: Repository) -> None:
    """Unpushed commits, then staged and unstaged changes of all kinds."""
    repository.commit({"train.py": "print(2)\n", "lib/new.txt": "new\n"}, push=None)
    repository.commit({"bin": bytes(reversed(range(256)))}, push=None)
    folder = repository.folder
    (folder / "train.py").write_text("print(3)\n")
    (folder / "lib" / "data.txt").write_bytes(b"one\r\nno end of line")
    (folder / "gone.txt").unlink()
    (folder / "odd näme.txt").write_text("trailing space \n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("lib/data.txt")
    (folder / "random.bin").write_bytes(os.urandom(3000))
    repository.git("add", "odd näme.txt", "run.sh", "link", "random.bin")


def carried(tree: WorkTree, git_settings: LaunchSettings, into: Path) -> str:
    """What an agent gets of a work tree; the digest of its files."""
    store = CodeStore(git_settings.code_store_url)
    patch = keep_patch(tree.patch, store) if tree.patch else None
    source = GitSource(git=tree.url, commit=tree.commit, subdir=tree.subdir, patch=patch, store=store.url)
    return GitCode(source, git_settings).fetch(into, log=print, stop=NOBODY)


def snapshot_of(repository: Repository, settings: LaunchSettings) -> str:
    return take(repository.folder, CodeStore(settings.code_store_url)).digest


def test_a_clean_work_tree(repository: Repository, git_settings: LaunchSettings, tmp_path: Path) -> None:
    tree = found(repository.folder)
    assert tree.commit == repository.git("rev-parse", "HEAD")
    assert (tree.branch, tree.subdir, tree.patch, tree.untracked, tree.unpushed) == ("main", None, b"", (), 0)
    assert (
        carried(tree, git_settings, tmp_path / "into")
        == take(repository.folder, CodeStore(git_settings.code_store_url)).digest
    )


def test_all_changes_arrive(repository: Repository, git_settings: LaunchSettings, tmp_path: Path) -> None:
    pushed = repository.git("rev-parse", "HEAD")
    change(repository)
    (repository.folder / "untracked.txt").write_text("u")
    tree = found(repository.folder)
    assert (tree.commit, tree.unpushed, tree.untracked) == (pushed, 2, ("untracked.txt",))
    (repository.folder / "untracked.txt").unlink()
    assert (
        carried(tree, git_settings, tmp_path / "into")
        == take(repository.folder, CodeStore(git_settings.code_store_url)).digest
    )


def test_a_folder_of_it(repository: Repository, git_settings: LaunchSettings, tmp_path: Path) -> None:
    change(repository)
    (repository.folder / "lib" / "untracked.txt").write_text("u")
    (repository.folder / "elsewhere.txt").write_text("u")
    tree = found(repository.folder / "lib")
    assert (tree.subdir, tree.untracked) == ("lib", ("untracked.txt",))
    assert b"print(3)" not in tree.patch, "changes elsewhere would make another image for nothing"
    carried(tree, git_settings, tmp_path / "into")
    assert {path.name for path in (tmp_path / "into").iterdir()} == {"data.txt", "new.txt"}
    assert (tmp_path / "into" / "data.txt").read_bytes() == b"one\r\nno end of line"


def test_its_users_configuration_changes_nothing(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    change(repository)
    plain = found(repository.folder).patch
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[diff]\nnoprefix = true\nexternal = /bin/false\nrenames = copies\ncontext = 9\nalgorithm = patience\n"
        "[color]\nui = always\n[core]\nquotePath = true\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert found(repository.folder).patch == plain


def test_merged_history(repository: Repository, git_settings: LaunchSettings, tmp_path: Path) -> None:
    repository.git("switch", "--quiet", "--create", "side")
    repository.commit({"side.txt": "s"}, push=None)
    repository.git("switch", "--quiet", "main")
    repository.commit({"main.txt": "m"}, push=None)
    repository.git("merge", "--quiet", "--no-edit", "side")
    tree = found(repository.folder)
    assert tree.unpushed == 3
    assert (
        carried(tree, git_settings, tmp_path / "into")
        == take(repository.folder, CodeStore(git_settings.code_store_url)).digest
    )


def test_a_detached_head(repository: Repository) -> None:
    repository.git("switch", "--quiet", "--detach")
    assert found(repository.folder).branch is None


def test_no_work_tree(tmp_path: Path, repository: Repository) -> None:
    assert work_tree(tmp_path) is None
    assert work_tree(repository.bare) is None
    with pytest.raises(NotFound, match="no folder"):
        work_tree(tmp_path / "absent")


def test_what_cannot_be_submitted(repository: Repository, tmp_path: Path) -> None:
    git("init", "--quiet", tmp_path / "new")
    with pytest.raises(InvalidInput, match=r"has no commit\. Commit and push"):
        work_tree(tmp_path / "new")
    repository.git("remote", "rename", "origin", "upstream")
    with pytest.raises(InvalidInput, match=r"git remote add origin"):
        work_tree(repository.folder)
    repository.git("config", "branch.main.remote", "upstream")
    assert found(repository.folder).url
    repository.git("update-ref", "-d", "refs/remotes/upstream/main")
    with pytest.raises(InvalidInput, match=r"was pushed to the remote 'upstream'.*git push -u upstream HEAD"):
        work_tree(repository.folder)


@pytest.mark.parametrize("url", ["/srv/git/x.git", "http://host/x", "file:///srv/x", "../x", "ext::sh"])
def test_a_remote_that_agents_cannot_reach(url: str, repository: Repository) -> None:
    repository.git("remote", "set-url", "origin", url)
    with pytest.raises(InvalidInput, match="The address of the remote 'origin'"):
        work_tree(repository.folder)


@pytest.mark.parametrize(
    ("url", "public", "dropped"),
    [
        ("https://me:hidden@host.example.com:8443/x.git", "https://host.example.com:8443/x.git", True),
        ("https://me@host.example.com/x.git", "https://host.example.com/x.git", False),
        ("ssh://git:hidden@host.example.com/x.git", "ssh://git@host.example.com/x.git", True),
        ("git@host.example.com:x.git", "git@host.example.com:x.git", False),
    ],
)
def test_credentials_in_a_remote_stay_here(url: str, public: str, dropped: bool, repository: Repository) -> None:
    repository.git("remote", "set-url", "origin", url)
    tree = found(repository.folder)
    assert (tree.url, tree.dropped_credentials) == (public, dropped)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("deploy.txt", "x\n" * 60_000 + "-----BEGIN OPENSSH PRIVATE KEY-----\n", "deploy.txt hold a private key"),
        (".env", "PASSWORD=1\n", r"\.env may hold"),
        (".ssh/config", "Host x\n", r"\.ssh/config may hold"),
    ],
)
def test_changes_with_a_secret_are_refused(
    name: str, content: str, reason: str, repository: Repository, git_settings: LaunchSettings
) -> None:
    repository.commit({name: content}, push=None)
    store = CodeStore(git_settings.code_store_url)
    with pytest.raises(InvalidInput, match=reason):
        keep_patch(found(repository.folder).patch, store)
    assert not list(git_settings.folder("code").iterdir())


def test_changes_that_do_not_fit(repository: Repository, git_settings: LaunchSettings, tmp_path: Path) -> None:
    change(repository)
    tree = found(repository.folder)
    store = CodeStore(git_settings.code_store_url)
    source = GitSource(git=tree.url, commit=tree.commit, patch=keep_patch(b"nonsense\n", store), store=store.url)
    with pytest.raises(InvalidInput, match="changes do not fit commit"):
        GitCode(source, git_settings).fetch(tmp_path / "into", log=print, stop=NOBODY)
    outside = tree.patch.replace(b"b/train.py", b"b/../../train.py")
    source = source.model_copy(update={"patch": keep_patch(outside, store)})
    with pytest.raises(InvalidInput, match="changes do not fit commit"):
        GitCode(source, git_settings).fetch(tmp_path / "into", log=print, stop=NOBODY)
    assert list(tmp_path.iterdir()) == []
