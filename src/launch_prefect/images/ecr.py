"""Who we are to Amazon ECR: tokens from AWS, kept until shortly before they expire. Blocking: call it in a thread.

Needs the extra `aws`; nothing of it is imported before a token is wanted.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from launch_prefect.errors import InvalidInput, LaunchError, RegistryRefused, Unreachable

_HOST = re.compile(r"\d{12}\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)")
_EARLY = timedelta(minutes=30)
_OWN = ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL")

Token = tuple[str, str, str]
"""Address of a registry, the user `AWS`, the token."""

_lock = threading.Lock()
_kept: dict[tuple[Any, ...], tuple[datetime, Token]] = {}


def region_of(registry: str) -> str | None:
    """The AWS region of a registry, or None if it is not one of ECR."""
    match = _HOST.fullmatch(registry)
    return match["region"] if match else None


def is_aws(value: Any) -> bool:
    """Whether a block, or its fields, are prefect-aws's AwsCredentials."""
    if isinstance(value, Mapping):
        return "registry_url" not in value and any(str(name).startswith("aws_") for name in value)
    return hasattr(value, "get_boto3_session")


def token(value: Any, registry: str) -> Token:
    """A token for the credentials of a block.

    Args:
        value: AwsCredentials of prefect-aws, or its fields.
        registry: Address of the registry it is wanted for.

    Returns:
        A token for that registry if it is one of ECR, or one on this machine where the block leads to a stand-in for
        AWS (`endpoint_url`); else for the registry that AWS names.

    Raises:
        InvalidInput: The fields do not fit, or name no region.
        LaunchError: prefect-aws is not installed.
        RegistryRefused: AWS refuses.
        Unreachable: AWS does not answer.
    """
    block = _block(value)
    options = block.aws_client_parameters.get_params_override()
    options["region_name"] = region_of(registry) or block.region_name
    options.setdefault("config", _patience())
    secrets = (_plain(block.aws_secret_access_key), _plain(block.aws_session_token))
    who = (block.aws_access_key_id, *secrets, hash(block), options["region_name"], options.get("endpoint_url"))
    found = _kept_or_new(who, lambda: block.get_boto3_session().client("ecr", **options))
    stands_in = options.get("endpoint_url") or os.environ.get("AWS_ENDPOINT_URL")
    if region_of(registry) or (stands_in and is_loopback(registry.rpartition(":")[0] or registry)):
        return registry, *found[1:]
    return found


def own_token(registry: str) -> Token | None:
    """A token for this machine's own AWS credentials.

    Args:
        registry: Address of a registry of ECR.

    Returns:
        It; None where boto3 is not installed, or this machine has no credentials.

    Raises:
        RegistryRefused: AWS refuses.
        Unreachable: AWS does not answer.
    """
    if find_spec("boto3") is None:
        return None
    import boto3

    region = region_of(registry)
    who = ("own", region, *map(os.environ.get, _OWN))
    try:
        found = _kept_or_new(who, lambda: boto3.Session().client("ecr", region_name=region, config=_patience()))
    except _NoCredentials:
        return None
    return registry, *found[1:]


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class _NoCredentials(InvalidInput):
    """Neither the block nor this machine says who we are to AWS."""


def _block(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if find_spec("prefect_aws") is None:
        raise LaunchError(
            "The registry's credentials are of AWS, and what talks to AWS is not installed on the agent's machine.",
            mend="Install it: pip install 'launch-prefect[aws]'.",
        )
    from prefect_aws import AwsCredentials

    known = {name: field for name, field in value.items() if name in AwsCredentials.model_fields}
    try:
        return AwsCredentials(**known)
    except ValidationError as error:
        names = ", ".join(".".join(map(str, each["loc"])) for each in error.errors(include_input=False))
        raise InvalidInput(
            f"The AWS credentials of the registry do not fit: {names}.", mend="Correct the block."
        ) from None


def _plain(secret: Any) -> Any:
    return secret.get_secret_value() if isinstance(secret, SecretStr) else secret


def _kept_or_new(who: tuple[Any, ...], connect: Callable[[], Any]) -> Token:
    """The token of `who`, asked for anew if there is none or it expires soon."""
    with _lock:
        expires, token = _kept.get(who, (datetime.min.replace(tzinfo=UTC), None))
        if token is None or expires - _EARLY <= datetime.now(UTC):
            expires, token = _ask(connect)
            _kept[who] = (expires, token)
        return token


def _patience() -> Any:
    """How long AWS is waited for: boto's own is minutes."""
    from botocore.config import Config

    return Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})


def _ask(connect: Callable[[], Any]) -> tuple[datetime, Token]:
    from botocore import exceptions

    try:
        data = connect().get_authorization_token()["authorizationData"][0]
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError) as error:
        raise _NoCredentials(f"AWS: {error}", mend="Give the block an access key and its secret.") from None
    except exceptions.NoRegionError as error:
        raise InvalidInput(f"AWS: {error}", mend="Set region_name in the block.") from None
    except exceptions.ClientError as error:
        reason = error.response.get("Error", {})
        raise RegistryRefused(
            f"AWS gives no token for ECR: {reason.get('Code', '')} {reason.get('Message', '')}".strip(),
            mend="Correct the aws-credentials block; it needs the right ecr:GetAuthorizationToken.",
        ) from None
    except exceptions.BotoCoreError as error:
        raise Unreachable(
            f"AWS gives no token for ECR: {error}",
            mend="Check that this machine reaches AWS, and the block's endpoint.",
        ) from None
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return data["expiresAt"], (urlsplit(data["proxyEndpoint"]).netloc, user, password)
