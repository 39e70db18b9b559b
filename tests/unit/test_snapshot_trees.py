"""Snapshots of trees that are nasty: what git and Docker would leave out, odd names, what changes meanwhile."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from launch_prefect.errors import InvalidInput
from launch_prefect.sources import archive, snapshot
from launch_prefect.sources.content import all_files
from launch_prefect.sources.finding import find
from launch_prefect.sources.snapshot import TooLarge, take
from launch_prefect.sources.store import CodeStore
from tests.unit.test_snapshot import KEY, write

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> CodeStore:
    return CodeStore((tmp_path / "store").as_uri())


WORDS = ("a", "b", "ab", "out", "x.py", "y.log", "#z", "naïve", "sp ace")
PATTERNS = (
    "*.log", "!y.log", "/out/", "out/", "!out/a", "out/*", "!out/*/", "a/b", "a/**", "**/b", "a/**/x.py", "ab", "*",
    "!*/", "!*.py", "[ab]", "[!a]", "?", "a*/", "/a/*.log", "\\#z", "#z", "!/out/x.py", "sp ace ", "sp\\ ace", "**",
    "**/", "!b/", "b/", "naïve", "a**", "a**b", "[]a]", "*.[lp]*", "[", "\\", "!x.py", "!a", "!a/b",
    "/*", "!/a", "a/*/", "[[:alpha:]]b", "[a-b]?", "  ", "!", "/",
)  # fmt: skip


def grow(folder: Path, luck: random.Random, depth: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in luck.sample(WORDS, luck.randint(2, 5)):
        if depth < 3 and "." not in name and luck.random() < 0.6:
            grow(folder / name, luck, depth + 1)
        else:
            (folder / name).write_text(name)
    if luck.random() < (1 if depth == 0 else 0.3):
        (folder / ".gitignore").write_text("\n".join(luck.sample(PATTERNS, luck.randint(1, 5))) + "\n")


def git_takes(root: Path, within: str = "") -> set[str]:
    environment = os.environ | {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", root], check=True, env=environment)
    listed = subprocess.run(
        ["git", "ls-files", "-oz", "--exclude-standard"],
        cwd=root / within,
        env=environment,
        check=True,
        capture_output=True,
    )
    return set(listed.stdout.decode().split("\0")) - {""}


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
@pytest.mark.parametrize("seed", range(200))
def test_what_git_would_take(tmp_path: Path, seed: int) -> None:
    grow(tmp_path / "tree", random.Random(seed))
    assert set(find(tmp_path / "tree").sizes) == git_takes(tmp_path / "tree")


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git")
def test_a_folder_of_a_repository_obeys_what_stands_above_it(tmp_path: Path) -> None:
    repository = write(
        tmp_path / "repository",
        {
            ".gitignore": "*.ckpt\n/job/data/\n/other/data\nbuild/\n",
            "job/.gitignore": "!best.ckpt\n",
            "job/train.py": "x",
            "job/last.ckpt": "1",
            "job/best.ckpt": "2",
            "job/data/big": "3",
            "job/other/data": "4",
            "build/made.py": "5",
        },
    )
    expected = git_takes(repository, "job")
    assert expected == {".gitignore", "train.py", "best.ckpt", "other/data"}
    assert set(find(repository / "job").sizes) == expected
    # Git leaves this one out as a whole; but it has been asked for.
    assert set(find(repository / "build").sizes) == {"made.py"}


def test_nothing_returns_from_what_git_leaves_out_but_by_launchignore(tmp_path: Path) -> None:
    files = {
        ".gitignore": "data/\n",
        ".launchignore": "!data/wanted.csv\n",
        "data/.gitignore": "!other.csv\n",
        "data/other.csv": "o",
        "data/wanted.csv": "w",
        "train.py": "x",
    }
    assert set(find(write(tmp_path / "a", files)).sizes) == {
        ".gitignore",
        ".launchignore",
        "data/wanted.csv",
        "train.py",
    }


def test_a_dockerfile_is_taken_with_an_ignore_file_of_its_own(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "a",
        {
            ".dockerignore": "*",
            "docker/gpu.Dockerfile": "FROM x",
            "docker/gpu.Dockerfile.dockerignore": "docker\nnotes\n",
            "Dockerfile": "FROM y",
            "notes": "n",
            "train.py": "x",
        },
    )
    assert set(find(folder).sizes) == {"Dockerfile"}
    assert set(find(folder, "docker/gpu.Dockerfile").sizes) == {
        ".dockerignore", "Dockerfile", "docker/gpu.Dockerfile", "docker/gpu.Dockerfile.dockerignore", "train.py",
    }  # fmt: skip


@pytest.mark.parametrize("line", ["!", "[a-", "[]"])
def test_a_line_of_dockerignore_that_means_nothing_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidInput, match=r"\.dockerignore"):
        find(write(tmp_path / "a", {".dockerignore": line, "train.py": "x"}))


SECRETS = {
    ".boto": "cloud", ".s3cfg": "cloud", ".azure/tokens": "cloud", ".config/gcloud/x": "cloud",
    "sub/.aws/config": "cloud",
    "application_default_credentials.json": "cloud", "my_accessKeys.csv": "cloud", ".dockercfg": "registry",
    "kaggle.json": "passwords", ".cache/huggingface/token": "passwords", "server.key": "keys", "a.p12": "keys",
    "a.pfx": "keys", "terraform.tfstate": "Terraform", "terraform.tfstate.backup": "Terraform",
    ".kube/config": "clusters",
    ".streamlit/secrets.toml": "passwords",
}  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
def test_credentials_are_left_out_and_it_is_said_why(tmp_path: Path, store: CodeStore, name: str) -> None:
    folder = write(tmp_path / "a", {"train.py": "x", name: "hunter2"})
    taken = take(folder, store)
    assert taken.files == 1
    (path,) = taken.left_out
    assert name.startswith(path)
    assert SECRETS[name] in taken.reasons[path]
    write(folder, {".launchignore": f"!{path}\n"})
    assert take(folder, store).files == 3


def test_a_google_user_is_found_by_content(tmp_path: Path, store: CodeStore) -> None:
    text = '{"client_id": "x", "refresh_token": "hunter2", "type": "authorized_user"}'
    taken = take(write(tmp_path / "a", {"train.py": "x", "adc.json": text, "about.json": '{"type": "user"}'}), store)
    assert (taken.files, taken.left_out) == (2, ("adc.json",))


def test_a_folder_above_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, store: CodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "a", {f"data/raw/{number}": "x" * 1000 * number for number in range(1, 4)})
    write(folder, {"model.bin": "y" * 900, "lib/a.py": "z" * 50, "lib/b.py": "z" * 51, "ignored/x": "i" * 99_999})
    write(folder, {".gitignore": "ignored/\n", "c": "c" * 10, "d": "d" * 5, "e": "e"})
    monkeypatch.setattr(snapshot, "describe", lambda *args: pytest.fail("it was read"))
    with pytest.raises(TooLarge, match=r"launchignore") as refused:
        take(folder, store, limit=7025)
    assert (refused.value.size, refused.value.limit) == (7026, 7025)
    assert refused.value.largest == (
        ("data/raw/", 6000), ("model.bin", 900), ("lib/", 101), ("c", 10), (".gitignore", 9),
    )  # fmt: skip
    assert "data/raw/ (5.9 KiB)" in refused.value.message
    monkeypatch.undo()
    assert take(folder, store, limit=7026).size == 7026


def test_one_large_file_is_named_and_not_the_folders_it_is_in(tmp_path: Path, store: CodeStore) -> None:
    with pytest.raises(TooLarge) as refused:
        take(write(tmp_path / "a", {"p/q/big.bin": "x" * 1000, "p/small": "s"}), store, limit=10)
    assert refused.value.largest == (("p/q/big.bin", 1000),)


def test_umask_and_times_make_no_difference(tmp_path: Path, store: CodeStore) -> None:
    digests = set()
    for umask in (0o000, 0o022, 0o077):
        before = os.umask(umask)
        try:
            folder = write(tmp_path / f"{umask}", {"b.py": "b", "lib/a.py": "a", "run.sh": "r"})
            (folder / "run.sh").chmod(0o755 & ~umask)
            digests.add(take(folder, store).digest)
        finally:
            os.umask(before)
    assert len(digests) == 1


def test_odd_names_stay_what_they_are(tmp_path: Path, store: CodeStore) -> None:
    long = "/".join(["d" * 200] * 5) + "/" + "n" * 255
    names = {
        "caf\u00e9",
        "cafe\u0301",
        "空",
        "a\\b",
        "-rf",
        "trailing ",
        "tab\there",
        "🙂" * 60,
        long,
        "A",
        "B",
        "Ab",
        "aB",
    }
    folder = tmp_path / "a"
    for name in names:
        write(folder, {name: name})
    taken = take(folder, store)
    store.unpack(taken.digest, tmp_path / "out")
    assert set(all_files(tmp_path / "out")) == names
    assert {(tmp_path / "out" / name).read_text() for name in names} == names


def test_a_name_that_is_not_utf8_is_refused_unless_it_is_left_out(tmp_path: Path, store: CodeStore) -> None:
    folder = write(tmp_path / "a", {"train.py": "x"})
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("latin")
    with pytest.raises(InvalidInput, match=r"caf\\udce9.txt is not UTF-8") as refused:
        take(folder, store)
    str(refused.value).encode()
    (folder / ".launchignore").write_bytes(b"caf\xe9.txt\n")
    assert take(folder, store).files == 2


def test_a_path_that_cannot_be_unpacked_elsewhere_is_refused(tmp_path: Path, store: CodeStore) -> None:
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        deep = root
        while len(str(deep)) < 3850:
            deep = deep / ("d" * 200)
        deep.mkdir(parents=True)
        (deep / "x").write_text("x")
        with pytest.raises(InvalidInput, match="more than 3584 bytes"):
            take(root, store)
    finally:
        shutil.rmtree(root)


def test_a_very_deep_tree(tmp_path: Path, store: CodeStore) -> None:
    path = "d/" * 199 + "x"
    taken = take(write(tmp_path / "a", {path: "x"}), store)
    store.unpack(taken.digest, tmp_path / "out")
    assert (tmp_path / "out" / path).read_text() == "x"
    with pytest.raises(InvalidInput, match="more than 200 folders deep"):
        take(write(tmp_path / "a", {"d/" + path: "x"}), store)


def test_empty_files_hard_links_and_sparse_files(tmp_path: Path, store: CodeStore) -> None:
    folder = write(tmp_path / "a", {"empty": "", "one": "same"})
    (folder / "nothing" / "in" / "here").mkdir(parents=True)
    (folder / "two").hardlink_to(folder / "one")
    with (folder / "sparse").open("wb") as file:
        file.truncate(5_000_000)
    taken = take(folder, store)
    assert (taken.files, taken.size) == (4, 5_000_008)
    store.unpack(taken.digest, tmp_path / "out")
    assert set(all_files(tmp_path / "out")) == {"empty", "one", "two", "sparse"}
    assert not (tmp_path / "out" / "nothing").exists()
    assert (tmp_path / "out" / "sparse").read_bytes() == b"\0" * 5_000_000


def test_what_is_no_file_is_told(tmp_path: Path, store: CodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a", {"train.py": "x"})
    os.mkfifo(folder / "pipe")
    monkeypatch.chdir(folder)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        taken = take(folder, store)
    assert taken.reasons == {"pipe": "it is a pipe", "socket": "it is a socket"}


@pytest.mark.parametrize("change", ["gone", "pipe", "link", "folder", "longer", "other"])
@pytest.mark.parametrize("when", ["before it is read", "before it is packed"])
def test_a_folder_that_changes_meanwhile(
    tmp_path: Path, store: CodeStore, monkeypatch: pytest.MonkeyPatch, change: str, when: str
) -> None:
    folder = write(tmp_path / "a", {"train.py": "x" * 100, "other.py": "y"})
    (tmp_path / "private").write_text(KEY)

    def disturb() -> None:
        file = folder / "train.py"
        if change in ("longer", "other"):
            file.write_text("z" * (200 if change == "longer" else 100))
            return
        file.unlink()
        if change == "pipe":
            os.mkfifo(file)
        elif change == "link":
            file.symlink_to(tmp_path / "private")
        elif change == "folder":
            file.mkdir()

    if when == "before it is packed":
        whole = archive.pack

        def pack(*args: object) -> None:
            disturb()
            whole(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(archive, "pack", pack)
    else:
        found = snapshot.find

        def finding(*args: object) -> object:
            result = found(*args)  # type: ignore[arg-type]
            disturb()
            return result

        monkeypatch.setattr(snapshot, "find", finding)
        if change in ("longer", "other"):  # it is taken as it is when it is read
            assert take(folder, store).size == (201 if change == "longer" else 101)
            return
    with pytest.raises(InvalidInput, match=r"train\.py (changed|leads|.*outside)|link train\.py leads"):
        take(folder, store)
    assert not (tmp_path / "store").exists()


def test_links_in_a_circle_are_refused(tmp_path: Path, store: CodeStore) -> None:
    folder = write(tmp_path / "a", {"train.py": "x"})
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    with pytest.raises(InvalidInput, match="circle"):
        take(folder, store)


def test_a_link_that_leads_nowhere_inside_is_kept(tmp_path: Path, store: CodeStore) -> None:
    folder = write(tmp_path / "a", {"train.py": "x"})
    (folder / "later").symlink_to("./data//made-later")
    store.unpack(take(folder, store).digest, tmp_path / "out")
    assert os.readlink(tmp_path / "out" / "later") == "./data//made-later"  # noqa: PTH115 - as written
