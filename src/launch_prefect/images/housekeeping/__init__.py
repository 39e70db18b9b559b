"""What nothing needs is removed once images, environments and code take more of the disk than they may."""

from launch_prefect.images.housekeeping.choice import GRACE_SECONDS
from launch_prefect.images.housekeeping.keeper import Removed, keep_house
from launch_prefect.images.housekeeping.usage import Kind, Usage

__all__ = ["GRACE_SECONDS", "Kind", "Removed", "Usage", "keep_house"]
