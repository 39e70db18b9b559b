"""A Dockerfile of the job's own: the one that it names, or one with a name that we know beside the entrypoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.spec.build import BuildSpec

NAMES = ("Dockerfile.launch", "Dockerfile.wandb")
"""In the order in which they are taken."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where it is.

    Attributes:
        dockerfile: Path below the folder.
        context: Folder of its build context, below the folder.
        reason: Why it is taken, for the log.
        others: Files that would have done, too, and come later.
    """

    dockerfile: str
    context: str
    reason: str
    others: tuple[str, ...] = ()


def named(folder: Path, build: BuildSpec) -> Found:
    """The one that `build.dockerfile` names.

    Raises:
        NotFound: It, or the folder in `build.context`, is not in the code.
        InvalidInput: A link leads out of the code.
    """
    name, context = build.dockerfile or "", build.context or "."
    if not (folder / name).is_file():
        raise NotFound(f"build.dockerfile: the code has no file {name}.", mend="Correct the path, or add the file.")
    if not (folder / context).is_dir():
        raise NotFound(f"build.context: the code has no folder {context}.", mend="Correct the path.")
    for key, path in (("dockerfile", name), ("context", context)):
        if not _is_inside(folder, path):
            raise InvalidInput(f"build.{key}: {path} leads out of the code.", mend="Put it into the job's folder.")
    return Found(name, context, f"{name} is the job's own Dockerfile (build.dockerfile)")


def beside_entrypoint(folder: Path, command: Sequence[str] | None) -> Found | None:
    """`Dockerfile.launch`, then `Dockerfile.wandb`, beside the entrypoint, then at the code's top; None without one.

    Args:
        folder: The code.
        command: The job's command; its first word that is a file in the code is the entrypoint.
    """
    folders = dict.fromkeys([_entrypoint_folder(folder, command), PurePosixPath()])
    found = [
        (path / name).as_posix()
        for path in folders
        for name in NAMES
        if (folder / path / name).is_file() and _is_inside(folder, path / name)
    ]
    if not found:
        return None
    return Found(found[0], ".", f"{found[0]} found", tuple(found[1:]))


def _entrypoint_folder(folder: Path, command: Sequence[str] | None) -> PurePosixPath:
    for word in command or ():
        path = PurePosixPath(word)
        outside = not word or path.is_absolute() or ".." in path.parts
        if not outside and _is_file(folder / path) and _is_inside(folder, path):
            return path.parent
    return PurePosixPath()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # words need not be paths at all: a whole script after `sh -c`
        return False


def _is_inside(folder: Path, path: str | PurePosixPath) -> bool:
    return (folder / path).resolve().is_relative_to(folder.resolve())
