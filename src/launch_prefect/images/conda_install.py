# /// script
# requires-python = ">=3.10"
# dependencies = ["py-rattler>=0.28,<0.29"]
# ///
"""Install a conda environment: `conda_install.py SPEC.json PREFIX`.

Run by uv, which gets py-rattler for it: in the build of an image, and on the agent's machine for target process. It
imports nothing of this package.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path


async def install_environment(spec: dict[str, list[str]], prefix: Path) -> None:
    """Solve and install.

    Args:
        spec: `channels` and `packages`.
        prefix: Folder of the environment.
    """
    import rattler  # type: ignore[import-not-found,unused-ignore]

    # No GPU is there while an image is built; the base images of CUDA say what will be.
    if (cuda := os.environ.get("CUDA_VERSION")) and "CONDA_OVERRIDE_CUDA" not in os.environ:
        os.environ["CONDA_OVERRIDE_CUDA"] = ".".join(cuda.split(".")[:2])
    client = rattler.Client.default_client(max_retries=3)
    cache = os.environ.get("RATTLER_CACHE_DIR")
    gateway = rattler.Gateway(cache_dir=Path(cache) / "repodata" if cache else None, client=client)
    records = await rattler.solve(
        sources=spec["channels"],
        specs=spec["packages"],
        gateway=gateway,
        virtual_packages=rattler.VirtualPackage.detect(rattler.VirtualPackageOverrides.from_env()),
    )
    for record in sorted(records, key=lambda record: record.name.normalized):
        print(f"{record.name.normalized} {record.version} {record.build}", flush=True)
    await rattler.install(
        records,
        target_prefix=prefix,
        cache_dir=Path(cache) / "pkgs" if cache else None,
        client=client,
        show_progress=False,
        execute_link_scripts=True,
    )


def main() -> None:
    """Install what the command line names; what goes wrong is one message without a traceback."""
    spec, prefix = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        asyncio.run(install_environment(json.loads(spec.read_text(encoding="utf-8")), prefix))
    except Exception as error:  # whatever it is, the user reads it in the build's log
        sys.exit(f"The conda environment could not be installed: {error}")
    # Threads of rattler may still be going, and Python's own end with them there is at times a crash.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
