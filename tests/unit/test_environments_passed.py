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


def test_build_secrets_come_over_what_the_agent_has_and_not_over_what_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX_URL", "https://agent.test")
    secrets = {
        "UV_INDEX_URL": "https://team.test",
        "PIP_EXTRA_INDEX_URL": "https://more.test",
        "UV_PROJECT_ENVIRONMENT": "/elsewhere",
        "NETRC": "machine x",
    }
    builder = environments._Builder(
        Environment("none", "", {}), "python", tmp_path / "env", LaunchSettings(home=tmp_path), print, secrets
    )
    assert builder._env["UV_INDEX_URL"] == "https://team.test"
    assert builder._env["UV_EXTRA_INDEX_URL"] == "https://more.test"
    assert builder._env["UV_PROJECT_ENVIRONMENT"] == str(tmp_path / "env")
    assert "NETRC" not in builder._env  # a path, known once the file is there
