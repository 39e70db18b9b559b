"""The path of one run, from taken to final state, and one short file per target.

Loaded by Prefect as a collection: importing it registers the worker types.
"""

import launch_prefect.dockerpy  # noqa: F401 - before anything else imports docker-py; see there
from launch_prefect.workers.docker import DockerLaunchWorker
from launch_prefect.workers.process import ProcessLaunchWorker

__all__ = ["DockerLaunchWorker", "ProcessLaunchWorker"]
