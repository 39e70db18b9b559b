"""Names: two inputs never share one, and each is legal where it is used."""

import hashlib
import itertools
import re

import pytest

from launch_prefect import naming

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123
REPOSITORY_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")  # github.com/distribution/reference
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

ODD = [
    "",
    " ",
    "-",
    "--",
    "...",
    "ü",
    "Ü",
    "模型",
    "模型2",
    "🚀",
    "İstanbul",
    "a" * 47,
    "a" * 48,
    "a" * 49,
    "a" * 500,
    "a" * 499 + "b",
    "a" * 38 + "-" + "b" * 30,
    "a" * 39 + "-" + "b" * 30,
    "\x00",
    "\n",
    "a\n",
    "name with spaces",
    "name.with.dots",
    "name_with_underscores",
    "name--with---dashes",
    "-leading",
    "trailing-",
    "UPPER",
    "upper",
    "Upper",
    "train-20240101",
    "1",
    "0" * 60,
]
SHORT = ["".join(letters) for size in range(1, 5) for letters in itertools.product("aA-_ é", repeat=size)]


def everything():
    return dict.fromkeys([*ODD, *SHORT])


def test_two_texts_never_share_a_slug():
    seen = {}
    for text in everything():
        name = naming.slug(text)
        assert name not in seen, f"{text!r} and {seen[name]!r} are both named {name!r}"
        seen[name] = text


def test_a_text_that_looks_like_the_slug_of_another_has_one_of_its_own():
    for text in everything():
        name = naming.slug(text)
        if name != text:
            assert naming.slug(name) != name, f"{text!r} and {name!r} share a name"


@pytest.mark.parametrize("limit", [16, 17, 40, 48, 63])
def test_a_slug_is_legal_and_short_enough_everywhere(limit):
    for text in everything():
        name = naming.slug(text, limit=limit)
        assert len(name) <= limit
        assert DNS_LABEL.fullmatch(name), (text, name)
        assert REPOSITORY_PART.fullmatch(name), (text, name)


@pytest.mark.parametrize("text", ["train", "train-model", "a", "0", "resnet-50-v2", "a" * 48])
def test_a_plain_name_stays_as_people_wrote_it(text):
    assert naming.slug(text) == text


def test_what_is_readable_of_a_name_stays_readable():
    assert re.fullmatch(r"my-model-v1-2-[0-9a-f]+", naming.slug("My Model (v1.2)"))


def test_the_same_text_always_has_the_same_slug():
    """Nothing of the process (such as Python's hash seed) goes into it: agents find what others made."""
    digest = hashlib.sha256(b"My Job").hexdigest()
    assert naming.slug("My Job") == f"my-job-{digest[:8]}"


def test_images_are_legal_and_named_by_the_whole_digest():
    one, other = "sha256:" + "1" * 64, "sha256:" + "1" * 63 + "2"
    names = set()
    for job, key in itertools.product(["train", "Train", "模型", "a" * 300], [one, other]):
        image = naming.job_image(job, key)
        repository, _, tag = image.partition(":")
        assert all(REPOSITORY_PART.fullmatch(part) for part in repository.split("/")), image
        assert TAG.fullmatch(tag), image
        names.add(image)
    assert len(names) == 8
    assert naming.environment_image(one) != naming.environment_image(other)
    assert naming.environment_image(one).endswith("1" * 64)


def test_containers_of_two_attempts_runs_or_jobs_never_share_a_name():
    one, other = "0f0a2b3c-0000-4000-8000-000000000001", "0f0a2b3c-0000-4000-8000-000000000002"
    found = {
        naming.container_name(job, run, attempt)
        for job, run, attempt in itertools.product(everything(), (one, other), (1, 2, 11))
    }
    assert len(found) == len(everything()) * 6
    for name in found:
        assert CONTAINER.fullmatch(name), name
        assert len(name) <= 128


@pytest.mark.parametrize("target", naming.TARGETS)
def test_a_pool_type_leads_back_to_its_target(target):
    assert naming.pool_type(target) == f"launch-{target}"
    assert naming.target_of(naming.pool_type(target)) == target


@pytest.mark.parametrize("other", ["process", "docker", "kubernetes", "prefect-agent", ""])
def test_a_pool_of_somebody_else_has_no_target(other):
    assert naming.target_of(other) is None


def test_labels_are_distinct_and_ours():
    labels = [value for name, value in vars(naming).items() if name.startswith("LABEL") and name != "LABEL_VERSION"]
    assert len(set(labels)) == len(labels) == 6
    assert all(label == naming.LABEL or label.startswith(f"{naming.LABEL}.") for label in labels)
