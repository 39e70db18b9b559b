"""Names of images, whose credentials are used, and what the engine's words about a transfer mean; nothing is asked."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from prefect_docker import DockerRegistryCredentials
from pydantic import SecretStr

from launch_prefect.errors import DiskFull, InvalidInput, LaunchError, RegistryRefused, Unreachable
from launch_prefect.images import ecr, engine, registry, transfer
from launch_prefect.images.registry import Reference, credentials_for, credentials_from
from launch_prefect.settings import get_settings

pytestmark = pytest.mark.unit

DIGEST = "sha256:" + "a" * 64
REGISTRY = "registry.test:5000"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this machine's Docker configuration."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def log_in(folder: Path, **content: Any) -> None:
    (folder / "config.json").write_text(json.dumps(content))


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("python", Reference("docker.io", "library/python")),
        ("python:3.12", Reference("docker.io", "library/python", "3.12")),
        ("docker.io/python", Reference("docker.io", "library/python")),
        ("index.docker.io/team/train:V2", Reference("docker.io", "team/train", "V2")),
        ("team/train", Reference("docker.io", "team/train")),
        ("localhost/train", Reference("localhost", "train")),
        (f"{REGISTRY}/a/b/c", Reference(REGISTRY, "a/b/c")),
        (f"{REGISTRY}/a@{DIGEST}", Reference(REGISTRY, "a", None, DIGEST)),
        (f"registry.test/a:1@{DIGEST}", Reference("registry.test", "a", "1", DIGEST)),
        ("[::1]:5000/a", Reference("[::1]:5000", "a")),
    ],
)
def test_a_name_is_taken_apart(reference: str, expected: Reference) -> None:
    assert Reference.parse(reference) == expected
    assert registry.registry_of(reference) == expected.registry
    assert expected.version == (expected.digest or expected.tag or "latest")


@pytest.mark.parametrize(
    "reference",
    ["", "Team/train", "registry.test/Train", "registry.test/", "http://x/y", "a b", DIGEST, "a:b:c", "a@b"],
)
def test_what_is_no_name_is_refused(reference: str) -> None:
    with pytest.raises(InvalidInput, match="does not name an image"):
        Reference.parse(reference)
    assert not registry.is_credentials_for(reference, (REGISTRY, "me", "hunter2"))


FIELDS = {"username": "me", "password": "hunter2", "registry_url": REGISTRY}


@pytest.mark.parametrize(
    "value", [FIELDS, FIELDS | {"password": SecretStr("hunter2")}, DockerRegistryCredentials(**FIELDS)]
)
def test_credentials_come_out_of_a_block(value: Any) -> None:
    assert credentials_from(value, "other.test/train") == (REGISTRY, "me", "hunter2")


@pytest.mark.parametrize(
    "value", ["hunter2", None, {}, {"token": "hunter2"}, FIELDS | {"username": ""}, FIELDS | {"password": ["hunter2"]}]
)
def test_another_block_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="registry_credentials") as caught:
        credentials_from(value, f"{REGISTRY}/train")
    assert "hunter2" not in str(caught.value)


def test_aws_fields_that_do_not_fit(folder: Path) -> None:
    block = {"aws_access_key_id": ["hunter2"], "aws_client_parameters": {"use_ssl": "hunter2"}}
    with pytest.raises(InvalidInput, match=r"aws_access_key_id, aws_client_parameters\.use_ssl") as caught:
        credentials_from(block, "train")
    assert "hunter2" not in str(caught.value)


def test_aws_without_what_talks_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecr, "find_spec", lambda name: None)
    with pytest.raises(LaunchError, match=r"pip install 'launch-prefect\[aws\]'"):
        credentials_from({"aws_access_key_id": "AKIA", "aws_secret_access_key": "hunter2"}, "train")
    assert credentials_for("123456789012.dkr.ecr.eu-west-1.amazonaws.com/train") is None


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com", "eu-west-1"),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "eu-west-1"),
        ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.example.test", None),
        ("x.dkr.ecr.eu-west-1.amazonaws.com", None),
        ("docker.io", None),
        ("", None),
    ],
)
def test_registries_of_ecr_are_known_by_their_name(host: str, region: str | None) -> None:
    assert ecr.region_of(host) == region


def test_credentials_that_are_given_come_first(folder: Path) -> None:
    log_in(folder, auths={REGISTRY: auth("who", "logged-in")})
    given = (f"https://{REGISTRY}/v2/", "me", "hunter2")
    assert credentials_for(f"{REGISTRY}/train", given) == given
    assert credentials_for(f"{REGISTRY}/train") == (REGISTRY, "who", "logged-in")
    assert credentials_for(f"{REGISTRY}/train", ("other.test", "me", "hunter2")) == (REGISTRY, "who", "logged-in")
    assert credentials_for("other.test/train", given) is None


def test_docker_hub_has_many_addresses(folder: Path) -> None:
    log_in(folder, auths={"https://index.docker.io/v1/": auth("who", "logged-in")})
    assert credentials_for("python:3.12") == ("docker.io", "who", "logged-in")
    assert credentials_for("docker.io/team/train") == ("docker.io", "who", "logged-in")


def test_a_credential_helper_may_give_an_identity_token(folder: Path) -> None:
    helper = folder / "docker-credential-launch-unit"
    helper.write_text('#!/bin/sh\necho \'{"Username": "<token>", "Secret": "identity"}\'\n')
    helper.chmod(0o755)
    log_in(folder, credHelpers={REGISTRY: "launch-unit"}, auths={"other.test": {"identitytoken": "another"}})
    assert credentials_for(f"{REGISTRY}/train") == (REGISTRY, "<token>", "identity")
    assert credentials_for("other.test/train") == ("other.test", "<token>", "another")
    helper.write_text("#!/bin/sh\necho hunter2\nexit 1\n")
    with pytest.raises(LaunchError, match="gives no credentials") as caught:
        credentials_for(f"{REGISTRY}/train")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ['{"auths": {"registry.test:5000": "hunter2"}}', '{"auths": {"x": {"auth": "hunter2"}}}']
)
def test_a_docker_configuration_that_cannot_be_read(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(LaunchError, match="gives no credentials") as caught:
        credentials_for(f"{REGISTRY}/train")
    assert "hunter2" not in str(caught.value)


def test_the_registry_of_docker_hub_has_an_address_of_its_own() -> None:
    asked = registry._Registry(Reference.parse("python:3.12"), None, 1)._url
    assert asked == "https://registry-1.docker.io/v2/library/python/manifests/3.12"
    asked = registry._Registry(Reference.parse(f"{REGISTRY}/train:1@{DIGEST}"), None, 1)._url
    assert asked == f"https://{REGISTRY}/v2/train/manifests/{DIGEST}"


@pytest.mark.parametrize(
    ("address", "insecure"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("named.test:5000", True),
        ("named.test", False),
        ("127.0.0.1.example.test", False),
        ("localhost.example.test", False),
        ("10.0.0.1:5000", False),
        ("docker.io", False),
    ],
)
def test_http_is_for_this_machine_and_what_is_named(
    monkeypatch: pytest.MonkeyPatch, address: str, insecure: bool
) -> None:
    monkeypatch.setenv("LAUNCH_INSECURE_REGISTRIES", "other.test, named.test:5000")
    get_settings.cache_clear()
    try:
        assert registry._is_insecure(address) is insecure
    finally:
        get_settings.cache_clear()


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("dial tcp 127.0.0.1:9: connect: connection refused", Unreachable),
        ("unexpected EOF", Unreachable),
        ("received unexpected HTTP status: 503 Service Unavailable", Unreachable),
        ("net/http: TLS handshake timeout", Unreachable),
        ("toomanyrequests: Rate exceeded", Unreachable),
        ("write /var/lib/registry: no space left on device", DiskFull),
        ("unauthorized: authentication required", RegistryRefused),
        ("no basic auth credentials", RegistryRefused),
        ("denied: requested access to the resource is denied", RegistryRefused),
        ("name unknown: The repository with name 'x' does not exist in the registry", RegistryRefused),
    ],
)
def test_what_the_engine_says_of_a_push(reason: str, error: type[LaunchError]) -> None:
    failed = engine._push_failed(Reference(REGISTRY, "train"), None, transfer.Refusal(reason))
    assert type(failed) is error
    assert REGISTRY in failed.message
    assert failed.mend


def test_only_what_breaks_off_is_tried_again_and_not_after_the_end() -> None:
    def tries(reason: str, stop: threading.Event) -> int:
        seen: list[str] = []

        def work() -> None:
            seen.append(reason)
            if len(seen) == 2:
                stop.set()
            raise transfer.Refusal(reason)

        with pytest.raises(transfer.Refusal):
            transfer.attempts(stop)(work)
        return len(seen)

    assert tries("unexpected EOF", threading.Event()) == 2
    assert tries("unauthorized: authentication required", threading.Event()) == 1
    given_up = threading.Event()
    given_up.set()
    assert tries("unexpected EOF", given_up) == 1


def test_few_lines_tell_of_a_push() -> None:
    lines: list[str] = []
    progress = transfer.PushProgress(lines.append)
    for layer, status, current in [
        ("a", "Preparing", 0),
        ("b", "Waiting", 0),
        ("a", "Layer already exists", 0),
        ("b", "Pushing", 512),
        ("b", "Retrying in 5 seconds", 0),
        ("b", "Retrying in 4 seconds", 0),
        ("b", "Pushing", 2_000_000),
        ("b", "Pushed", 0),
        ("b", "Layer already exists", 0),  # on another try
        ("c", "Mounted from team/base", 0),
    ]:
        progress.take({"id": layer, "status": status, "progressDetail": {"current": current} if current else {}})
    progress.take({"status": "1: digest: sha256:… size: 528"})
    progress.take({"progressDetail": {}, "aux": {"Tag": "1", "Digest": DIGEST, "Size": 528}})
    assert progress.end() == DIGEST
    assert lines == [
        "The push of layer b broke off; the engine tries again.",
        "Pushed 1 layer, 2.0 MB unpacked; 2 were there already",
    ]
