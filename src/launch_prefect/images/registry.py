"""What a container registry has, and who we are to it. Blocking: call it in a thread.

Images themselves are moved by the engine (`engine.py`); here is only what it cannot be asked: whether a registry has
an image, and which digest a tag leads to. The protocol is that of the OCI distribution specification.
"""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.request import parse_http_list, parse_keqv_list

import httpx
import tenacity
from pydantic import SecretStr

from launch_prefect import dockerpy
from launch_prefect.errors import InvalidInput, LaunchError, RegistryRefused, Unreachable
from launch_prefect.images import ecr
from launch_prefect.settings import get_settings
from launch_prefect.spec.source import check_image

Credentials = tuple[str, str, str]
"""Address of a registry, name of a user, password. The user `<token>` has an identity token as its password."""

HUB = "docker.io"
IDENTITY_TOKEN = "<token>"  # noqa: S105 - the name that Docker's credential helpers give, not a token
MEND = "Name a block with its credentials (registry_credentials), or log in on the agent's machine: docker login {}"

_HUB_HOST = "registry-1.docker.io"
_CERTIFICATES = Path("/etc/docker/certs.d")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_BROKEN = (httpx.NetworkError, httpx.RemoteProtocolError)
_REDIRECTS = 3


@dataclass(frozen=True, slots=True)
class Reference:
    """The parts of an image's name.

    Attributes:
        registry: Address of its registry, `docker.io` where the name has none.
        repository: Its name there; images of Docker Hub without a user are in `library/`.
        tag: Its tag, if it has one.
        digest: Its digest, `sha256:…`, if it has one. It then says alone which image is meant.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, reference: str) -> Reference:
        """Read a name.

        Raises:
            InvalidInput: It is none that Docker accepts, or an image's id.
        """
        try:
            check_image(reference)
            name, _, digest = reference.partition("@")
            folder, slash, last = name.rpartition("/")
            last, _, tag = last.partition(":")
            registry, repository = dockerpy.docker.auth.resolve_repository_name(f"{folder}{slash}{last}")
        except (ValueError, dockerpy.DockerException) as error:
            raise InvalidInput(f"{reference!r} does not name an image: {error}.") from None
        if repository != repository.lower() or repository == "sha256":
            raise InvalidInput(
                f"{reference!r} does not name an image of a registry.",
                mend="Write it in lower case, such as registry.example.com/team/train:1.4.",
            )
        if registry == HUB and "/" not in repository:
            repository = f"library/{repository}"
        return cls(registry, repository, tag or None, digest or None)

    @property
    def name(self) -> str:
        """The name without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def version(self) -> str:
        """The digest, else the tag, else `latest`."""
        return self.digest or self.tag or "latest"


def registry_of(reference: str) -> str:
    """Address of the registry of an image, such as `docker.io` or `127.0.0.1:5000`.

    Raises:
        InvalidInput: It is no name of an image.
    """
    return Reference.parse(reference).registry


def is_credentials_for(reference: str, credentials: Credentials) -> bool:
    """Whether credentials are for the registry of an image: no other one may see them."""
    auth = dockerpy.docker.auth
    try:
        return bool(registry_of(reference) == auth.resolve_index_name(credentials[0]))
    except InvalidInput:
        return False


def credentials_from(value: Any, reference: str) -> Credentials:
    """The credentials that a Prefect block holds.

    Args:
        value: The block, or its fields: prefect-docker's DockerRegistryCredentials or prefect-aws's AwsCredentials.
        reference: Name of the image, which tells the registry and region of ECR that a token is wanted for.

    Returns:
        Credentials; for another registry than the image's, if that is what the block holds.

    Raises:
        InvalidInput: The block is of another kind, or a field is missing.
        LaunchError: They are of AWS, and what talks to AWS is not installed.
        RegistryRefused: AWS gives no token for them.
        Unreachable: AWS does not answer.
    """
    if ecr.is_aws(value):
        return ecr.token(value, "" if reference.startswith("sha256:") else registry_of(reference))
    fields = [_field(value, name) for name in ("registry_url", "username", "password")]
    if not all(isinstance(field, str) and field for field in fields):
        raise InvalidInput(
            "registry_credentials names no block with the credentials of a registry.",
            mend="Name one of the type docker-registry-credentials (username, password and registry_url are needed), "
            "or aws-credentials for ECR.",
        )
    url, user, password = fields
    return str(url), str(user), str(password)


def _field(value: Any, name: str) -> Any:
    found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return found.get_secret_value() if isinstance(found, SecretStr) else found


