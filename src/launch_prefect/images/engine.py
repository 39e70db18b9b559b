"""What the Docker engine of this machine has, and what it can pull. Blocking: call it in a thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import requests.exceptions

from launch_prefect import dockerpy
from launch_prefect.errors import ImageMissing, LaunchError, Unreachable
from launch_prefect.sources.disk import disk_full

DEFAULT_HOST = "unix:///var/run/docker.sock"
Credentials = tuple[str, str, str]
"""Address of a registry, name of a user, password."""


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
        LaunchError: It refuses what was asked for.
    """
    client = None
    try:
        client = dockerpy.docker.from_env()
        yield client
    except (requests.exceptions.ConnectionError, requests.exceptions.Timeout):
        raise unreachable() from None
    except dockerpy.APIError as error:
        raise LaunchError(f"The Docker engine at {address()} refuses: {error.explanation or error}.") from error
    except dockerpy.DockerException as error:
        raise unreachable() from error
    finally:
        if client is not None:
            client.close()


def platform() -> str:
    """Operating system and processor of the engine, such as `linux/amd64`.

    Raises:
        Unreachable: The engine does not answer.
    """
    with connected() as client:
        version = client.version()
        return f"{version['Os']}/{version['Arch']}"


def find(reference: str) -> str | None:
    """Id of an image that the engine has, `sha256:…`, or None.

    Args:
        reference: Its name or id.

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


def is_credentials_for(reference: str, credentials: Credentials) -> bool:
    """Whether credentials are for the registry of an image: no other one may see them."""
    auth = dockerpy.docker.auth
    try:
        registry, _ = auth.resolve_repository_name(reference)
        return bool(registry == auth.resolve_index_name(auth.convert_to_hostname(credentials[0])))
    except dockerpy.DockerException:  # no name of an image, or no address of a registry
        return False


def pull(reference: str, stop: threading.Event, credentials: Credentials | None = None) -> str:
    """Pull an image.

    Args:
        reference: Its name.
        stop: Set by another thread to give up.
        credentials: Used if they are for its registry; else those of this machine's `docker login`.

    Returns:
        Its id, `sha256:…`.

    Raises:
        ImageMissing: It can't be pulled, with the engine's reason.
        DiskFull: No space is left where the engine keeps images.
        Unreachable: The engine does not answer.
    """
    login = None
    if credentials is not None and is_credentials_for(reference, credentials):
        login = {"username": credentials[1], "password": credentials[2]}
    with connected() as client:
        try:
            # The high-level call drops the errors that come within the stream.
            for line in client.api.pull(reference, stream=True, decode=True, auth_config=login):
                if "error" in line:
                    raise _missing(reference, line["error"])
                if stop.is_set():
                    raise _missing(reference, "given up")
        except dockerpy.APIError as error:
            raise _missing(reference, error.explanation or str(error)) from None
        image = _find(client, reference)
    if image is None:
        raise _missing(reference, "the registry sent nothing")
    return image


def missing(reference: str, reason: str) -> ImageMissing:
    """The error that says that an image cannot be had."""
    return ImageMissing(
        f"The image {reference} cannot be pulled: {reason.strip().rstrip('.')}.",
        mend="Check its name and tag, that this machine reaches the registry, and its credentials (docker login).",
    )


def _missing(reference: str, reason: str) -> LaunchError:
    if "no space left on device" in reason.lower():
        return disk_full("the Docker engine")
    return missing(reference, reason)
