"""What a run needs, as people write it."""

import pytest
from pydantic import ValidationError

from launch_prefect.errors import InvalidInput
from launch_prefect.spec import Resources
from launch_prefect.spec.resources import to_bytes

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8Gi", 8 * GIB),
        ("8GiB", 8 * GIB),
        ("8gib", 8 * GIB),
        ("8G", 8 * 10**9),
        ("8GB", 8 * 10**9),
        ("512Mi", 512 * 1024**2),
        ("512 Mi", 512 * 1024**2),
        (" 512Mi ", 512 * 1024**2),
        ("0.5Gi", GIB // 2),
        ("64Ki", 64 * 1024),
        ("1Ti", 1024 * GIB),
        ("1Pi", 1024**2 * GIB),
        ("12345678", 12345678),
        ("12345678B", 12345678),
    ],
)
def test_amounts_are_read_as_kubernetes_and_docker_users_write_them(text, expected):
    assert to_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["", "lots", "8X", "-1Gi", "Gi", "8 G i", "8Gi8", "1e9", "0x10", "8,5Gi", "NaN", "inf"]
)
def test_other_texts_are_refused_with_what_is_accepted(text):
    with pytest.raises(ValueError, match="512Mi or 8Gi"):
        to_bytes(text)


def test_what_is_not_given_is_not_limited():
    resources = Resources()
    assert (resources.cpu, resources.gpu, resources.memory, resources.memory_bytes) == (None, None, None, None)
    assert resources.model_dump(exclude_none=True) == {}


def test_a_number_of_bytes_may_be_a_number():
    assert Resources(memory=GIB).memory_bytes == GIB


def test_memory_stays_as_it_was_written():
    assert Resources(memory="8Gi").memory == "8Gi"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"cpu": 0}, "cpu"),
        ({"cpu": -1}, "cpu"),
        ({"cpu": "many"}, "cpu"),
        ({"gpu": -1}, "gpu"),
        ({"gpu": 1.5}, "gpu"),
        ({"memory": "8 gigabytes"}, "memory"),
        ({"memory": "8"}, "memory"),
        ({"memory": 0}, "memory"),
        ({"memory": ["8Gi"]}, "memory"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values, field):
    with pytest.raises(InvalidInput) as error:
        Resources.parse(values, what="resources")
    assert field in str(error.value)
    assert str(next(iter(values.values()))) in str(error.value)


@pytest.mark.parametrize(("wrong", "right"), [("memmory", "memory"), ("gpus", "gpu"), ("cpus", "cpu")])
def test_an_unknown_key_is_refused_with_the_nearest_known_one(wrong, right):
    with pytest.raises(InvalidInput, match=f"did you mean '{right}'"):
        Resources.parse({wrong: 1}, what="resources")


def test_they_cannot_be_changed():
    with pytest.raises(ValidationError):
        Resources(cpu=1).cpu = 2
