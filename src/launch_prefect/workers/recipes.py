"""What a run's configuration says about its code and its build, resolved for the builders."""

from __future__ import annotations

from typing import Any

from prefect.workers.base import BaseWorker
from pydantic import SecretStr

from launch_prefect import naming
from launch_prefect.errors import InvalidInput
from launch_prefect.images import registry
from launch_prefect.images.engine import Credentials
from launch_prefect.images.recipe import Recipe
from launch_prefect.redaction import secret_parts
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.code import Code, code_of
from launch_prefect.sources.git import GitCredentials, credentials_from
from launch_prefect.spec import ImageSource
from launch_prefect.workers.attempt import Attempt
from launch_prefect.workers.configuration import LaunchJobConfiguration
from launch_prefect.workers.threads import in_thread


def secrets_of(configuration: LaunchJobConfiguration) -> frozenset[str]:
    """Secret values of a run's build, source and registry, which must not be seen in any log."""
    values = secret_parts(build_secrets(configuration))
    if configuration.git_credentials is not None:
        values += git_credentials(configuration).secrets
    values += _texts(configuration.builder.registry_credentials)
    return frozenset(value for value in values if value)


def _texts(value: Any) -> list[str]:
    """Passwords within the value of a credentials block; names and addresses are no secrets."""
    if isinstance(value, str | SecretStr):  # a block of another type; who uses it says so
        return [_plain(value)]
    found = dict(value or {})  # a mapping, or a block: pydantic's models give their fields
    return [
        _plain(item)
        for name, item in found.items()
        if isinstance(item, str | SecretStr) and any(word in name for word in ("password", "secret", "token"))
    ]


def _plain(value: Any) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def build_secrets(configuration: LaunchJobConfiguration) -> dict[str, str]:
    """Values of the build secrets by name: the queue's, and the job's over them.

    Raises:
        InvalidInput: A block holds no text.
    """
    secrets = {**configuration.builder.secrets, **configuration.build.secrets}
    for name, value in secrets.items():
        if not isinstance(value, str | SecretStr):
            raise InvalidInput(f"build.secrets.{name}: its block holds no text.", mend="Name a block of type secret.")
    return {name: _plain(value) for name, value in secrets.items()}


def git_credentials(configuration: LaunchJobConfiguration) -> GitCredentials:
    """Credentials of the job's git repository.

    Raises:
        InvalidInput: Its block is of no type that holds such.
    """
    return credentials_from(configuration.git_credentials)


def code_for(attempt: Attempt, configuration: LaunchJobConfiguration, settings: LaunchSettings) -> Code:
    """The code of an attempt.

    Raises:
        InvalidInput: It runs an image, or its source is not pinned.
    """
    if isinstance(attempt.source, ImageSource):
        raise InvalidInput(f"The job runs the image {attempt.source.image}; there is no code.")
    credentials = None if configuration.git_credentials is None else git_credentials(configuration)
    return code_of(attempt.source, settings, credentials)


async def registry_credentials(configuration: LaunchJobConfiguration, reference: str) -> Credentials | None:
    """Credentials for the registry of a reference that the queue's blocks give.

    Raises:
        InvalidInput: The block is of no type that holds such.
        LaunchError: They cannot be had, such as a token of ECR.
    """
    given = configuration.builder.registry_credentials
    given = given or getattr(configuration, "registry_credentials", None)
    return None if given is None else await in_thread(registry.credentials_from, given, reference)


def rebuilds(attempt: Attempt, configuration: LaunchJobConfiguration) -> bool:
    """Whether an attempt builds anew: a later one finds what the first has built."""
    return configuration.rebuild and attempt.number == 1


async def recipe_for(
    worker: BaseWorker[Any, Any, Any], attempt: Attempt, configuration: Any, settings: LaunchSettings
) -> Recipe:
    """What the image of an attempt is made from.

    Args:
        worker: Of which target.
        attempt: The attempt.
        configuration: The target's configuration.
        settings: Of this machine.

    Raises:
        InvalidInput: The queue builds nothing, or what the job says does not fit.
        LaunchError: Credentials cannot be had.
    """
    builder = configuration.builder
    try:
        builder.refuse_for(naming.target_of(worker.type) or "")
    except ValueError as error:
        raise InvalidInput(f"The queue {attempt.queue}: {error}.", mend="Correct the queue.") from None
    if builder.type == "none":
        raise InvalidInput(
            f"The queue {attempt.queue} builds no images (builder: none), and {attempt.job} is a job from code.",
            mend="Submit an image, or set builder.type of the queue to docker.",
        )
    address = builder.registry
    base = configuration.build.base_image or builder.base_image or configuration.base_image or settings.base_image
    pulled = f"{address}/image" if address else base.replace("{python}", "3")
    return Recipe(
        job=attempt.job,
        code=code_for(attempt, configuration, settings),
        command=attempt.command,
        build=configuration.build,
        base_image=base,
        platform=builder.platform,
        registry=address,
        credentials=await registry_credentials(configuration, pulled),
        secrets=build_secrets(configuration),
        rebuild=rebuilds(attempt, configuration),
        timeout=builder.timeout,
    )
