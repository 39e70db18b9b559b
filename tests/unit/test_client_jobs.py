"""Jobs as Python users define them; no server is asked."""

import pytest

from launch_prefect import Job
from launch_prefect.errors import InvalidInput
from launch_prefect.spec import Resources


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
