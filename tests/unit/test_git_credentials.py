"""Credentials of git out of Prefect blocks, and what is said when git fails."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from launch_prefect.errors import InvalidInput, LaunchError, NotFound, Unreachable
from launch_prefect.sources.git import GitCredentials, credentials_from
from launch_prefect.sources.git.trouble import About, Damaged

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ghp_1", GitCredentials(None, token="ghp_1")),
        ("ghp_1\n", GitCredentials(None, token="ghp_1")),
        (SecretStr("ghp_1"), GitCredentials(None, token="ghp_1")),
        ({"token": "ghp_1"}, GitCredentials(None, token="ghp_1")),
        ({"token": SecretStr("glpat"), "url": None}, GitCredentials(None, token="glpat")),
        ({"token": None, "password": "p", "username": "me", "url": "x"}, GitCredentials("me", token="p")),
        (KEY, GitCredentials(None, ssh_key=KEY)),
        (f"\n{KEY.strip()}", GitCredentials(None, ssh_key=KEY)),
        (KEY.replace("\n", "\r\n"), GitCredentials(None, ssh_key=KEY)),
    ],
)
def test_what_a_block_holds(value: object, expected: GitCredentials) -> None:
    assert credentials_from(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None, "", "  ", 7, [], {}, {"token": None}, {"token": ""}, {"token": 7}, {"user": "me"},
        "hidden\nhost=evil.example.com", "hidden\x00x", {"token": "hidden", "username": "a\nb"},
        {"token": "hidden", "username": 7}, "-----BEGIN CERTIFICATE-----\nhidden\n-----END CERTIFICATE-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nhidden",
    ],
)  # fmt: skip
def test_what_is_no_credentials(value: object) -> None:
    with pytest.raises(InvalidInput, match="secret block that holds a token or a private ssh key") as caught:
        credentials_from(value)
    assert "hidden" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    credentials = GitCredentials("me", token="hidden", ssh_key="hidden, too")
    assert "hidden" not in f"{credentials} {credentials!r} {[credentials]}"
    assert credentials.secrets == {"hidden", "hidden, too"}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("remote: Repository not found.\nfatal: repository 'https://h/x/' not found", NotFound),
        ("fatal: unable to access 'https://h/x/': The requested URL returned error: 404", NotFound),
        ("fatal: unable to access 'https://h/x/': The requested URL returned error: 403", InvalidInput),
        ("fatal: Authentication failed for 'https://h/x/'", InvalidInput),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", InvalidInput),
        ("git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.", InvalidInput),
        ("fatal: unable to access 'https://h/x/': Could not resolve host: h", Unreachable),
        ("fatal: unable to access 'https://h/x/': Failed to connect to h port 443", Unreachable),
        ("error: RPC failed; curl 28 Operation too slow.\nfatal: early EOF", Unreachable),
        ("ssh: connect to host h port 22: Connection timed out", Unreachable),
        ("error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502", Unreachable),
        ("", Unreachable),
        ("fatal: remote error: upload-pack: not our ref " + "a" * 40, NotFound),
        ("error: object 1f: gitmodulesUrl: disallowed\nfatal: fsck error in packed object", InvalidInput),
        ("fatal: unable to write file: No space left on device", LaunchError),
        ("server certificate verification failed. CAfile: none", LaunchError),
        ("fatal: loose object 1f (stored in x) is corrupt", Damaged),
    ],
)
def test_what_git_says_becomes_an_error(said: str, kind: type[LaunchError]) -> None:
    error = About("https://h/x", None, None, "/mirrors").error(said, "It cannot be read")
    assert type(error) is kind or (kind is LaunchError and not isinstance(error, InvalidInput | Unreachable))


def test_what_is_shown_of_it_has_no_secret_and_no_control_characters() -> None:
    about = About("https://h/x", GitCredentials("me", token="hidden"), "secret/x", "/mirrors")
    said = "warning: redirecting to https://me:other@h/x\nremote: \x1b[31mNo, hidden\x1b[0m\x07\nremote: \nfatal: no\n"
    words = about.words(said)
    assert words == "warning: redirecting to https://***@h/x; remote: No, ***; fatal: no"


def test_progress_is_no_part_of_what_went_wrong() -> None:
    said = (
        "remote: Enumerating objects: 5, done.\nremote: Total 5 (delta 0), reused 0 (delta 0), pack-reused 0\n"
        "Receiving objects:  33% (1/3), 1.00 MiB | 2.00 MiB/s\rReceiving objects:  66% (2/3)\r"
        "From https://h/proxy\n * [new ref]  1f -> refs/launch/heads/proxy\nerror: bad object 1f\n"
    )
    error = About("https://h/x", None, None, "/mirrors").error(said, "It cannot be read", mirrored=True)
    assert isinstance(error, Damaged)
    assert error.message == "It cannot be read: error: bad object 1f"
