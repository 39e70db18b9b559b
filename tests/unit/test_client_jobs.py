"""Jobs as Python users define them; no server is asked."""

import threading
import time

import pytest

from launch_prefect import Job
from launch_prefect.client import pinning
from launch_prefect.errors import InvalidInput, RegistryRefused, Unreachable
from launch_prefect.images import registry
from launch_prefect.spec import BuildSpec, ImageSource, Resources


def test_options_stand_in_the_job_and_none_is_the_default():
    job = Job.from_image("a/b:1", env={"A": "1"}, resources=Resources(gpu=1), timeout=3, config=None, name=None)
    assert (job.name, job.spec.env, job.spec.resources.gpu, job.spec.timeout) == ("b", {"A": "1"}, 1, 3)
    assert (job.spec.job_type, job.spec.description, job.spec.config) == ("default", "", None)


def test_an_option_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TypeError, match="takes no option 'resorces'; did you mean 'resources'"):
        Job.from_code(tmp_path, entrypoint=["a"], resorces={"gpu": 1})
    with pytest.raises(TypeError, match="'source'"):
        Job.from_image("a/b:1", source={"code": "x"})


def test_a_value_that_does_not_fit_is_named():
    with pytest.raises(InvalidInput, match="timeout"):
        Job.from_image("a/b:1", timeout=-1)
    with pytest.raises(InvalidInput, match="its words") as error:
        Job.from_image("a/b:1", command="python train.py")
    assert "['python', 'train.py']" in error.value.mend


def test_a_job_from_git_is_named_for_its_repository():
    for url in ("https://example.com/team/train.git", "git@example.com:train", "ssh://git@example.com/a/train/"):
        assert Job.from_git(url, entrypoint=["a"]).name == "train"
    job = Job.from_git(
        "https://example.com/a/b", entrypoint=["a"], ref="v1", subdir="x", credentials="secret/t", name="c"
    )
    source = job.spec.source
    assert (job.name, source.ref, source.subdir, source.credentials) == ("c", "v1", "x", "secret/t")


def test_secrets_are_refused_where_a_block_is_to_be_named():
    with pytest.raises(InvalidInput, match=r"source\.credentials: name a Prefect block as TYPE/NAME") as error:
        Job.from_git("https://example.com/a/b", entrypoint=["a"], credentials="ghp_0123456789")
    assert "no secret stands here" in str(error.value)
    with pytest.raises(InvalidInput, match="credentials do not belong into an address") as error:
        Job.from_git("https://me:hunter2@example.com/a/b", entrypoint=["a"])
    assert "hunter2" not in str(error.value)


def test_build_options_stand_in_the_job(tmp_path):
    job = Job.from_code(tmp_path, entrypoint=["a"], build=BuildSpec(python="3.12"))
    assert job.spec.build == BuildSpec(python="3.12")
    assert Job.from_code(tmp_path, entrypoint=["a"], build={"python": "3.12"}).spec == job.spec
    assert Job.from_code(tmp_path, build={"dockerfile": "Dockerfile"}).spec.command is None
    with pytest.raises(InvalidInput, match="command"):
        Job.from_code(tmp_path)
    with pytest.raises(TypeError, match="takes no option 'build'"):
        Job.from_image("a/b:1", build={"python": "3.12"})


# An image's digest


@pytest.fixture
def asked(monkeypatch):
    """What the registry is asked, and what it answers."""
    calls, answers = [], {}

    def find_digest(reference, credentials=None, *, timeout=10):
        calls.append(reference)
        answer = answers[reference]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    monkeypatch.setattr(registry, "find_digest", find_digest)
    monkeypatch.setattr(pinning, "_silent", {})
    return calls, answers


async def test_an_image_is_pinned_at_each_submission(asked):
    calls, answers = asked
    job = Job.from_image("example.com/a/b:1")
    for digest in ("sha256:" + "1" * 64, "sha256:" + "2" * 64):
        answers["example.com/a/b:1"] = digest
        assert (await job.apin()).source.digest == digest
    assert len(calls) == 2


@pytest.mark.parametrize("answer", [None, RegistryRefused("No."), InvalidInput("No.")])
async def test_an_image_that_its_registry_does_not_give_is_kept_as_it_is(asked, answer):
    calls, answers = asked
    answers["example.com/a/b:1"] = answer
    assert (await Job.from_image("example.com/a/b:1").apin()).source == ImageSource(image="example.com/a/b:1")
    assert calls


async def test_a_registry_that_does_not_answer_is_not_asked_again_at_once(asked):
    calls, answers = asked
    answers["example.com/a/b:1"] = answers["example.com/a/c:1"] = Unreachable("No.")
    for image in ("example.com/a/b:1", "example.com/a/c:1", "example.com/a/b:1"):
        assert (await Job.from_image(image).apin()).source.digest is None
    assert calls == ["example.com/a/b:1"]


async def test_a_slow_registry_delays_nobody_long(asked, monkeypatch):
    calls, answers = asked
    waits = threading.Event()
    answers["example.com/a/b:1"] = lambda: waits.wait(30)
    monkeypatch.setattr(pinning, "IMAGE_SECONDS", 0.1)
    began = time.monotonic()
    assert (await Job.from_image("example.com/a/b:1").apin()).source.digest is None
    assert time.monotonic() - began < 5
    assert calls
    waits.set()


@pytest.mark.parametrize("image", ["sha256:" + "a" * 64, "example.com/a/b@sha256:" + "a" * 64])
async def test_what_is_pinned_already_is_not_asked_for(asked, image):
    assert (await Job.from_image(image).apin()).source == ImageSource(image=image)
    assert not asked[0]
