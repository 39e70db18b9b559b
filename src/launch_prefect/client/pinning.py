"""What a job runs, pinned when it is submitted: a git ref to its commit, an image's tag to its digest."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound

from launch_prefect.client.api import connect
from launch_prefect.errors import InvalidInput, LaunchError, NotFound, Unreachable
from launch_prefect.settings import get_settings
from launch_prefect.sources.git import GitCredentials, WorkTree, credentials_from, keep_patch, resolve, work_tree
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec import GitSource, ImageSource

IMAGE_SECONDS = 3.0
"""At most this long a submission waits for a registry."""
_SILENT_SECONDS = 60.0
_log = logging.getLogger(__name__)
_silent: dict[str, float] = {}  # registry → until when it is not asked again, because it did not answer


async def pinned_git(source: GitSource) -> GitSource:
    """A git source with the commit that its ref leads to now.

    Raises:
        NotFound: There is no such repository, ref, folder or block.
        InvalidInput: The block holds no credentials of git, or the server refuses them.
        Unreachable: The git server, or the Prefect API where credentials are named, does not answer.
    """
    credentials = await git_credentials(source)
    return await anyio.to_thread.run_sync(resolve, source, get_settings(), credentials)


def work_tree_at(folder: Path) -> WorkTree:
    """The git work tree that a folder is in. Blocking: call it in a thread.

    Raises:
        InvalidInput: It is in none, or in one that cannot be used.
    """
    tree = work_tree(folder)
    if tree is None:
        raise InvalidInput(
            f"The folder {str(folder)!r} is in no git work tree.", mend="Submit it as a folder, without --git."
        )
    return tree


async def pinned_work_tree(tree: WorkTree, credentials: str | None) -> GitSource:
    """A work tree as a git source: the commit that its server has, and the changes since as a patch in the code store.

    Args:
        tree: The work tree as it is now.
        credentials: Block with the credentials of its git server, as `TYPE/NAME`.

    Raises:
        InvalidInput: The changes hold secrets; see also `pinned_git`.
        DiskFull: The code store has no space.
        Unreachable: See `pinned_git`; or the code store does not answer.
    """
    source = await pinned_git(GitSource(git=tree.url, ref=tree.commit, credentials=credentials))
    changes: dict[str, str | None] = {"ref": tree.branch or tree.commit, "subdir": tree.subdir}
    if tree.patch:
        store = CodeStore(get_settings().code_store_url)
        changes |= {"patch": await anyio.to_thread.run_sync(keep_patch, tree.patch, store), "store": store.url}
    return source.model_copy(update=changes)


async def git_credentials(source: GitSource) -> GitCredentials | None:
    """The credentials in the block that a source names; None where it names none.

    Raises:
        NotFound: There is no such block.
        InvalidInput: It holds no credentials of git.
        Unreachable: The Prefect API does not answer.
    """
    if source.credentials is None:
        return None
    async with connect() as client:
        return credentials_from(await block_value(client, source.credentials))


async def block_value(client: PrefectClient, block: str) -> Any:
    """What Prefect puts in place of a block's template in job variables.

    Args:
        client: The API.
        block: `TYPE/NAME`.

    Raises:
        NotFound: There is none.
    """
    kind, _, name = block.partition("/")
    try:
        found = await client.read_block_document_by_name(name, kind, include_secrets=True)
    except ObjectNotFound:
        raise NotFound(
            f"There is no block {block!r}.",
            mend="Blocks are named TYPE/NAME, such as secret/my-token; `prefect block ls` lists those there are.",
        ) from None
    return found.data["value"] if found.data.keys() == {"value"} else found.data


async def pinned_image(source: ImageSource, credentials: str | None = None) -> ImageSource:
    """An image with the digest that its registry names now, or as it is where no answer comes in time.

    An id, and a name that only an engine knows, need no registry: nothing that goes wrong here is an error.

    Args:
        source: The image.
        credentials: Block with the credentials of its registry, as `TYPE/NAME`.
    """
    if source.image.startswith("sha256:") or "@" in source.image:
        return source
    from launch_prefect.images import registry

    try:
        host = registry.registry_of(source.image)
        if time.monotonic() < _silent.get(host, 0.0):
            return source
        with anyio.fail_after(IMAGE_SECONDS):
            block = await _value_of(credentials) if credentials else None
            digest = await anyio.to_thread.run_sync(_find_digest, source.image, block, abandon_on_cancel=True)
    except (TimeoutError, Unreachable) as error:
        _silent[host] = time.monotonic() + _SILENT_SECONDS
        _log.debug("The image %s is not pinned: %s", source.image, error or "no answer in time")
    except LaunchError as error:
        _log.debug("The image %s is not pinned: %s", source.image, error)
    else:
        if digest is not None:
            return source.model_copy(update={"digest": digest})
        _log.debug("The image %s is not pinned: its registry does not have it.", source.image)
    return source


async def _value_of(block: str) -> Any:
    async with connect() as client:
        return await block_value(client, block)


def _find_digest(image: str, block: Any) -> str | None:
    from launch_prefect.images import registry

    credentials = None if block is None else registry.credentials_from(block, image)
    return registry.find_digest(image, credentials, timeout=IMAGE_SECONDS)
