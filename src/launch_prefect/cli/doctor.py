"""`prefect-launch doctor`: what would stop a run on this machine, and how to mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from launch_prefect.cli.output import Json, coloured, out, print_json, say, working
from launch_prefect.cli.session import QueueName

if TYPE_CHECKING:
    from launch_prefect.cli.checks import Check


async def doctor(*, queue: QueueName = None, json: Json = False) -> int:
    """Check what would stop a run on this machine, and say how to mend it.

    ```
    prefect-launch doctor -q gpu
    ```

    The exit code is 0 where nothing would stop a run, 1 where something would, and 3 where the Prefect server or the
    Docker engine cannot be reached.

    Args:
        queue: Check for runs of this queue. Without it: this machine, and each queue there is.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.cli import checks

    with working("Checking"):
        found = await checks.all_checks(queue)
    code = exit_code(found)
    if json:
        print_json({"ok": code == 0, "checks": [vars(check) for check in found]})
        return code
    width = max(len(check.name) for check in found)
    for check in found:
        level = coloured(check.level)
        level.pad_right(max(len(other.level) for other in found) - len(level))
        out.print(Text.assemble(f"{check.name:{width}}  ", level, f"  {check.message}"), soft_wrap=True)
        if check.mend:
            out.print(Text(f"{'':{width}}  {check.mend}", style="dim"), soft_wrap=True)
    say("")
    say("Nothing would stop a run." if code == 0 else "Something would stop a run; see above.")
    return code


def exit_code(found: list[Check]) -> int:
    """0 where nothing would stop a run, 1 where something would, 3 where a server or an engine does not answer."""
    levels = {check.level for check in found}
    return 3 if "unreachable" in levels else 1 if "problem" in levels else 0
