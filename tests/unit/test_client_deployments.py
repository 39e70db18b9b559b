"""A job as job variables, and back: nothing is lost, and no block's value is asked for where all would see it."""

import json
from types import SimpleNamespace

import pytest

from launch_prefect.client.deployments import job_variables, spec_from
from launch_prefect.errors import InvalidInput
from launch_prefect.spec import JobSpec

DIGEST = "sha256:" + "a" * 64
GIT = {
    "git": "https://example.com/team/train.git",
    "ref": "main",
    "subdir": "jobs/a",
    "commit": "0" * 40,
    "credentials": "github-credentials/team",
    "patch": DIGEST,
    "store": "s3://code",
}
BUILD = {
    "base_image": "cuda:{python}",
    "python": "3.12",
    "system_packages": ["ffmpeg", "libgl1"],
    "secrets": {"PIP_EXTRA_INDEX_URL": {"block": "secret/index"}},
}


def job(**values):
    return JobSpec.parse({"name": "train", "command": ["python", "t.py"], **values}, what="the job")


def deployment(variables):
    """As the server gives it back: through JSON."""
    return SimpleNamespace(
        name="gpu",
        entrypoint=None,
        job_variables=json.loads(json.dumps(variables)),
        parameter_openapi_schema={},
        parameters={},
        description="",
    )


@pytest.mark.parametrize(
    "spec",
    [
        job(source=GIT, build=BUILD),
        job(source={"git": "git@example.com:team/train.git"}),
        job(source={"code": "train", "digest": DIGEST}, build={"dockerfile": "docker/Dockerfile", "context": "."}),
        job(source={"code": "train", "digest": DIGEST}, build={"user": "root"}),
        job(source={"image": "example.com/a/b:1", "digest": DIGEST}, command=None),
    ],
)
def test_what_a_deployment_holds_is_the_job(spec):
    assert spec_from(deployment(job_variables(spec)), "train") == spec


def test_blocks_are_named_where_prefect_puts_their_values_in_and_nowhere_else():
    variables = job_variables(job(source=GIT, build=BUILD))
    assert variables["git_credentials"] == "{{ prefect.blocks.github-credentials.team }}"
    assert variables["build"]["secrets"] == {"PIP_EXTRA_INDEX_URL": "{{ prefect.blocks.secret.index }}"}
    assert variables["source"]["credentials"] == "github-credentials/team"
    assert "prefect.blocks" not in json.dumps(variables["source"])


def test_a_job_that_says_nothing_carries_nothing():
    variables = job_variables(job(source={"code": "train", "digest": DIGEST}))
    assert variables.keys() == {"source", "command", "labels"}


def test_what_is_sent_is_what_comes_back():
    """Otherwise each submission would write the deployment anew."""
    variables = job_variables(job(source=GIT, build=BUILD))
    assert json.loads(json.dumps(variables)) == variables


def test_a_deployment_that_somebody_has_damaged_is_named():
    variables = job_variables(job(source=GIT)) | {"build": {"pyhton": "3.12"}}
    with pytest.raises(InvalidInput, match=r"train/gpu.*build\.pyhton.*did you mean 'python'"):
        spec_from(deployment(variables), "train")
