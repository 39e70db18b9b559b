"""Settings of a machine: read from LAUNCH_ variables, once."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from launch_prefect.settings import LaunchSettings, get_settings

NAMES = ("LAUNCH_HOME", "LAUNCH_CODE_STORE", "LAUNCH_BASE_IMAGE", "LAUNCH_CA_BUNDLE")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_without_any_variable_state_is_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = LaunchSettings()
    assert settings.home == tmp_path / ".launch-prefect"
    assert settings.base_image.format(python="3.12") == "python:3.12-slim"
    assert settings.ca_bundle is None


def test_reading_settings_makes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    LaunchSettings()
    assert not list(tmp_path.iterdir())


def test_each_setting_has_a_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LAUNCH_CODE_STORE", "s3://bucket/code")
    monkeypatch.setenv("LAUNCH_BASE_IMAGE", "registry.example.com/python:{python}")
    monkeypatch.setenv("LAUNCH_CA_BUNDLE", "/etc/ca.pem")
    settings = LaunchSettings()
    assert settings.home == tmp_path / "state"
    assert settings.code_store_url == "s3://bucket/code"
    assert settings.base_image == "registry.example.com/python:{python}"
    assert settings.ca_bundle == Path("/etc/ca.pem")


def test_code_is_kept_below_home_unless_told_otherwise(tmp_path):
    home = tmp_path / "with space"
    url = LaunchSettings(home=home).code_store_url
    assert url == (home / "code").as_uri()
    assert url.startswith("file://")


def test_folders_are_made_below_home_and_may_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = LaunchSettings(home=Path("~/state"))
    folder = settings.folder("runs", "1")
    assert folder == tmp_path.resolve() / "state" / "runs" / "1"
    assert folder.is_dir()
    assert settings.folder("runs", "1") == folder


def test_a_relative_home_does_not_move_with_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = LaunchSettings(home=Path("state")).folder("runs")
    assert folder.is_absolute()


def test_a_folder_that_cannot_be_made_is_an_os_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        LaunchSettings(home=tmp_path / "file").folder("runs")


def test_they_are_read_once_and_cannot_be_changed(monkeypatch, tmp_path):
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "one"))
    settings = get_settings()
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "two"))
    assert get_settings() is settings
    with pytest.raises(ValidationError):
        settings.home = tmp_path
