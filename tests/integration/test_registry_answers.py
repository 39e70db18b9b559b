"""What registries may answer, who gets to see credentials, and how long tokens are kept: against recording servers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from launch_prefect.errors import InvalidInput, RegistryRefused, Unreachable
from launch_prefect.images import ecr, registry
from launch_prefect.images.registry import credentials_from, find_digest
from launch_prefect.settings import get_settings
from tests.testbed.registry import Ecr, ecr_registry_fixture  # noqa: F401 - a fixture
from tests.testbed.registry_images import (  # noqa: F401 - fixtures
    Images,
    images_fixture,
    own_docker_configuration_fixture,
    ways,
)
from tests.testbed.registry_recorder import ASKS, Recorder
from tests.testbed.registry_tokens import make_certificate

pytestmark = pytest.mark.integration

SECRET = ("user", "secretsecretsecret")


def test_credentials_of_another_registry_are_never_sent(images: Images) -> None:
    with Recorder(401, ASKS) as stranger:
        reference = images.make(stranger.address)
        for address in ("other.example", "127.0.0.1", "127.0.0.1:1", f"{stranger.address}0"):
            for ask in ways(reference):
                with pytest.raises(RegistryRefused, match="without credentials"):
                    ask((address, *SECRET))
        assert stranger.seen
        assert not stranger.has_credentials
        with pytest.raises(RegistryRefused):
            find_digest(reference, (stranger.address, *SECRET))
        assert stranger.has_credentials  # so it would have been seen above


def test_credentials_do_not_follow_a_redirect(images: Images) -> None:
    digest = "sha256:" + "d" * 64
    with (
        Recorder(401, ASKS) as stranger,
        Recorder(200, {"Docker-Content-Digest": digest}) as store,
    ):
        for target, expected in ((stranger, None), (store, digest)):
            hop = {"Location": f"http://{target.address}/v2/elsewhere"}
            with Recorder(307, hop, asks=True) as first:
                given = (first.address, *SECRET)
                if expected is None:
                    with pytest.raises(RegistryRefused):
                        find_digest(f"{first.address}/team/x", given)
                else:
                    assert find_digest(f"{first.address}/team/x", given) == expected
                assert first.has_credentials
            assert target.seen
            assert not target.has_credentials


@pytest.mark.parametrize(
    "challenge", ['Bearer realm="http://registry.example/token",service="x"', "Bearer", "Digest x"]
)
def test_credentials_are_not_said_where_others_hear_them(challenge: str) -> None:
    with Recorder(401, {"WWW-Authenticate": challenge}) as where:
        with pytest.raises(RegistryRefused):
            find_digest(f"{where.address}/team/x", (where.address, *SECRET))
        assert not where.has_credentials


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, {}, b""),
        (503, {}, b""),
        (429, {}, b""),
        (200, {"Content-Type": "text/html"}, b"<html>Log in to this network</html>"),
        (200, {"Docker-Content-Digest": "sha256:nonsense"}, b""),
        (302, {"Location": "/v2/for/ever"}, b""),
    ],
)
def test_an_answer_that_is_none(status: int, headers: dict[str, str], body: bytes) -> None:
    with Recorder(status, headers, body) as where:
        with pytest.raises(Unreachable, match=f"HTTP {status}"):
            find_digest(f"{where.address}/team/x")
        assert len(where.seen) >= 3  # tried again


def test_a_registry_with_a_certificate_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = make_certificate(key).public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    both, bundle = tmp_path / "both.pem", tmp_path / "bundle.pem"
    both.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form) + certificate)
    bundle.write_bytes(certificate)
    monkeypatch.setattr(registry, "_is_insecure", lambda address: False)  # as if it were not on this machine
    digest = "sha256:" + "d" * 64
    with Recorder(200, {"Docker-Content-Digest": digest}, certificate=both) as where:
        with pytest.raises(Unreachable, match="CERTIFICATE") as caught:
            find_digest(f"{where.address}/team/x")
        assert "LAUNCH_CA_BUNDLE" in caught.value.mend
        monkeypatch.setenv("LAUNCH_CA_BUNDLE", str(bundle))
        get_settings.cache_clear()
        try:
            assert find_digest(f"{where.address}/team/x") == digest
        finally:
            get_settings.cache_clear()


def test_a_registry_that_says_no_digest_of_a_head() -> None:
    kind = "application/vnd.oci.image.index.v1+json; charset=utf-8"
    with Recorder(200, {"Content-Type": kind}, b"{}") as where:
        expected = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        assert find_digest(f"{where.address}/team/x") == expected
        assert "application/vnd.docker.distribution.manifest.list.v2+json" in where.seen[0]


def test_ecr_tokens_are_kept_until_shortly_before_they_expire(ecr_registry: Ecr) -> None:
    for hours, asked in ((12, 1), (0.4, 2)):
        ecr._kept.clear()
        body = {
            "authorizationToken": "QVdTOng=",
            "expiresAt": time.time() + hours * 3600,
            "proxyEndpoint": "https://1.example",
        }
        with Recorder(200, {}, json.dumps({"authorizationData": [body]}).encode()) as aws:
            block = ecr_registry.block | {"aws_client_parameters": {"endpoint_url": f"http://{aws.address}"}}
            for _ in range(2):
                assert credentials_from(block, "127.0.0.1:1/x")[1:] == ("AWS", "x")
            assert len(aws.seen) == asked
            # Other keys never lead to what these gave.
            credentials_from(block | {"aws_secret_access_key": "another"}, "127.0.0.1:1/x")
            assert len(aws.seen) == asked + 1


def test_refused_by_aws(ecr_registry: Ecr) -> None:
    answer = json.dumps({"__type": "AccessDeniedException", "message": "not authorized"}).encode()
    with Recorder(400, {}, answer) as aws:
        block = ecr_registry.block | {"aws_client_parameters": {"endpoint_url": f"http://{aws.address}"}}
        with pytest.raises(RegistryRefused, match="AccessDeniedException not authorized"):
            credentials_from(block, "127.0.0.1:1/x")
    with pytest.raises(InvalidInput, match="region"):
        credentials_from({name: value for name, value in block.items() if name != "region_name"}, "127.0.0.1:1/x")
