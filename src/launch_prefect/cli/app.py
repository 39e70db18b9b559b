"""The program's commands, and what becomes of their results and errors."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

from launch_prefect import __version__
from launch_prefect.cli import job, queue
from launch_prefect.cli import run as runs
from launch_prefect.cli.agent import agent
from launch_prefect.cli.doctor import doctor
from launch_prefect.cli.output import out, show_error
from launch_prefect.cli.prune import prune
from launch_prefect.cli.submit import USAGE, submit
from launch_prefect.cli.up import up
from launch_prefect.errors import InvalidInput, LaunchError

_NAME = "prefect-launch"
_WORDS = "command"  # the parameter that takes the words after `--`

app = App(
    name=_NAME,
    version=__version__,
    help_flags=["--help", "-h"],
    default_parameter=Parameter(negative="", show_default=False),
    help=(
        "Job queues for machine learning on Prefect: define a job, put runs of it on a queue, and agents run them "
        "in containers or as processes.\n\n"
        "Start with `prefect-launch up`, then in another terminal:\n\n"
        "```\n"
        'prefect-launch submit ./train -E "python train.py" --set epochs=3 --follow\n'
        "```"
    ),
)
app.command(up)
app.command(submit, usage=USAGE)
app.command(job.app)
app.command(queue.app)
app.command(runs.app)
app.command(agent)
app.command(doctor)
app.command(prune)


@app.command(name="--install-completion")
def install_completion(*, shell: Literal["bash", "zsh", "fish"] | None = None) -> int:
    """Install completion of commands and options for your shell.

    ```
    prefect-launch --install-completion --shell zsh
    ```

    Args:
        shell: The shell. Default: the one you are using.
    """
    from cyclopts.completion.detect import ShellDetectionError

    try:
        path = app.install_completion(shell=shell, add_to_startup=True)
    except ShellDetectionError:
        raise InvalidInput("Your shell is none of bash, zsh and fish.", mend="Name one with --shell.") from None
    out.print(f"Completion is installed in {path}. It works in shells started from now on.")
    return 0


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: The words after the program's name.

    Returns:
        The exit code: 0 done; 1 the run did not complete, or something unforeseen; 2 bad usage or input; 3 the
        Prefect API or an engine cannot be reached; 130 ended with Ctrl-C.
    """
    debug = bool(os.environ.get("LAUNCH_DEBUG"))
    _prepare(debug)
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except LaunchError as error:
        show_error(error.message, error.mend)
        return error.exit_code
    except CycloptsError as error:
        show_error(str(error), f"See `{' '.join([_NAME, *(error.command_chain or ())])} --help`.")
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        show_error(*_unforeseen(error, debug))
        return 1


def _prepare(debug: bool) -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    if not debug:
        warnings.simplefilter("ignore")


def _dispatch(arguments: Sequence[str]) -> int:
    ours, dashes, words = _split(arguments)
    command, bound, unparsed = app.parse_args(ours, exit_on_error=False, print_error=False)
    extra: dict[str, Any] = {}
    if _WORDS in unparsed:
        extra[_WORDS] = words
    elif dashes and command.__module__.startswith(__package__ or ""):
        raise InvalidInput("This command takes nothing after '--'.", mend=f"See `{_NAME} --help`.")
    if dashes and not words:
        raise InvalidInput("Nothing follows '--'.", mend="Write the job's command there: -- python train.py.")
    result = command(*bound.args, **bound.kwargs, **extra)
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    return result if isinstance(result, int) else 0


def _split(arguments: Sequence[str]) -> tuple[list[str], bool, tuple[str, ...]]:
    """The words before the first `--`, whether there is one, and those after it."""
    if "--" not in arguments:
        return list(arguments), False, ()
    where = list(arguments).index("--")
    return list(arguments[:where]), True, tuple(arguments[where + 1 :])


def _unforeseen(error: Exception, debug: bool) -> tuple[str, str]:
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}.", ""
    answer = getattr(getattr(error, "response", None), "text", "")  # of an HTTP error
    said = f" The Prefect server says: {answer[:500]}" if answer else ""
    mend = "" if debug else "Run it again with LAUNCH_DEBUG=1 for a traceback."
    return f"{type(error).__name__}: {error}.{said}", mend
