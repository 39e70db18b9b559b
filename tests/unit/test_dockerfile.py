"""Generated Dockerfiles: what is in them, and that nothing a user writes ends an instruction."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import pytest

from launch_prefect.errors import InvalidInput
from launch_prefect.images.detect import Environment
from launch_prefect.images.dockerfile import code_dockerfile, environment_dockerfile, printed
from launch_prefect.spec.build import BuildSpec

pytestmark = pytest.mark.unit

SIX = Environment("requirements", "requirements.txt found", {"requirements.txt": b"six"})
BASE = "team/base:1"
INSTRUCTIONS = {"FROM", "USER", "RUN", "ENV", "COPY", "WORKDIR"}


def instructions(text: str) -> list[str]:
    """The instructions of a Dockerfile, continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("kind", ["uv", "pyproject", "requirements", "conda", "none"])
@pytest.mark.parametrize("user", [None, "root"])
def test_old_engines_understand_it(kind: str, user: str | None) -> None:
    environment = Environment(kind, "why", {}, python="3.12")  # type: ignore[arg-type]
    build = BuildSpec(system_packages=("ffmpeg",), user=user)  # type: ignore[arg-type]
    text = environment_dockerfile(environment, BASE, build=build, secrets=["TOKEN"])
    assert text == environment_dockerfile(environment, BASE, build=build, secrets=["TOKEN"])
    for whole in (text, code_dockerfile(BASE, build=build)):
        assert {line.split()[0] for line in instructions(whole)} <= INSTRUCTIONS
        for unknown in ("# syntax", "# escape", "--link", "<<", "ARG "):
            assert unknown not in whole
    assert (user is None) == ("/home/launch" in text)


@pytest.mark.parametrize(
    ("base", "python", "requires", "provided"),
    [
        ("python:3.12-slim", "3.12", None, False),
        ("registry.test:5000/hub/python:3.12.4", "3.12", None, False),
        ("python:3.12", None, None, False),
        ("python:3.12-slim", "3.10", ">=3.10", False),
        ("python:3.12-slim", "3.11", None, True),
        ("python:3.12-slim", "3.10", ">=3.10,<3.12", True),
        ("python:3.12-slim", "3.12.4", None, True),
        ("python:3.12.4-slim", "3.12.4", None, False),
        ("team/base:3.12", "3.12", None, True),
        ("cuda:12.4-ubuntu", None, None, True),
    ],
)
def test_python_is_looked_after_where_the_base_may_lack_it(
    base: str, python: str | None, requires: str | None, provided: bool
) -> None:
    environment = Environment("requirements", "why", {}, python, requires)
    assert ("Looking for Python" in environment_dockerfile(environment, base)) == provided


def test_without_dependencies_python_is_only_for_who_asks() -> None:
    assert "Looking for Python" not in environment_dockerfile(Environment("none", "why", {}), BASE)
    assert "Looking for Python 3.11" in environment_dockerfile(Environment("none", "why", {}, "3.11"), BASE)


@pytest.mark.parametrize(
    ("requires", "python", "pattern"),
    [
        (">=3.9,<3.13", "3.9", "in 3.9.*|3.1[0-2].*)"),
        (">=3.10", "3.10", "in 3.1[0-9].*)"),
        ("~=3.11.2", "3.11", "in 3.11.*)"),
        ("!=3.11.*,>=3.10,<3.14", "3.10", "in 3.1[023].*)"),
        (None, "3.11", "in 3.11.*)"),
        (None, "3.11.4", "in 3.11.4)"),
        (">=2.7", None, "in 3.*)"),
        (None, None, "in 3.*)"),
    ],
)
def test_which_python_fits(requires: str | None, python: str | None, pattern: str) -> None:
    text = environment_dockerfile(Environment("requirements", "why", {}, python, requires), BASE)
    assert pattern in text


def test_system_packages_are_quoted_and_sorted() -> None:
    text = environment_dockerfile(SIX, BASE, build=BuildSpec(system_packages=("zip", "ffmpeg=7:5.1", "zip")))
    assert "--no-install-recommends ffmpeg=7:5.1 zip &&" in text
    evil = BuildSpec.model_construct(system_packages=("a'; touch /x; '",))
    install = next(line for line in instructions(environment_dockerfile(SIX, BASE, build=evil)) if "apk add" in line)
    assert "a'; touch /x; '" in shlex.split(install)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\u2028"])
