"""Models of jobs, sources, builds, resources, queues and inputs. Nothing here does any input or output."""

from launch_prefect.spec.build import BuilderSpec, BuildSpec
from launch_prefect.spec.job import JobSpec
from launch_prefect.spec.queue import QueueSpec
from launch_prefect.spec.resources import Resources
from launch_prefect.spec.source import CodeSource, GitSource, ImageSource, Source

__all__ = [
    "BuildSpec",
    "BuilderSpec",
    "CodeSource",
    "GitSource",
    "ImageSource",
    "JobSpec",
    "QueueSpec",
    "Resources",
    "Source",
]
