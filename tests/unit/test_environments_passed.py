"""What uv gets of the agent's environment while it builds one for a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch_prefect.images import environments
from launch_prefect.images.detect import Environment
from launch_prefect.settings import LaunchSettings

pytestmark = pytest.mark.unit

PASSED = {
    "UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "UV_CACHE_DIR", "UV_CONCURRENT_BUILDS", "SSL_CERT_FILE",
    "PIP_CERT", "HTTPS_PROXY",
}  # fmt: skip
KEPT_BACK = {
    "UV_PUBLISH_TOKEN", "UV_PUBLISH_PASSWORD", "UV_INDEX_TEAM_PASSWORD", "UV_INDEX_TEAM_USERNAME", "PIP_PASSWORD",
    "SSL_CLIENT_KEY", "UV_ANYTHING", "TEAM_TOKEN",
}  # fmt: skip


def test_uv_gets_what_leads_to_indexes_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSED | KEPT_BACK:
        monkeypatch.setenv(name, "hunter2")
    builder = environments._Builder(
        Environment("none", "", {}), "python", tmp_path / "env", LaunchSettings(home=tmp_path), print
    )
    assert builder._env.keys() >= PASSED
    assert not builder._env.keys() & KEPT_BACK
