"""What the Docker engine of this machine has, pulls and pushes. Blocking: call it in a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests.exceptions

from launch_prefect import dockerpy
from launch_prefect.errors import DiskFull, ImageMissing, LaunchError, Unreachable
from launch_prefect.images import registry, transfer
from launch_prefect.images.registry import Reference, credentials_for
from launch_prefect.sources.disk import disk_full

DEFAULT_HOST = "unix:///var/run/docker.sock"
Credentials = registry.Credentials
is_credentials_for = registry.is_credentials_for
# API version by address: to ask for it each time would double the requests.
_versions: dict[str, str] = {}


def address() -> str:
    """Where the engine is expected to answer."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_HOST


def unreachable() -> Unreachable:
    """The error that says that the engine does not answer."""
    return Unreachable(
        f"The Docker engine at {address()} does not answer.",
        mend="Start it, or set DOCKER_HOST to where it listens; `docker version` shows whether it answers.",
    )


@contextmanager
def connected() -> Iterator[dockerpy.docker.DockerClient]:
    """A client of the engine.

    Raises:
        Unreachable: The engine does not answer.
        LaunchError: It refuses what was asked for, or this machine's Docker configuration cannot be read.
    """
    client = None
    try:
        client = _client()
        yield client
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout):
        raise unreachable() from None
    except dockerpy.APIError as error:
        _versions.pop(address(), None)  # an older engine may answer there by now
        raise LaunchError(f"The Docker engine at {address()} refuses: {error.explanation or error}.") from error
    except dockerpy.DockerException as error:
        raise unreachable() from error
    finally:
        if client is not None:
            client.close()


def _client() -> dockerpy.docker.DockerClient:
    known = _versions.get(address())
    try:
        client = dockerpy.docker.from_env(version=known)
    except ValueError as error:  # it reads the credentials of all registries, and trips over one
        raise registry.unreadable_configuration(error) from None
    _versions.setdefault(address(), client.api.api_version)
    return client


def platform() -> str:
    """Operating system and processor of the engine, such as `linux/amd64`.

    Raises:
        Unreachable: The engine does not answer.
    """
    with connected() as client:
        version = client.version()
        return f"{version['Os']}/{version['Arch']}"


def identity() -> str:
    """What tells one engine from another.

    Raises:
        Unreachable: The engine does not answer.
    """
    with connected() as client:
        return str(client.info()["ID"])


def find(reference: str) -> str | None:
    """Id of an image that the engine has, `sha256:…`, or None.

    Args:
        reference: Its name or id; of a name with tag and digest, the digest counts.

    Raises:
        Unreachable: The engine does not answer.
    """
    with connected() as client:
        return _find(client, reference)


def _find(client: dockerpy.docker.DockerClient, reference: str) -> str | None:
    try:
        return str(client.api.inspect_image(reference)["Id"])
    except dockerpy.ImageNotFound:
        return None


def find_repo_digest(name_without_tag: str, image_id: str) -> str | None:
    """Digest by which the engine knows an image in a repository; None where it has neither pushed nor pulled it there.

    Args:
        name_without_tag: Name of the repository with its registry.
        image_id: Id of the image, `sha256:…`.

    Raises:
        InvalidInput: It is no name of a repository.
        Unreachable: The engine does not answer.
    """
    wanted = Reference.parse(name_without_tag).name
    with connected() as client:
        try:
            known = client.api.inspect_image(image_id)["RepoDigests"] or []
        except dockerpy.ImageNotFound:
            return None
    names = map(Reference.parse, known)
    return next((name.digest for name in names if name.name == wanted), None)


def tag(image_id: str, name: str) -> None:
    """Give an image another name.

    Args:
        image_id: Its id or one of its names.
        name: The name, with a tag; without one it is `latest`.

    Raises:
        InvalidInput: It is no such name.
        ImageMissing: The engine has no such image.
        Unreachable: The engine does not answer.
    """
    new = Reference.parse(name)
    with connected() as client:
        try:
            client.api.tag(image_id, new.name, new.tag or "latest", force=True)
        except dockerpy.ImageNotFound:
            raise missing(image_id, "it is not on this machine") from None