def credentials_for(reference: str, given: Credentials | None = None) -> Credentials | None:
    """The credentials for the registry of an image.

    Args:
        reference: Name of the image.
        given: Taken if they are for its registry, and for no other one.

    Returns:
        Those, else the ones in this machine's Docker configuration, else for ECR a token that this machine's own AWS
        credentials lead to. None where there are none.

    Raises:
        InvalidInput: It is no name of an image.
        LaunchError: The Docker configuration cannot be read, or a credential helper that it names fails.
        RegistryRefused: AWS gives no token for this machine's credentials.
        Unreachable: AWS does not answer.
    """
    if given is not None and is_credentials_for(reference, given):
        return given
    registry = registry_of(reference)
    return _configured(registry) or (ecr.own_token(registry) if ecr.region_of(registry) else None)


def unreadable_configuration(error: Exception) -> LaunchError:
    """The error that says that this machine's Docker configuration gives no credentials, though it should."""
    # Neither a broken file's content nor a helper's output is for a log: either may hold a password.
    return LaunchError(
        f"The Docker configuration of this machine gives no credentials ({type(error).__name__}).",
        mend="Correct config.json in DOCKER_CONFIG or ~/.docker, or install the credential helper that it names; "
        "`prefect-launch doctor` names those that are missing.",
    )


def _configured(registry: str) -> Credentials | None:
    """What `docker login` has left on this machine: in the configuration, or with a credential helper."""
    auth = dockerpy.docker.auth
    try:
        found = auth.load_config().resolve_authconfig(registry)
    except (dockerpy.DockerException, ValueError, OSError) as error:
        raise unreadable_configuration(error) from None
    fields = {name.lower(): value for name, value in (found or {}).items()}
    if token := fields.get("identitytoken"):
        return registry, IDENTITY_TOKEN, token
    if fields.get("username") and fields.get("password"):
        return registry, fields["username"], fields["password"]
    return None


def find_digest(reference: str, credentials: Credentials | None = None, *, timeout: float = 10) -> str | None:
    """The digest that the name of an image leads to in its registry.

    Args:
        reference: Its name, with a tag or a digest.
        credentials: Used if they are for its registry; else see `credentials_for`.
        timeout: Seconds that the registry may take to answer, all tries together.

    Returns:
        The digest of its manifest, list of manifests or index, `sha256:…`; None where the registry has no such image.

    Raises:
        InvalidInput: It is no name of an image.
        RegistryRefused: The registry refuses the credentials, or to answer without any.
        Unreachable: It does not answer, or not as a registry does.
        LaunchError: See `credentials_for`.
    """
    image = Reference.parse(reference)
    registry = _Registry(image, credentials_for(reference, credentials), timeout)
    try:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((*_BROKEN, _Busy)),
            stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(timeout),
            wait=tenacity.wait_exponential(0.2),
            reraise=True,
        ):
            with attempt:
                return registry.find_digest()
    except (httpx.TransportError, _Busy) as error:
        raise Unreachable(
            f"The registry {image.registry} does not answer: {_reason(error)}.",
            mend="Check its address and that this machine reaches it; one that speaks http is named in "
            "LAUNCH_INSECURE_REGISTRIES, one with certificates of its own in LAUNCH_CA_BUNDLE.",
        ) from None
    raise AssertionError  # the loop returns or raises


class _Busy(Exception):
    """The registry answers that it cannot answer now."""


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    return str(error).rstrip(".") or type(error).__name__


