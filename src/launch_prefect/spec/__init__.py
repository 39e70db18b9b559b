"""Models of jobs, sources, resources, queues and inputs. Nothing here does any input or output."""

from launch_prefect.spec.job import JobSpec
from launch_prefect.spec.queue import QueueSpec
from launch_prefect.spec.resources import Resources
from launch_prefect.spec.source import CodeSource, ImageSource, Source

__all__ = ["CodeSource", "ImageSource", "JobSpec", "QueueSpec", "Resources", "Source"]