def pull(reference: str, stop: threading.Event, credentials: Credentials | None = None) -> str:
    """Pull an image. A registry that breaks off is tried again.

    Args:
        reference: Its name, with a tag or a digest.
        stop: Set by another thread to give up.
        credentials: Used if they are for its registry; else see `registry.credentials_for`.

    Returns:
        Its id, `sha256:…`.

    Raises:
        ImageMissing: There is no such image, or no such registry answers, in the engine's words.
        RegistryRefused: The registry refuses the credentials.
        InvalidInput: It is no name of an image.
        DiskFull: No space is left where the engine keeps images.
        Unreachable: The engine does not answer.
        LaunchError: The Docker configuration of this machine cannot be read.
    """
    wanted = Reference.parse(reference)
    login = credentials_for(reference, credentials)
    query = {"fromImage": wanted.name, "tag": wanted.version}
    with connected() as client:
        try:
            for attempt in transfer.attempts(stop):
                with attempt:
                    for _ in transfer.lines(client, "images/create", query, login, stop):
                        pass
        except transfer.Refusal as refusal:
            raise _pull_failed(reference, login, refusal) from None
        image = _find(client, reference)
    if image is None:
        raise missing(reference, "the registry sent nothing")
    return image


def push(name: str, stop: threading.Event, credentials: Credentials | None, log: Callable[[str], None]) -> str:
    """Push a name of an image to its registry. A push that breaks off is tried again; what is there is not sent again.

    Args:
        name: The name, with a tag; without one it is `latest`.
        stop: Set by another thread to give up.
        credentials: Used if they are for its registry; else see `registry.credentials_for`.
        log: Takes a line now and then, and one at the end.

    Returns:
        Digest of the manifest in the registry, `sha256:…`.

    Raises:
        InvalidInput: It is no name of an image.
        ImageMissing: The engine has no image of that name.
        RegistryRefused: The registry refuses the credentials, or has no such repository and makes none.
        DiskFull: No space is left where the registry keeps images.
        Unreachable: The engine or the registry does not answer.
        LaunchError: Given up, or the Docker configuration of this machine cannot be read.
    """
    wanted = Reference.parse(name)
    login = credentials_for(name, credentials)
    progress = transfer.PushProgress(log)
    with connected() as client:
        if _find(client, name) is None:
            raise ImageMissing(f"There is no image {name} on this machine to push.", mend="Build or tag it first.")
        try:
            for attempt in transfer.attempts(stop):
                with attempt:
                    for line in transfer.lines(
                        client, f"images/{wanted.name}/push", {"tag": wanted.tag or "latest"}, login, stop
                    ):
                        progress.take(line)
        except transfer.Refusal as refusal:
            raise _push_failed(wanted, login, refusal) from None
    return progress.end()


def _pull_failed(reference: str, login: Credentials | None, refusal: transfer.Refusal) -> LaunchError:
    if refusal.disk_full:
        return disk_full("the Docker engine")
    if refusal.unauthorized:
        return registry.refused(Reference.parse(reference), login, refusal.reason)
    return missing(reference, refusal.reason)


def _push_failed(image: Reference, login: Credentials | None, refusal: transfer.Refusal) -> LaunchError:
    if refusal.disk_full:
        return DiskFull(
            f"No space is left where the registry {image.registry} or the Docker engine keeps images.",
            mend="Free some space there, then try again; what has been pushed is kept.",
        )
    if refusal.stopped:
        return LaunchError(f"The push of {image.name} was given up.")
    if refusal.broken:
        return Unreachable(
            f"The image {image.name} cannot be pushed: {refusal.reason}.",
            mend=f"Check that this machine reaches the registry {image.registry}, then try again; "
            "what has been pushed is kept.",
        )
    return registry.refused(image, login, refusal.reason)


def missing(reference: str, reason: str) -> ImageMissing:
    """The error that says that an image cannot be had."""
    return ImageMissing(
        f"The image {reference} cannot be pulled: {reason.strip().rstrip('.')}.",
        mend="Check its name and tag, that this machine reaches the registry, and its credentials (the block of "
        "registry_credentials, or docker login).",
    )
