"""A running system in one command: PostgreSQL, a Prefect server, queues and an agent, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from launch_prefect.errors import LaunchError, Unreachable
from launch_prefect.server import connect, postgres, prefect_server, process, state
from launch_prefect.server.choice import Choice, choose_server, load_prefect
from launch_prefect.server.ending import Ending, listening
from launch_prefect.server.keeper import Part
from launch_prefect.server.process import Child
from launch_prefect.server.voice import Voice
from launch_prefect.settings import LaunchSettings
from launch_prefect.spec.queue import QueueSpec

AGENT = "agent"
_AGENT_HURRY_GRACE = 15  # seconds: hurried, it kills its runs and reports them
_SECONDS_TO_TELL = 10.0  # after which it is said what the agent's end waits for
_AGENT_SECONDS_TO_START = 120


@dataclass(frozen=True)
class Work:
    """What `up` is given by its caller: the layers above and beside it are not imported here.

    Attributes:
        queues: The queues to make and to serve.
        apply_queue: Makes a queue or brings it up to date.
        agent_command: The agent's command line for queue names.
        wait_for_agent: Returns when an agent serves the queues of these names.
    """

    queues: Sequence[QueueSpec]
    apply_queue: Callable[[QueueSpec], Awaitable[None]]
    agent_command: Callable[[list[str]], list[str]]
    wait_for_agent: Callable[[list[str]], Awaitable[None]]

    @property
    def names(self) -> list[str]:
        """Names of the queues."""
        return [queue.queue_name for queue in self.queues]


async def up(
    queues: Sequence[QueueSpec],
    *,
    port: int | None,
    settings: LaunchSettings,
    console: Console,
    apply_queue: Callable[[QueueSpec], Awaitable[None]],
    agent_command: Callable[[list[str]], list[str]],
    wait_for_agent: Callable[[list[str]], Awaitable[None]],
) -> int:
    """Start what is missing of a running system and keep it running until asked to end.

    Args:
        queues: The queues to make and to serve.
        port: Port of the Prefect server, where one is started; 4200 by default.
        settings: They name the state folder.
        console: Where progress is shown.
        apply_queue: Makes a queue or brings it up to date, on the API that Prefect's settings name.
        agent_command: The agent's command line for queue names.
        wait_for_agent: Returns when an agent serves the queues of these names.

    Returns:
        The exit code: 0 when it was asked to end or runs already, 3 when a part kept dying.

    Raises:
        LaunchError: Something could not be started; what had been started has ended.
    """
    work = Work(queues, apply_queue, agent_command, wait_for_agent)
    voice = Voice(console)
    held = state.lock(settings)
    if held is None:
        return await _tell_of_the_other(work, settings, voice)
    try:
        with listening() as ending:
            return await _System(work, port, settings, voice, ending).run()
    finally:
        held.release()


class _System:
    """The processes of one `up`, from the first to the last."""

    def __init__(self, work: Work, port: int | None, settings: LaunchSettings, voice: Voice, ending: Ending) -> None:
        self._work = work
        self._port = port
        self._settings = settings
        self._voice = voice
        self._ending = ending
        self._home = settings.home.expanduser().resolve()
        self._place = postgres.Place(self._home / "postgres", self._log("postgres"))
        self._parts: list[Part] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._gave_up: asyncio.Future[LaunchError] = asyncio.get_running_loop().create_future()
        self._state: state.UpState | None = None

    async def run(self) -> int:
        """Start everything, wait for the wish to end, end everything."""
        starting = asyncio.create_task(self._start())
        asked = asyncio.create_task(self._ending.asked.wait())
        try:
            await _first(starting, asked, self._gave_up)
            if starting.done():
                starting.result()
                await _first(asked, self._gave_up)
        finally:
            if self._gave_up.done():  # said before the end, which may take as long as the runs' grace
                self._voice.say_error(str(self._gave_up.result()))
            await self._end([starting, asked])
        return Unreachable.exit_code if self._gave_up.done() else 0

    async def _start(self) -> None:
        began = time.monotonic()
        process.private_folder(self._home / "logs")
        with self._voice.working("Looking for a Prefect server"):
            ended = await asyncio.to_thread(state.end_leftovers, self._settings)
            choice = await choose_server(self._port)
        if ended:
            self._voice.say(f"Ended what a killed `up` had left running: {', '.join(ended)}.")
        for note in choice.notes:
            self._voice.say(note)
        # The agent and the queues need Prefect's client: its seconds of loading pass while the server loads.
        loading = asyncio.create_task(load_prefect())
        self._record(choice)
        if choice.port is not None:
            await self._start_server(choice.port)
        await loading
        await self._apply_queues(choice.api_url)
        await self._begin(AGENT, lambda spawned: self._start_agent(choice.api_url, spawned))
        self._record(choice, ready=True)
        self._announce(choice, time.monotonic() - began)

    async def _start_server(self, port: int) -> None:
        os.environ.update(prefect_server.without_proxy(os.environ))  # for the clients in this process
        url = postgres.operator_url(os.environ)
        if url is None:
            url = self._place.url
            await self._begin(postgres.NAME, lambda spawned: postgres.start(self._place, spawned))
        plan = prefect_server.ServerPlan(self._home, port, url, self._log("server"))
        await self._begin(prefect_server.NAME, lambda spawned: prefect_server.start(plan, spawned))

    async def _apply_queues(self, api_url: str) -> None:
        with self._voice.working("Making the queues"), connect.using_api(api_url):
            for queue in self._work.queues:
                await self._work.apply_queue(queue)

    async def _start_agent(self, api_url: str, spawned: Callable[[Child], None]) -> Child:
        environment = prefect_server.without_proxy(os.environ) | {
            "PREFECT_API_URL": api_url,
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "LAUNCH_HOME": str(self._home),
            "PYTHONUNBUFFERED": "1",
        }
        command = self._work.agent_command(self._work.names)
        log = self._log("agent")
        child = await process.spawn(
            AGENT, command, env=environment, log=log,
            grace=None,  # it stops its runs, each with a grace of its own: killed, it would leave them behind
            hurry_signal=signal.SIGTERM, hurry_grace=_AGENT_HURRY_GRACE,
        )  # fmt: skip
        spawned(child)
        with connect.using_api(api_url):
            ready = self._work.wait_for_agent(self._work.names)
            match await process.ready_or_dead(child, ready, timeout=_AGENT_SECONDS_TO_START):
                case "dead":
                    raise _agent_failed(child, f"{child.ended()} while starting")
                case "late":
                    raise _agent_failed(child, f"was not ready after {_AGENT_SECONDS_TO_START} seconds")
        return child

    async def _begin(self, name: str, start: Callable[[Callable[[Child], None]], Awaitable[Child]]) -> None:
        """Start a part and keep it running from then on."""
        part = Part(name, start, say=self._voice.say, changed=self._record_children)
        self._parts.append(part)
        began = time.monotonic()
        with self._voice.working(f"Starting the {name}"):
            await part.begin()
        self._voice.say(f"The {name} is up ({time.monotonic() - began:.1f} s).")
        self._keepers.append(asyncio.create_task(self._keep(part)))

    async def _keep(self, part: Part) -> None:
        try:
            reason = await part.keep()
        except Exception as error:  # what nobody foresaw ends everything rather than one part silently
            reason = Unreachable(f"The {part.name} cannot be kept running: {error!r}")
        if not self._gave_up.done():
            self._gave_up.set_result(reason)

    async def _end(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """End the agent, then the server, then PostgreSQL: each needs the next to end well."""
        self._ending.asked.set()  # from now on a signal hurries
        unfinished = [*tasks, *self._keepers]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        for part in reversed(self._parts):
            telling = asyncio.create_task(self._tell_of_runs()) if part.name == AGENT else None
            with self._voice.working(f"Ending the {part.name} (Ctrl-C again to hurry)"):
                await part.end(self._ending.hurry)
            if telling is not None:
                telling.cancel()
        postgres.forget_socket_folder(self._place)
        state.forget(self._settings)
        if self._parts:
            self._voice.say("Everything that was started has ended.")

    async def _tell_of_runs(self) -> None:
        await asyncio.sleep(_SECONDS_TO_TELL)
        if not self._ending.hurry.is_set():
            self._voice.say(
                "The agent is stopping the runs in progress, each with the grace (stop_grace) of its queue or job. "
                "Ctrl-C again, or a second SIGTERM, ends them at once."
            )

    def _log(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"

    def _record(self, choice: Choice, *, ready: bool = False) -> None:
        self._state = state.UpState(
            up=state.ProcessRecord.of("up", os.getpid()),
            api_url=choice.api_url,
            ui_url=choice.ui_url,
            ready=ready,
            queues=tuple(self._work.names),
        )
        self._record_children()

    def _record_children(self) -> None:
        if self._state is None:
            return
        children = [part.child for part in self._parts if part.child is not None]
        records = tuple(state.ProcessRecord.of(child.name, child.pid) for child in children)
        self._state = self._state.model_copy(update={"children": records})
        state.write(self._settings, self._state)

    def _announce(self, choice: Choice, seconds: float) -> None:
        rows = [("UI", choice.ui_url), ("API", choice.api_url), ("State", str(self._home))]
        logs = [str(part.child.log) for part in self._parts if part.child is not None]
        rows += [("Logs" if n == 0 else "", log) for n, log in enumerate(logs)]
        queues = ", ".join(f"{queue.queue_name} ({queue.target})" for queue in self._work.queues)
        rows.append(("Queues", queues))
        first = self._work.names[0] if self._work.names else "QUEUE"
        rows.append(("Submit", f'prefect-launch submit -q {first} FOLDER -E "python train.py"'))
        self._voice.table(f"Ready after {seconds:.0f} s. Ctrl-C ends it.", rows)


async def _first(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _agent_failed(child: Child, what: str) -> LaunchError:
    lines = child.last_lines() or "  nothing"
    return Unreachable(f"The {AGENT} {what}. It says:\n{lines}\n", mend=f"Its log is {child.log}.")


async def _tell_of_the_other(work: Work, settings: LaunchSettings, voice: Voice) -> int:
    """Say where the `up` that holds the lock is; it may have taken it just now and not yet said so."""
    attempts = AsyncRetrying(
        retry=retry_if_result(lambda found: found is None),
        wait=wait_fixed(0.1),
        stop=stop_after_delay(5),
        retry_error_callback=lambda _: None,
    )

    async def look() -> state.UpState | None:
        return state.running(settings)

    other: state.UpState | None = await attempts(look)
    if other is None:
        voice.say(f"Another `prefect-launch up` is just starting with the state folder {settings.home}.")
        return 0
    what = "runs already" if other.ready else "is starting"
    rows = [("UI", other.ui_url), ("API", other.api_url), ("State", str(settings.home)), ("Process", str(other.up.pid))]
    rows.append(("Queues", ", ".join(other.queues)))
    voice.table(f"`prefect-launch up` {what} with this state folder; nothing has been changed.", rows)
    missing = [name for name in work.names if name not in other.queues]
    if missing:
        words = " ".join(f"-q {name}" for name in missing)
        voice.say(
            f"Its agent does not serve {', '.join(missing)}. To add: `prefect-launch queue apply FILE`, "
            f"then `prefect-launch agent {words}`; or end it and start it again."
        )
    return 0
