"""docker-py with the one copy of its errors that it raises itself.

Prefect puts a lazily loaded `docker` into `sys.modules` (`prefect.utilities.importtools.lazy_import`, which warns of
what follows): whoever then imports `docker.errors` first gets a second copy of the classes, and
`except docker.errors.NotFound` no longer matches what the client raises. Everything of ours that catches docker-py's
errors takes them from here.
"""

from __future__ import annotations

import docker

_LOADED = docker.from_env  # any attribute: makes a lazily loaded package load as a whole, before its parts are imported

# docker-py's own modules hold the copy that is raised; `docker.errors` may by now be the other one.
from docker.models.containers import DockerException, ImageNotFound, NotFound  # noqa: E402

APIError = NotFound.__base__

__all__ = ["APIError", "DockerException", "ImageNotFound", "NotFound", "docker"]
