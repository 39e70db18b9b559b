"""What `doctor` checks for jobs from code and git: git itself, a queue's builder, and its registry."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launch_prefect.cli.checks import Check, guarded
from launch_prefect.errors import InvalidInput, LaunchError

if TYPE_CHECKING:
    from launch_prefect.client import Queue
    from launch_prefect.images.registry import Credentials
    from launch_prefect.spec import BuilderSpec

_SECONDS = 10.0


def builds_images(queue: Queue) -> bool:
    """Whether an agent of a queue has to build images; also where what the queue says of it cannot be read."""
    try:
        return queue.target != "process" and queue.builder.type != "none"
    except InvalidInput:
        return True


def git() -> Check:
    """Whether jobs from git can be fetched on this machine."""
    program = shutil.which("git")
    if program is None:
        return Check("git", "warning", "It is not installed: no job from git can be run here.", "Install git.")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    if said.returncode:
        return Check("git", "warning", f"{program} does not run: {said.stderr.strip()[:200]}.", "Install git anew.")
    version = said.stdout.strip().removeprefix("git version ")
    if shutil.which("git-lfs") is None:
        mend = "Install git-lfs where jobs need files that are kept with it."
        return Check("git", "ok", f"Version {version}, without git-lfs.", mend)
    return Check("git", "ok", f"Version {version}, with git-lfs.")


async def builders(queues: Sequence[Queue], *, chosen: bool) -> list[Check]:
    """Each queue's builder and registry.

    Args:
        queues: The queues.
        chosen: Whether the queue was named: what would stop a run of it is then a problem, otherwise a warning.
    """
    found = []
    for queue in queues:
        try:
            builder = queue.builder
            builder.refuse_for(queue.target)
        except (LaunchError, ValueError) as error:
            mend = "Correct the queue's file, and `prefect-launch queue apply` it."
            found.append(Check(f"builder of {queue.name}", "problem" if chosen else "warning", f"{error}", mend))
            continue
        if builder.registry is not None and builder.type != "none":
            check = await guarded(f"registry of {queue.name}", lambda: _registry(queue.name, builder))  # noqa: B023
            if check.level == "problem" and not chosen:
                check = Check(check.name, "warning", check.message, check.mend)
            found.append(check)
    return found


async def _registry(queue: str, builder: BuilderSpec) -> Check:
    """Ask for an image that is not there: an answer says that it is reached and that the credentials are accepted."""
    from launch_prefect.images import registry

    reference = f"{builder.registry}/launch-prefect-doctor:none"
    credentials = await _credentials(builder, reference)
    await asyncio.to_thread(registry.find_digest, reference, credentials, timeout=_SECONDS)
    accepted = f", and accepts the credentials of {builder.registry_credentials}" if credentials else ""
    return Check(f"registry of {queue}", "ok", f"{builder.registry} answers{accepted}.")


async def _credentials(builder: BuilderSpec, reference: str) -> Credentials | None:
    """Those of the queue's block; None leaves it to this machine's Docker configuration."""
    if builder.registry_credentials is None:
        return None
    from launch_prefect.client.api import connect
    from launch_prefect.client.pinning import block_value
    from launch_prefect.images import registry

    async with connect() as client:
        value = await block_value(client, builder.registry_credentials)
    return await asyncio.to_thread(registry.credentials_from, value, reference)
