"""Jobs, queues and runs from Python: submit, and read what became of it."""

from launch_prefect.client.jobs import Job
from launch_prefect.client.log_lines import LogLine
from launch_prefect.client.queues import Queue
from launch_prefect.client.runs import Run

__all__ = ["Job", "LogLine", "Queue", "Run"]
