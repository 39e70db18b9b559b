"""Registries, real ones, through a real engine: open, with a password, with tokens, ECR; and when they fail."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launch_prefect.errors import ImageMissing, LaunchError, RegistryRefused, Unreachable
from launch_prefect.images import engine, registry
from launch_prefect.images.registry import credentials_for, credentials_from, find_digest
from tests.testbed.registry import (  # noqa: F401 - fixtures
    Ecr,
    Registry,
    TokenRegistry,
    basic_registry_fixture,
    ecr_registry_fixture,
    free_port,
    open_registry_fixture,
    proxy_fixture,
    token_registry_fixture,
)
from tests.testbed.registry_images import (  # noqa: F401 - fixtures
    MIB,
    Images,
    images_fixture,
    own_docker_configuration_fixture,
    ways,
)
from tests.testbed.registry_proxy import Proxy

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.integration

WRONG = "not-the-password"


def log_in(folder: Path, **content: Any) -> None:
    (folder / "config.json").write_text(json.dumps(content))


def push(reference: str, credentials: registry.Credentials | None = None) -> tuple[str, list[str]]:
    lines: list[str] = []
    return engine.push(reference, threading.Event(), credentials, lines.append), lines


def repository(reference: str) -> str:
    return reference.rpartition(":")[0]


def goes_round(images: Images, address: str, credentials: registry.Credentials | None) -> None:
    """An image is pushed, found by its tag and its digest, and pulled by its digest, as the very same."""
    reference = images.make(address)
    image = engine.find(reference)
    assert find_digest(reference, credentials) is None
    digest, lines = push(reference, credentials)
    assert lines == ["Pushed 2 layers, 4.3 MB unpacked; 0 were there already"]
    assert find_digest(reference, credentials) == digest
    by_digest = f"{repository(reference)}@{digest}"
    assert find_digest(by_digest, credentials) == digest
    assert find_digest(f"{reference}@{digest}", credentials) == digest
    assert engine.find_repo_digest(repository(reference), str(image)) == digest
    images.forget(reference)
    assert engine.find(by_digest) is None
    assert engine.pull(by_digest, threading.Event(), credentials) == image
    assert engine.find(by_digest) == image
    assert engine.find(f"{reference}@{digest}") == image  # though the tag is not here
    assert engine.find(reference) is None
    engine.tag(str(image), reference)
    assert engine.find(reference) == image


def test_an_open_registry(images: Images, open_registry: Registry) -> None:
    goes_round(images, open_registry.address, None)


def test_a_registry_with_a_password(images: Images, basic_registry: Registry) -> None:
    goes_round(images, basic_registry.address, basic_registry.credentials)


def test_a_registry_with_tokens(images: Images, token_registry: TokenRegistry) -> None:
    goes_round(images, token_registry.address, token_registry.credentials)
    assert any(
        scope.startswith("repository:team/") and scope.endswith(":pull") for scope in token_registry.tokens.asked
    )


def test_a_registry_with_an_identity_token(images: Images, token_registry: TokenRegistry) -> None:
    goes_round(images, token_registry.address, (token_registry.address, "<token>", token_registry.identity))


def test_what_all_may_pull_needs_no_credentials(images: Images, token_registry: TokenRegistry) -> None:
    reference = images.make(token_registry.address, name=f"public/{uuid.uuid4().hex[:12]}")
    digest, _ = push(reference, token_registry.credentials)
    assert find_digest(reference) == digest
    images.forget(reference)
    assert engine.pull(reference, threading.Event()).startswith("sha256:")
    with pytest.raises(RegistryRefused, match="without credentials"):
        push(reference)


def test_ecr(images: Images, ecr_registry: Ecr) -> None:
    credentials = credentials_from(ecr_registry.block, f"{ecr_registry.address}/team/x")
    assert credentials == ecr_registry.credentials
    goes_round(images, ecr_registry.address, credentials)


def test_an_ecr_token_is_for_the_registry_that_aws_names(ecr_registry: Ecr) -> None:
    region = "111122223333.dkr.ecr.us-west-2.amazonaws.com"
    assert credentials_from(ecr_registry.block, f"{region}/team/x")[0] == region
    other = credentials_from(ecr_registry.block, "registry.example.com/team/x")
    assert other[0] == "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    assert not registry.is_credentials_for("registry.example.com/team/x", other)


def test_this_machines_own_aws_credentials(ecr_registry: Ecr, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/x"
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ENDPOINT_URL", ecr_registry.endpoint)
    assert credentials_for(reference) is None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIALAUNCHTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "launch-test-secret")
    assert credentials_for(reference) == (reference.partition("/")[0], ecr_registry.user, ecr_registry.password)


def test_aws_that_is_not_there(ecr_registry: Ecr) -> None:
    block = ecr_registry.block | {"aws_client_parameters": {"endpoint_url": f"http://127.0.0.1:{free_port()}"}}
    with pytest.raises(Unreachable, match="AWS gives no token") as caught:
        credentials_from(block, f"{ecr_registry.address}/team/x")
    assert "launch-test-secret" not in str(caught.value)


def test_wrong_and_no_credentials(
    images: Images, basic_registry: Registry, token_registry: TokenRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for where in (basic_registry, token_registry):
        reference = images.make(where.address)
        push(reference, where.credentials)
        for given, named in (((where.address, where.user, WRONG), where.user), (None, "without credentials")):
            lines: list[str] = []
            for ask in ways(reference, lines.append):
                # Of a pull without credentials the engine cannot say whether they are wanted, or there is no image.
                with pytest.raises(
                    (RegistryRefused, ImageMissing), match=f"{named}|may require 'docker login'"
                ) as caught:
                    ask(given)
                assert given is None or isinstance(caught.value, RegistryRefused)
                assert where.address in caught.value.message
                assert "registry_credentials" in caught.value.mend
                assert "docker login" in caught.value.mend
                chain = [caught.value, caught.value.__cause__]
                assert WRONG not in f"{chain!r} {lines}"
    assert WRONG not in caplog.text
    assert basic_registry.password not in caplog.text


def test_what_is_not_there(images: Images, open_registry: Registry) -> None:
    missing = f"{open_registry.address}/team/none:1"
    assert find_digest(missing) is None
    with pytest.raises(ImageMissing, match="manifest unknown"):
        engine.pull(missing, threading.Event())
    with pytest.raises(ImageMissing, match="There is no image"):
        push(missing)
    with pytest.raises(ImageMissing):
        engine.tag("sha256:" + "0" * 64, missing)
    reference = images.make(open_registry.address)
    assert engine.find_repo_digest(repository(reference), str(engine.find(reference))) is None
    assert engine.find_repo_digest(repository(reference), "sha256:" + "0" * 64) is None


def test_the_docker_configuration_is_used(
    images: Images, basic_registry: Registry, own_docker_configuration: Path
) -> None:
    import base64

    auth = base64.b64encode(f"{basic_registry.user}:{basic_registry.password}".encode()).decode()
    log_in(own_docker_configuration, auths={basic_registry.address: {"auth": auth}})
    goes_round(images, basic_registry.address, None)


def test_a_credential_helper_is_used(
    images: Images, basic_registry: Registry, own_docker_configuration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = own_docker_configuration / "docker-credential-launch-test"
    answer = json.dumps({"Username": basic_registry.user, "Secret": basic_registry.password})
    helper.write_text(f"#!/bin/sh\nread host; [ \"$host\" = {basic_registry.address} ] || exit 1\necho '{answer}'\n")
    helper.chmod(0o755)
    log_in(own_docker_configuration, credHelpers={basic_registry.address: "launch-test"})
    monkeypatch.setenv("PATH", f"{own_docker_configuration}:{os.environ['PATH']}")
    goes_round(images, basic_registry.address, None)
    # Credentials for another registry are no reason not to look there.
    reference = images.make(basic_registry.address)
    assert push(reference, ("other.example", "someone", WRONG))[0].startswith("sha256:")


@pytest.mark.filterwarnings("ignore:docker-credential-launch-test-none not installed")
def test_a_credential_helper_that_fails(basic_registry: Registry, own_docker_configuration: Path) -> None:
    log_in(own_docker_configuration, credHelpers={basic_registry.address: "launch-test-none"})
    with pytest.raises(LaunchError, match="gives no credentials") as caught:
        find_digest(f"{basic_registry.address}/team/x")
    assert "credential helper" in caught.value.mend


def test_a_docker_configuration_that_is_broken(docker_engine: DockerClient, own_docker_configuration: Path) -> None:
    log_in(own_docker_configuration, auths={"registry.test": {"auth": WRONG}})
    with pytest.raises(LaunchError, match="Docker configuration") as caught:
        engine.platform()
    assert WRONG not in str(caught.value)


def test_only_the_changed_layer_is_sent(images: Images, proxy: Proxy) -> None:
    name, top = f"team/{uuid.uuid4().hex[:12]}", MIB
    push(images.make(proxy.address, top, name=name))
    second = images.make(proxy.address, top, name=name, tag="2")
    proxy.sent = 0
    _, lines = push(second)
    assert lines == ["Pushed 1 layer, 1.1 MB unpacked; 1 was there already"]
    assert top <= proxy.sent <= 1.1 * top
    proxy.sent = 0
    push(second)
    assert proxy.sent <= 0.1 * top


def test_a_push_that_is_cut_half_way_goes_on(images: Images, proxy: Proxy) -> None:
    reference = images.make(proxy.address)
    proxy.cut(sent=2 * MIB)
    digest, lines = push(reference)
    assert any("broke off" in line for line in lines)
    assert find_digest(reference) == digest
    assert proxy.sent < 7 * MIB


def test_a_pull_that_is_cut_half_way_goes_on(images: Images, proxy: Proxy) -> None:
    reference = images.make(proxy.address)
    push(reference)
    image = engine.find(reference)
    images.forget(reference)
    proxy.cut(received=2 * MIB)
    assert engine.pull(reference, threading.Event()) == image


def test_a_registry_that_comes_back_within_seconds(images: Images, proxy: Proxy) -> None:
    reference = images.make(proxy.address)
    proxy.refuse(2)
    assert find_digest(reference) is None
    proxy.refuse(3)
    digest, _ = push(reference)
    images.forget(reference)
    proxy.refuse(3)
    engine.pull(reference, threading.Event())
    assert find_digest(reference) == digest


def test_a_registry_that_is_down(images: Images) -> None:
    reference = images.make(f"127.0.0.1:{free_port()}")
    for ask in (lambda: find_digest(reference), lambda: push(reference)):
        begun = time.monotonic()
        with pytest.raises(Unreachable, match="refused"):
            ask()
        assert time.monotonic() - begun < 10


def test_a_registry_that_is_silent(images: Images, proxy: Proxy) -> None:
    reference = images.make(proxy.address)
    proxy.stall(sent=1)
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="too long"):
        find_digest(reference, timeout=0.5)
    assert time.monotonic() - begun < 2
    for work in (lambda stop: engine.pull(reference, stop), lambda stop: engine.push(reference, stop, None, print)):
        assert given_up(work, lambda: True) < 2


def test_a_push_that_is_given_up_half_way(images: Images, proxy: Proxy) -> None:
    reference = images.make(proxy.address)
    proxy.stall(sent=2 * MIB)
    took = given_up(lambda stop: engine.push(reference, stop, None, print), lambda: proxy.is_stalled(30))
    assert took < 2
    proxy.heal()
    assert proxy.is_unused(10)
    assert find_digest(reference) is None, "the engine has gone on with what was given up"


def given_up(work: Callable[[threading.Event], Any], ready: Callable[[], bool]) -> float:
    """How many seconds work takes to end after it is told to stop."""
    stop, errors = threading.Event(), []

    def run() -> None:
        try:
            work(stop)
        except LaunchError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert ready()
    stop.set()
    begun = time.monotonic()
    thread.join(30)
    assert "given up" in str(errors)
    return time.monotonic() - begun
