"""Taking a job's code: its progress is shown, a person is asked where it is large, and what was taken is told."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn

from launch_prefect.cli import output
from launch_prefect.cli.output import err, note, working
from launch_prefect.cli.session import confirm

if TYPE_CHECKING:
    from launch_prefect.client import Job
    from launch_prefect.sources.git import WorkTree

T = TypeVar("T")
_SHOWN_FROM = 50 * 1000**2  # bytes; less is taken before a bar could be read
_LISTED = 5


async def with_code(job: Job, work: Callable[[], Awaitable[T]], *, message: str, yes: bool) -> T:
    """Do what takes a job's code, and ask first where it is larger than the limit.

    Args:
        job: The job.
        work: What takes it: creates or submits the job.
        message: What is being done.
        yes: Do not ask.

    Returns:
        What `work` returns.

    Raises:
        InvalidInput: The code is too large, and the answer is no or nobody is there to answer.
    """
    from launch_prefect.sources.snapshot import TooLarge

    job.code_limit = 0 if yes else None
    try:
        with _shown(message) as job.on_progress:
            return await work()
    except TooLarge as error:
        if yes:  # larger than what is ever taken
            raise
        confirm(
            f"{error.message} {error.mend}\nTake it all the same?",
            otherwise=f"{error.message} Nothing has been submitted",
            yes=f"{error.mend} Or take it all the same: --yes.",
        )
    job.code_limit = 0
    with _shown(message) as job.on_progress:
        return await work()


@contextmanager
def _shown(message: str) -> Iterator[Callable[[int, int], None]]:
    """A spinner; a bar as soon as there is much to be taken. Both only where standard error is a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    bar = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    spinner = working(message)
    task = bar.add_task("Taking the code", start=True)
    begun = threading.Event()

    def progress(done: int, total: int) -> None:
        if total < _SHOWN_FROM:
            return
        if not begun.is_set():
            begun.set()
            spinner.__exit__(None, None, None)
            bar.start()
        bar.update(task, completed=done, total=total)

    spinner.__enter__()
    try:
        yield progress
    finally:
        if begun.is_set():
            bar.stop()
        else:
            spinner.__exit__(None, None, None)


def code_facts(job: Job) -> list[tuple[str, str | None]]:
    """What was taken, as named values."""
    from launch_prefect.spec import GitSource

    code, source, tree = job.snapshot, job.spec.source, job.work_tree
    rows: list[tuple[str, str | None]] = []
    if code is not None:
        rows.append(("code", f"{_count(code.files, 'file')}, {output.size(code.size)}"))
    if isinstance(source, GitSource):
        commit = source.commit or ""
        named = f" ({source.ref})" if source.ref and source.ref != commit else ""
        rows += [("repository", source.git), ("commit", f"{commit}{named}"), ("folder", source.subdir)]
    if tree is not None:
        rows.append(("changes", changes_text(tree)))
    return rows


def changes_text(tree: WorkTree) -> str:
    """What a work tree holds over the commit that its server has."""
    if not tree.patch:
        return "none since that commit"
    changed = sum(line.startswith(b"diff --git ") for line in tree.patch.splitlines())
    unpushed = f", with {_count(tree.unpushed, 'commit')} not pushed" if tree.unpushed else ""
    return f"{_count(changed, 'file')} since that commit{unpushed}, {output.size(len(tree.patch))} as a patch"


def tell_left_out(job: Job) -> None:
    """Say which files its code does not hold."""
    if job.snapshot and job.snapshot.left_out:
        reasons = job.snapshot.reasons
        left_out = _listed([f"{path} ({reasons[path]})" for path in job.snapshot.left_out])
        note(f"Left out of the code: {left_out}. A line !PATH in .launchignore takes a file in.")
    if job.work_tree and job.work_tree.untracked:
        note(
            f"Not taken, because git does not track them: {_listed(job.work_tree.untracked)}. `git add` takes them in."
        )
    if job.work_tree and job.work_tree.dropped_credentials:
        note("The address of its remote repository holds credentials; they are left out. Name a block with them: "
             "--git-credentials TYPE/NAME.")  # fmt: skip


def tell_of_git(folder: str) -> None:
    """Say that a folder in a git work tree can be submitted as its commit, too."""
    path = Path(folder).expanduser().resolve()
    if any((above / ".git").exists() for above in (path, *path.parents)):
        note("This is a git work tree; --git submits its pushed commit and the changes since, instead of its files.")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
