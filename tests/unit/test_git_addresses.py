"""What is let through to git: addresses and refs, and what attackers write there."""

from __future__ import annotations

import pytest

from launch_prefect.errors import InvalidInput
from launch_prefect.sources.git.urls import beside, checked, server_of
from launch_prefect.spec import GitSource
from launch_prefect.spec.git import check_git_ref, check_git_url


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/team/app",
        "https://github.com/team/app.git",
        "https://git.example.com:8443/a/b/c.git",
        "https://127.0.0.1:4430/x.git",
        "https://[::1]:4430/x.git",
        "https://dev.azure.com/org/My%20Project/_git/repo",
        "https://xn--bcher-kva.example.com/x",
        "https://example.com/~user/repo.git",
        "https://example.com/gerrit/a+b,c@d/repo",
        "ssh://git@github.com/team/app.git",
        "ssh://github.com/team/app.git",
        "ssh://git@github.com:22022/~/app.git",
        "git@github.com:team/app.git",
        "git@ssh.dev.azure.com:v3/org/project/repo",
        "_svc.user-1@host:~other/app",
    ],
)
def test_addresses(url: str) -> None:
    assert check_git_url(url) == url
    assert GitSource(git=url).git == url


ATTACKS = {
    "no address": ["", "x", "team/app", "github.com/team/app", "//host/path", "https:", "https://", "https:///path"],
    "other transports": [
        "http://host/x", "git://host/x", "ftp://host/x", "ftps://host/x", "file:///etc", "rsync://host/x",
        "git+ssh://host/x", "ssh+git://host/x", "javascript://host/x", "HTTPS://host/x", "Ssh://host/x",
        "https+unix://host/x",
    ],
    "commands": [
        "ext::sh -c touch%20/tmp/pwned", "ext::sh", "fd::17/foo", "fd::17", "::x", "https::https://host/x",
        "ext::ssh://host/x", "ext://sh", "transport::address", "git@host::x",
    ],
    "files": ["/etc/passwd", "./x", "../x", "~/x", "C:\\x", "c:/x", "\\\\server\\share", "/tmp/a@b:c", "a/b@host:x"],
    "options": [
        "--upload-pack=touch /tmp/pwned", "--upload-pack=x", "-u", "-oProxyCommand=x", "--config=x", "-", "--",
        "ssh://-oProxyCommand=touch/x", "ssh://-oProxyCommand=x@host/x", "ssh://git@-oProxyCommand=x/y",
        "-oProxyCommand=x@host:y", "git@-oProxyCommand=x:y", "git@host:-x", "ssh://host/-x", "https://-host/x",
        "https://host/-x", "https://host//-x", "ssh://%2doProxyCommand=x/y", "ssh://host/%2dx", "git@-x:y",
    ],
    "user-info": [
        "https://user@host/x", "https://user:secret@host/x", "https://:secret@host/x", "https://token@host/x",
        "ssh://git:secret@host/x", "https://good.com@evil.com/x", "https://good.com:443@evil.com/x",
        "https://good.com%40evil.com@evil.com/x", "ssh://a@b@host/x", "https://@host/x", "https://:@host/x",
        "https://good.com\\@evil.com/x", "https://good.com#@evil.com/x", "https://good.com?@evil.com/x",
        "ssh://us er@host/x", "ssh://us%20er@host/x", "ssh://$(id)@host/x",
    ],
    "hosts": [
        "https://host:0/x", "https://host:99999/x", "https://host:port/x", "https://host:/x", "https://./x",
        "https://[::1/x", "https://[zz]/x", "https://ho%73t/x", "https://ho*t/x", "https://host./x", "https://_/x",
        "https://gіthub.com/x", "https://ＧitHub.com/x", "https://github。com/x",
        "https://bücher.example.com/x", "https://host;id/x", "https://host,evil/x", "ssh://$(id)/x",
    ],
    "unseen": [
        "https://host/x\n", "\nhttps://host/x", "https://host/x\ny", "https://ho\tst/x", "https://host/x\r",
        "https://host/\x00",
        "https://host/x y", " https://host/x", "https://host/x ", "https://host/\x1b[31m", "https://host/\x7f",
        "https://host/\u202egit", "https://host/\u2066x", "https://host/\u200bx", "https://host/\u00adx",
        "https://host/\ufeffx", "https://host/\u00a0x", "https://host/\u3000x", "https://host/\u2028x",
        "https://host/\u061cx", "https://host/\u2060x", "https://host/\U000e0041x", "https://host/\ue000x",
        "https://host/\ud800x", "git@host:x\ny", "git@host:x y", "git@ho\u200bst:x", "https://\u202ehost/x",
    ],
    "percent": [
        "https://host/x%0ahost=evil", "https://host/x%0Ay", "https://host/%00", "https://host/x%0d%0ay",
        "https://host/%09x", "https://host/x%7f", "https://host/%e2%80%aex", "https://host/%2d%2dx",
        "https://host/%2f%2dx",
        "https://host/x%", "https://host/x%2", "https://host/x%zz", "https://host/x%252e", "https://host/%ff",
        "https://host/%5cx", "https://host/%22x", "https://host/%24(id)", "https://host/%2f",
    ],
    "more than a path": [
        "https://host", "https://host/", "https://host//", "https://host/x?y", "https://host/x?", "https://host/x#y",
        "https://host/x#", "ssh://host", "git@host:", "git@host:/", "git@host",
    ],
    "shells": [
        "https://host/`id`", "https://host/$(id)", "https://host/'x'", 'https://host/"x"', "https://host/x;id",
        "https://host/x|id", "https://host/<x>", "git@host:x;id", "git@host:$(id)", "git@host:`id`", "git@host:'x'",
        "git@host:x|y", "https://host/{x}", "https://host/x^y",
    ],
    "length": ["https://host/" + "x" * 2000],
}  # fmt: skip


