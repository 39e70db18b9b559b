"""Which code the variables of a job or a run name."""

from __future__ import annotations

from typing import Any

import pytest

from launch_prefect.client.needed import named_by
from launch_prefect.sources.git import code_key
from launch_prefect.spec import GitSource

pytestmark = pytest.mark.unit

DIGEST = "sha256:" + "a" * 64
COMMIT = "1" * 40


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (None, set()),
        ({}, set()),
        ({"source": "{{ source }}"}, set()),
        ({"source": {"digest": DIGEST}}, {DIGEST}),
        ({"source": {"image": "a/b", "digest": DIGEST}}, set()),
        ({"source": {"git": "https://h/x", "ref": "main"}}, set()),
        ({"source": {"git": "file:///x", "commit": COMMIT, "patch": DIGEST}}, {DIGEST}),
    ],
)
def test_code_that_is_named(variables: dict[str, Any] | None, named: set[str]) -> None:
    assert named_by(variables) == named


def test_a_pinned_commit_is_named_by_its_key() -> None:
    source = {"git": "https://h/x", "commit": COMMIT, "subdir": "lib/", "patch": DIGEST}
    pinned = GitSource.model_validate(source)
    assert named_by({"source": source}) == {DIGEST, code_key(pinned), code_key(pinned, large_files=False)}