class _Registry:
    """Conversation with the registry of one image.

    The registry says what it wants (`WWW-Authenticate`) before it is told who we are: a password goes to it, or to
    where it says that tokens are to be had, and only where nobody can listen on the way.
    """

    def __init__(self, image: Reference, credentials: Credentials | None, timeout: float) -> None:
        self._image = image
        self._credentials = credentials
        self._deadline = time.monotonic() + timeout
        host = _HUB_HOST if image.registry == HUB else image.registry
        scheme = "http" if _is_insecure(image.registry) else "https"
        self._url = f"{scheme}://{host}/v2/{image.repository}/manifests/{image.version}"

    def find_digest(self) -> str | None:
        """The digest of the image's manifest, or None.

        Raises:
            RegistryRefused: It refuses.
            _Busy: It answers that it cannot.
            httpx.TransportError: It does not answer.
        """
        with httpx.Client(verify=_trust(self._image.registry, get_settings().ca_bundle)) as client:
            response = self._ask(client, "HEAD")
            if response.status_code == httpx.codes.NOT_FOUND:
                return None
            digest = response.headers.get("docker-content-digest", "")
            if response.is_success and not digest:
                response = self._ask(client, "GET")
                if response.headers.get("content-type", "").partition(";")[0].strip() in _MANIFESTS:
                    digest = f"sha256:{hashlib.sha256(response.content).hexdigest()}"
            if not response.is_success or not _DIGEST.fullmatch(digest):
                raise _Busy(f"it does not answer as a registry does (HTTP {response.status_code})")
            return str(digest)

    def _ask(self, client: httpx.Client, method: str) -> httpx.Response:
        headers = {"Accept": ", ".join(_MANIFESTS)}
        response = self._send(client, client.build_request(method, self._url, headers=headers))
        if response.status_code == httpx.codes.UNAUTHORIZED and (who := self._authorization(client, response)):
            request = client.build_request(method, self._url, headers=headers | {"Authorization": who})
            response = self._send(client, request)
        for _ in range(_REDIRECTS):
            if response.next_request is None:
                break
            # httpx has taken the authorization out where this leads to another server; what that one
            # wants to know is not answered.
            response = self._send(client, response.next_request)
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise self._refused(f"HTTP {response.status_code}")
        return response

    def _send(self, client: httpx.Client, request: httpx.Request) -> httpx.Response:
        left = max(self._deadline - time.monotonic(), 0.001)
        request.extensions["timeout"] = httpx.Timeout(left).as_dict()
        response = client.send(request)
        if response.status_code >= 500 or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise _Busy(f"HTTP {response.status_code} {response.reason_phrase}".strip())
        return response

    def _authorization(self, client: httpx.Client, response: httpx.Response) -> str | None:
        """What to say to a registry that asks who we are; None if there is nothing to say."""
        challenges = dict(map(_challenge, response.headers.get_list("www-authenticate")))
        if (bearer := challenges.get("bearer")) and bearer.get("realm"):
            return f"Bearer {self._token(client, bearer)}"
        if "basic" in challenges and self._credentials is not None:
            self._check_safe(response.url)
            return _basic(self._credentials)
        return None

    def _token(self, client: httpx.Client, challenge: Mapping[str, str]) -> str:
        realm = httpx.URL(challenge["realm"])
        wanted = {"scope": challenge.get("scope") or f"repository:{self._image.repository}:pull"}
        if service := challenge.get("service"):
            wanted["service"] = service
        if self._credentials is not None:
            self._check_safe(realm)
        request = _token_request(client, realm, wanted, self._credentials)
        response = self._send(client, request)
        try:
            answer = response.json() if response.is_success else {}
            token = answer.get("token") or answer.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token.isprintable():
            raise self._refused(f"{realm.host} gives no token, HTTP {response.status_code}")
        return token

    def _check_safe(self, url: httpx.URL) -> None:
        # Who lists a registry as insecure has said that it is spoken to so, as in Docker's own configuration.
        if url.scheme != "https" and not _is_insecure(url.netloc.decode()):
            raise self._refused(f"it wants them at {url.scheme}://{url.host}, where others could read them")

    def _refused(self, reason: str) -> RegistryRefused:
        return refused(self._image, self._credentials, reason)


def refused(image: Reference, credentials: Credentials | None, reason: str) -> RegistryRefused:
    """The error that says that a registry refuses us.

    Args:
        image: What was wanted of it.
        credentials: What it was told, for the user's name.
        reason: Its answer, shortened.
    """
    who = f"the credentials of {credentials[1]}" if credentials else "to answer without credentials"
    return RegistryRefused(
        f"The registry {image.registry} refuses {who} for {image.repository} ({reason}).",
        mend=MEND.format("" if image.registry == HUB else image.registry).strip() + ".",
    )


def _token_request(
    client: httpx.Client, realm: httpx.URL, wanted: dict[str, str], credentials: Credentials | None
) -> httpx.Request:
    if credentials and credentials[1] == IDENTITY_TOKEN:
        form = wanted | {"grant_type": "refresh_token", "client_id": "launch-prefect", "refresh_token": credentials[2]}
        return client.build_request("POST", realm, data=form)
    headers = {"Authorization": _basic(credentials)} if credentials else {}
    return client.build_request("GET", realm.copy_merge_params(wanted), headers=headers)


def _basic(credentials: Credentials) -> str:
    _, user, password = credentials
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _challenge(header: str) -> tuple[str, dict[str, str]]:
    scheme, _, rest = header.partition(" ")
    return scheme.lower(), parse_keqv_list([item for item in parse_http_list(rest) if "=" in item])


def _is_insecure(registry: str) -> bool:
    """Whether a registry is spoken to over http: on this machine, as Docker does, or where the operator says so."""
    host = registry if registry.endswith("]") else re.sub(r":\d+$", "", registry)
    return ecr.is_loopback(host) or registry in get_settings().insecure_registries


@lru_cache(maxsize=32)
def _trust(registry: str, ca_bundle: Path | None) -> ssl.SSLContext:
    """This machine's certificate authorities, the operator's, and those that the engine trusts for this registry."""
    context = ssl.create_default_context()
    files = [*sorted((_CERTIFICATES / registry).glob("*.crt")), *([ca_bundle] if ca_bundle else [])]
    for file in files:
        try:
            context.load_verify_locations(file)
        except (OSError, ssl.SSLError):
            raise InvalidInput(f"There are no CA certificates in {file}.", mend="Correct or remove it.") from None
    return context
