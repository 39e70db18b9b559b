"""What house-keeping chooses, and the folders it does it to."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from filelock import FileLock

from launch_prefect.images.housekeeping import GRACE_SECONDS, Usage, keep_house
from launch_prefect.images.housekeeping.choice import Candidate, choose, total
from launch_prefect.images.housekeeping.folders import STALE_SECONDS
from launch_prefect.images.index import Entry, ImageIndex
from launch_prefect.settings import LaunchSettings

pytestmark = pytest.mark.unit

NOW = 1_000_000.0
OLD = 86_400.0


def image(name: str, age: float, *, on: str = "", in_use: bool = False, **parts: int) -> Candidate:
    return Candidate(
        "image", name, NOW - age, parts or {name: 10}, also=frozenset({f"tag-{name}"}), in_use=in_use,
        stands_on=(on,) if on else (),
    )  # fmt: skip


def chosen(*candidates: Candidate, budget: int, needed: set[str] | None = None, others: set[str] | None = None) -> str:
    found = choose(candidates, budget, now=NOW, needed=frozenset(needed or ()), others=others or set())
    return " ".join(f"{choice.candidate.name}:{choice.size}" for choice in found)


def test_least_recently_used_goes_first_and_no_more_than_is_over() -> None:
    three = [image("b", 2 * OLD), image("a", 3 * OLD), image("c", OLD)]
    assert chosen(*three, budget=30) == ""
    assert chosen(*three, budget=29) == "a:10"
    assert chosen(*three, budget=11) == "a:10 b:10"
    assert chosen(*three, budget=0) == "a:10 b:10 c:10"


def test_what_is_needed_in_use_or_used_lately_stays() -> None:
    several = [
        image("needed", 9 * OLD), image("by-tag", 9 * OLD), image("in-use", 8 * OLD, in_use=True),
        image("lately", GRACE_SECONDS - 1), image("old", GRACE_SECONDS + 1),
    ]  # fmt: skip
    assert chosen(*several, budget=0, needed={"needed", "tag-by-tag"}) == "old:10"


def test_an_environment_is_used_whenever_an_image_on_it_is() -> None:
    environment = image("env", 9 * OLD, base=100, env=50)
    code = image("code", OLD, on="env", base=100, env=50, code=1)
    other = image("other", 5 * OLD, other=5)
    assert chosen(environment, code, other, budget=155) == "other:5"
    # The environment alone would free nothing, so what stands on it goes first.
    assert chosen(environment, code, other, budget=1) == "other:5 code:1 env:150"
    assert chosen(environment, code, other, budget=1, needed={"code"}) == "other:5"
    busy = image("code", OLD, on="env", in_use=True, env=50, code=1)
    assert chosen(environment, busy, other, budget=1) == "other:5"
    fresh = image("code", 1, on="env", env=50, code=1)
    assert chosen(environment, fresh, other, budget=1) == "other:5"


def test_what_is_shared_counts_once_and_is_freed_by_the_last() -> None:
    one, two = image("one", 2 * OLD, shared=100, x=1), image("two", OLD, shared=100, y=2)
    assert total([one, two]) == 103
    assert chosen(one, two, budget=102) == "one:1"
    assert chosen(one, two, budget=101) == "one:1 two:102"


def test_what_others_hold_is_not_ours_to_free() -> None:
    one = image("one", OLD, base=1000, x=1)
    assert total([one], {"base"}) == 1
    assert chosen(one, budget=1, others={"base"}) == ""
    assert chosen(one, budget=0, others={"base"}) == "one:1"


class Home:
    def __init__(self, folder: Path, **settings: object) -> None:
        self.settings = LaunchSettings(home=folder, **settings)  # type: ignore[arg-type]
        self.usage = Usage(self.settings)
        self.lines: list[str] = []

    def environment(self, name: str, days: float, size: int = 100_000) -> Path:
        folder = self.settings.folder("envs", name)
        (folder / "lib").write_bytes(b"x" * size)
        (folder / "lib2").hardlink_to(folder / "lib")
        (folder / ".ready").touch()
        return self.aged(folder / ".ready", days).parent

    def snapshot(self, digit: str, days: float, size: int = 100_000) -> Path:
        file = self.settings.folder("code") / f"{digit * 64}.tar.gz"
        file.write_bytes(b"x" * size)
        return self.aged(file, days)

    def mirror(self, name: str, days: float) -> Path:
        folder = self.settings.folder("git", name)
        (folder / "pack").write_bytes(b"x" * 100_000)
        return self.aged(folder, days)

    def aged(self, path: Path, days: float) -> Path:
        when = time.time() - days * 86_400
        os.utime(path, (when, when))
        return path

    def keep(self, budget: int | None = 1, **options: object) -> list[str]:
        done = keep_house(
            self.settings, self.usage, budget=budget, engine=False, log=self.lines.append, **options  # type: ignore[arg-type]
        )  # fmt: skip
        return [f"{removed.kind} {removed.name[:12]}" for removed in done]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_folders_go_by_when_they_were_last_used(home: Home) -> None:
    environment, snapshot, mirror = home.environment("e1", 5), home.snapshot("a", 9), home.mirror("m", 7)
    (home.settings.folder("git") / "known_hosts").write_text("host")
    assert home.keep(250_000) == ["snapshot sha256:aaaaa"]
    assert (environment.exists(), snapshot.exists(), mirror.exists()) == (True, False, True)
    home.aged(mirror, 0)
    assert home.keep(1) == ["environment e1"]
    assert (environment.exists(), mirror.exists()) == (False, True)
    assert (home.settings.folder("git") / "known_hosts").exists()
    assert not [path for path in home.settings.folder("envs").iterdir() if path.is_dir()]
    assert "Removed snapshot" in home.lines[0]
    assert "0.1 MiB), last used 9 days ago." in home.lines[0]
    assert "LAUNCH_DISK_BUDGET" in home.lines[-1]


def test_the_budget_of_the_settings(tmp_path: Path) -> None:
    home = Home(tmp_path, disk_budget="150000")
    home.snapshot("a", 9)
    home.snapshot("b", 8)
    assert home.keep(None) == ["snapshot sha256:aaaaa"]
    none = Home(tmp_path, disk_budget=0)
    assert none.keep(None) == []


def test_nothing_is_removed_that_is_needed_used_or_locked(home: Home) -> None:
    home.snapshot("a", 9)
    home.environment("f" * 64, 9)
    home.environment("e" * 64 + ".2", 9)
    home.mirror("m", 9)
    attempt = home.settings.folder("runs", "id", "1")
    (attempt / "environment").write_text(str(home.settings.folder("envs") / ("e" * 64 + ".2")))
    needed = frozenset({"sha256:" + "a" * 64, "sha256:" + "f" * 64})
    with FileLock(home.settings.folder("git") / "m.lock"):
        assert home.keep(needed=needed) == []
    assert home.keep(needed=needed) == ["git m"]
    (attempt / "environment").unlink()
    with FileLock(home.settings.folder("envs") / ("e" * 64 + ".lock")):
        assert home.keep(needed=needed) == []
    assert home.keep(needed=needed) == ["environment eeeeeeeeeeee"]


def test_a_store_that_is_set_is_not_touched(tmp_path: Path) -> None:
    home = Home(tmp_path, code_store=(tmp_path / "code").as_uri())
    snapshot = home.snapshot("a", 9)
    assert home.keep() == []
    assert snapshot.exists()


def test_a_dry_run_removes_nothing(home: Home) -> None:
    snapshot = home.snapshot("a", 9)
    assert home.keep(dry_run=True) == ["snapshot sha256:aaaaa"]
    assert snapshot.exists()


def test_one_process_at_a_time(home: Home) -> None:
    home.snapshot("a", 9)
    with FileLock(home.settings.folder("usage") / "housekeeping.lock"):
        assert home.keep() == []
    assert home.keep() == ["snapshot sha256:aaaaa"]


def test_what_is_used_or_vanishes_while_others_are_removed_is_left(home: Home) -> None:
    home.snapshot("a", 9)
    home.snapshot("b", 8)
    gone = home.snapshot("c", 7)

    def meanwhile(line: str) -> None:
        home.usage.used("snapshot", "sha256:" + "b" * 64)
        gone.unlink(missing_ok=True)

    done = keep_house(home.settings, home.usage, budget=1, engine=False, log=meanwhile)
    assert [removed.name[-1] for removed in done] == ["a"]


def test_a_mirror_that_is_used_while_others_are_removed_is_left(home: Home) -> None:
    home.mirror("a", 9)
    mirror = home.mirror("b", 8)
    done = keep_house(home.settings, home.usage, budget=1, engine=False, log=lambda line: os.utime(mirror))
    assert [removed.name for removed in done] == ["a"]
    assert mirror.exists()


def test_an_entry_of_the_index_that_is_asked_for_stays(home: Home) -> None:
    index = ImageIndex(home.settings.folder("images", "index"))
    entry = Entry("sha256:a", "", "")
    index.put(entry, "asked")
    index.put(entry, "forgotten")
    for file in home.settings.folder("images", "index").iterdir():
        home.aged(file, STALE_SECONDS / 86_400 + 1)
    assert index.get("asked") == entry
    assert home.keep(0) == []
    assert index.get("asked") == entry
    assert index.get("forgotten") is None


def test_environments_that_were_built_again_go_whatever_the_budget(home: Home) -> None:
    key = "e" * 64
    names = [key, f"{key}.2", f"{key}.3", f"{key}.10", f"{key}.11", "f" * 64, f"{'f' * 64}.2"]
    folders = {name: home.environment(name, 2) for name in names}
    attempt = home.settings.folder("runs", "id", "1")
    (attempt / "environment").write_text(str(folders[f"{key}.2"]))
    home.usage.used("environment", f"{key}.3")
    (folders[f"{'f' * 64}.2"] / ".ready").unlink()  # it is being built
    assert home.keep(0, dry_run=True) == []
    assert all(folder.exists() for folder in folders.values())
    home.keep(0)
    assert [name for name in names if not folders[name].exists()] == [key, f"{key}.10"]


def test_stale_records_go_whatever_the_budget(home: Home) -> None:
    index, failures = home.settings.folder("images", "index"), home.settings.folder("images", "failures")
    days = STALE_SECONDS / 86_400
    stale, used = (
        home.aged(_touched(index / "stale.json"), days + 1),
        home.aged(_touched(index / "used.json"), days + 1),
    )
    fresh = home.aged(_touched(index / "fresh.json"), days - 1)
    failed, failing = home.aged(_touched(failures / "a.json"), 1), _touched(failures / "b.json")
    part = home.aged(_touched(home.settings.folder("code") / ".x.part"), 2)
    left = home.settings.folder("envs", ".removed-x")
    os.utime(used)
    assert home.keep(0) == []
    assert [path.exists() for path in (stale, used, fresh, failed, failing, part, left)] == [
        False, True, True, False, True, False, False,
    ]  # fmt: skip


def _touched(path: Path) -> Path:
    path.touch()
    return path


def test_usage_is_known_to_every_process(home: Home) -> None:
    assert home.usage.last("image", "sha256:a") is None
    before = time.time() - 1
    home.usage.used("image", "sha256:a")
    last = Usage(home.settings).last("image", "sha256:a")
    assert last is not None
    assert before < last < time.time() + 1
    assert home.usage.last("snapshot", "sha256:a") is None
    home.usage.forget("image", "sha256:a")
    assert home.usage.last("image", "sha256:a") is None
