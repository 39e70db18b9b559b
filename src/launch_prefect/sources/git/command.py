from launch_prefect.errors import LaunchError


class GivenUp(LaunchError):
    """Git was stopped because nobody waits for it any more."""
