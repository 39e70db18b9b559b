"""Settings of this machine: where state is kept and what its operator has chosen.

Each is read from an environment variable `LAUNCH_<NAME>`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from launch_prefect.errors import InvalidInput


def _size(value: Any) -> Any:
    """`100Gi`, as resources are written, as well as `100GiB`."""
    return f"{value}B" if isinstance(value, str) and value.endswith("i") else value


def _names(value: Any) -> Any:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


Size = Annotated[ByteSize, BeforeValidator(_size)]


class LaunchSettings(BaseSettings):
    """What an operator can set for this machine.

    Attributes:
        home: Folder of everything launch-prefect keeps on this machine (`LAUNCH_HOME`).
        code_store: fsspec address that snapshots of code are kept under. Default: `HOME/code`.
        base_image: Image that generated Dockerfiles start from; `{python}` takes the version.
        ca_bundle: CA certificates that builds may use to reach a package index. They are passed
            as a build secret and never enter a layer.
        code_limit: Size of a folder of code above which a person is asked first, such as `500Mi`; 0 for none.
        disk_budget: What images, environments and snapshots of ours may take on this machine, such as `100Gi`, before
            those least recently used are removed; 0 for no limit.
        insecure_registries: Registries that are spoken to over http, as HOST:PORT with commas between.
    """

    model_config = SettingsConfigDict(env_prefix="LAUNCH_", frozen=True)

    home: Path = Field(default_factory=lambda: Path.home() / ".launch-prefect")
    code_store: str | None = None
    base_image: str = "python:{python}-slim"
    ca_bundle: Path | None = None
    code_limit: Size = ByteSize(500 * 1024**2)
    disk_budget: Size = ByteSize(100 * 1024**3)
    insecure_registries: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = ()

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
    """The settings of this process, read once.

    Raises:
        InvalidInput: A variable holds what its setting cannot take.
    """
    try:
        return LaunchSettings()
    except ValidationError as error:
        problems = [f"LAUNCH_{str(e['loc'][0]).upper()}={e['input']!r}: {e['msg']}." for e in error.errors()]
        raise InvalidInput(" ".join(problems), mend="Correct the environment variable, or remove it.") from None