@pytest.mark.parametrize("url", [url for kind in ATTACKS.values() for url in kind])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError):
        check_git_url(url)
    with pytest.raises(InvalidInput) as caught:
        checked(url, what="The address")
    with pytest.raises(InvalidInput):
        GitSource.parse({"git": url}, what="job")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "ref", ["main", "v1.2", "feature/a-b_c", "refs/heads/main", "HEAD", "a" * 40, "1f3a", "über", "a@b", "a{b"]
)
def test_refs(ref: str) -> None:
    assert check_git_ref(ref) == ref


@pytest.mark.parametrize(
    "ref",
    [
        "", "-x", "--upload-pack=x", "-", "main~1", "main^", "main^{tree}", "a..b", "a...b", ":/x", "main:x",
        "@", "@{u}",
        "main@{1}", "a b", "a\nb", "a\x00b", "a\x7fb", "a\tb", "x?", "x*", "x[1]", "a\\b", "/a", "a/", "a//b", "a/.b",
        ".a", "a.", "a./b", "a.lock", "a.lock/b", "a\u202eb", "a\u200bb", "a\u00a0b", "a\ufeffb", "a\ud800b", "x" * 251,
        "+refs/heads/*:refs/heads/*", "a:b",
    ],
)  # fmt: skip
def test_what_is_no_ref(ref: str) -> None:
    with pytest.raises(ValueError):
        check_git_ref(ref)
    with pytest.raises(InvalidInput):
        GitSource.parse({"git": "https://host/x", "ref": ref}, what="job")


def test_a_server_is_scheme_host_and_port() -> None:
    assert server_of("https://Host.com/a") == server_of("https://host.com:443/b") == ("https", "host.com", 443)
    assert server_of("git@host.com:a") == server_of("ssh://other@HOST.com:22/b") == ("ssh", "host.com", 22)
    assert server_of("ssh://host.com:2222/a") == ("ssh", "host.com", 2222)
    assert server_of("https://[::1]:4430/a") == ("https", "::1", 4430)


@pytest.mark.parametrize(
    ("parent", "url", "full"),
    [
        ("https://host/team/app.git", "../lib.git", "https://host/team/lib.git"),
        ("https://host/team/app", "./lib", "https://host/team/app/lib"),
        ("https://host:1/team/app/", "../../other/lib.git", "https://host:1/other/lib.git"),
        ("ssh://git@host:22/team/app", "../lib", "ssh://git@host:22/team/lib"),
        ("git@host:team/app.git", "../lib.git", "git@host:team/lib.git"),
        ("git@host:app.git", "../lib.git", "git@host:lib.git"),
        ("https://host/a", "https://other/b", "https://other/b"),
    ],
)
def test_addresses_of_submodules(parent: str, url: str, full: str) -> None:
    assert beside(parent, url) == full


@pytest.mark.parametrize("parent", ["https://host/app.git", "git@host:app.git", "ssh://git@host/app"])
def test_a_submodule_stays_on_the_server(parent: str) -> None:
    with pytest.raises(InvalidInput, match="leads out"):
        beside(parent, "../../x")
