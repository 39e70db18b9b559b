"""Settings of this machine: where state is kept and what its operator has chosen.

Each is read from an environment variable `LAUNCH_<NAME>`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class LaunchSettings(BaseSettings):
    """What an operator can set for this machine.

    Attributes:
        home: Folder of everything launch-prefect keeps on this machine (`LAUNCH_HOME`).
        code_store: fsspec address that snapshots of code are kept under. Default: `HOME/code`.
        base_image: Image that generated Dockerfiles start from; `{python}` takes the version.
        ca_bundle: CA certificates that builds may use to reach a package index. They are passed
            as a build secret and never enter a layer.
    """

    model_config = SettingsConfigDict(env_prefix="LAUNCH_", frozen=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".launch-prefect")
    code_store: str | None = None
    base_image: str = "python:{python}-slim"
    ca_bundle: Path | None = None

    @property
    def code_store_url(self) -> str:
        """The fsspec address of the code store."""
        return self.code_store or self.folder("code").as_uri()

    def folder(self, *parts: str) -> Path:
        """A folder under `home`, made if missing.

        Args:
            *parts: Path components below `home`.

        Returns:
            The folder, which exists.

        Raises:
            OSError: It cannot be made.
        """
        path = self.home.expanduser().resolve().joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True)
        return path


@lru_cache(maxsize=1)
def get_settings() -> LaunchSettings:
    """The settings of this process, read once."""
    return LaunchSettings()
