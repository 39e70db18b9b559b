"""The program `prefect-launch`: one file for each group of commands.

Modules here import neither Prefect nor pydantic at their top, so that `--help`, `--version` and shell completion
answer at once; a command imports what it needs when it runs.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the program with the words of the command line."""
    from launch_prefect.cli.app import run

    sys.exit(run(sys.argv[1:]))