@pytest.mark.parametrize(
    "make",
    [
        lambda evil: environment_dockerfile(SIX, f"base{evil}"),
        lambda evil: environment_dockerfile(SIX, BASE, build=BuildSpec.model_construct(system_packages=(f"a{evil}",))),
        lambda evil: environment_dockerfile(Environment("none", "why", {}, f"3.11{evil}"), BASE),
        lambda evil: environment_dockerfile(Environment("none", "why", {}, "3.11", f">=3.11{evil}"), BASE),
        lambda evil: environment_dockerfile(SIX, BASE, secrets=[f"TOKEN{evil}"]),
        lambda evil: code_dockerfile(f"base{evil}"),
    ],
)
def test_nothing_ends_its_instruction(make: Callable[[str], str], end: str) -> None:
    with pytest.raises((InvalidInput, ValueError)):
        make(f"{end}RUN touch /evil")


@pytest.mark.parametrize("base", ["a b", "$HOME", "a:$(x)", "a AS b", "--platform=x", ""])
def test_bases_that_are_none(base: str) -> None:
    for make in (lambda: environment_dockerfile(SIX, base), lambda: code_dockerfile(base)):
        with pytest.raises(InvalidInput, match="base image"):
            make()


def test_a_reason_stays_a_comment() -> None:
    evil = Environment("none", "why\nRUN touch /evil\r\u2028# escape=`", {})
    text = environment_dockerfile(evil, BASE)
    assert [line.split()[0] for line in instructions(text)] == ["FROM", "USER", "RUN"]
    assert "touch /evil" in text.splitlines()[0]


def test_secrets_are_in_the_installing_steps_alone() -> None:
    build = BuildSpec(system_packages=("ffmpeg",))
    text = environment_dockerfile(SIX, BASE, build=build, secrets=["NETRC", "PIP_EXTRA_INDEX_URL"])
    for line in instructions(text):
        installs = "Looking for Python" in line or "requirements.txt" in line
        assert ("--mount=type=secret,id=PIP_EXTRA_INDEX_URL" in line) == installs
        assert ('export PIP_EXTRA_INDEX_URL="$(cat /run/secrets/PIP_EXTRA_INDEX_URL)"' in line) == installs
        assert ("export NETRC=/run/secrets/NETRC" in line) == installs


@pytest.mark.parametrize("name", ["ca_bundle", "", "1X", "A B", "A-B", "A;x", "Ä", "A,target=/x"])
def test_names_that_secrets_cannot_have(name: str) -> None:
    with pytest.raises(InvalidInput, match="build secret"):
        environment_dockerfile(SIX, BASE, secrets=[name])


def test_who_the_job_runs_as() -> None:
    assert instructions(code_dockerfile(BASE))[-1] == "USER 1000"
    assert "ENV HOME=/home/launch" in code_dockerfile(BASE)
    root = code_dockerfile(BASE, build=BuildSpec(user="root"))
    assert instructions(root)[-1] == "USER 0:0"
    assert "HOME" not in root
    assert "--chown" not in root


def test_on_an_image_of_the_jobs_own_dockerfile_its_own_settings_stay() -> None:
    words = [line.split()[0] for line in instructions(code_dockerfile(BASE, with_code=False))]
    assert words == ["FROM", "COPY", "ENV"]
    assert "PYTHONPATH=/opt/launch-prefect" in code_dockerfile(BASE, with_code=False)
    own = Environment("dockerfile", "why", {"Own": b"FROM x\n"}, dockerfile="Own")
    with pytest.raises(ValueError, match="own"):
        environment_dockerfile(own, BASE)


def test_printed() -> None:
    text = printed(SIX, BASE, BuildSpec(), ["TOKEN"])
    assert environment_dockerfile(SIX, BASE, secrets=["TOKEN"]) in text
    assert code_dockerfile("environment") in text
    assert [line for line in text.splitlines() if line.startswith("# --")] == [
        "# ---- The environment: built once per content ----",
        "# ---- On it: the code and the runtime module ----",
    ]
    own = Environment("dockerfile", "why", {"a/Own": b"FROM x\nRUN y"}, dockerfile="a/Own", context="a")
    text = printed(own, BASE)
    assert text.splitlines()[:3] == ["# ---- The job's own Dockerfile: a/Own (context: a) ----", "FROM x", "RUN y"]
    assert code_dockerfile("environment", with_code=False) in text
