"""A way to a server that counts what goes over it and can fail: refuse, break off half-way, or stand still."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import suppress
from typing import Any


class Proxy:
    """Passes TCP connections on to a port of this machine.

    Args:
        port: Where they go.

    Attributes:
        sent: Bytes that went to the server.
        received: Bytes that came from it.
    """

    def __init__(self, port: int) -> None:
        self.sent = self.received = 0
        self._target = port
        self._open = 0
        self._refused = 0
        self._cut: dict[str, int] = {}
        self._stall: dict[str, int] = {}
        self._changed = threading.Condition()
        self._flowing = threading.Event()
        self._flowing.set()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._pass_on(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.heal()
        self._server.shutdown()
        self._server.server_close()

    def refuse(self, connections: int) -> None:
        """Close the next connections at once."""
        self._refused = connections

    def cut(self, *, sent: int = 0, received: int = 0) -> None:
        """Break one connection off after so many more bytes in one direction."""
        self._cut = {name: size for name, size in (("sent", sent), ("received", received)) if size}

    def stall(self, *, sent: int) -> None:
        """Let nothing through any more after so many more bytes to the server; the connections stay open."""
        self._stall = {"sent": sent}

    def heal(self) -> None:
        """No more faults."""
        self._refused, self._cut, self._stall = 0, {}, {}
        self._flowing.set()

    def is_stalled(self, timeout: float) -> bool:
        """Wait until a stall has begun."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._flowing.is_set(), timeout)

    def is_unused(self, timeout: float) -> bool:
        """Wait until there is no connection."""
        with self._changed:
            return self._changed.wait_for(lambda: self._open == 0, timeout)

    def _pass_on(self, client: socket.socket) -> None:
        with self._changed:
            if self._refused:
                self._refused -= 1
                return
            self._open += 1
        try:
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                back = threading.Thread(target=self._pump, args=(server, client, "received"), daemon=True)
                back.start()
                self._pump(client, server, "sent")
                back.join()
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def _pump(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                with self._changed:
                    setattr(self, direction, getattr(self, direction) + len(data))
                    if self._used_up(self._cut, direction, len(data)):
                        break
                    if self._used_up(self._stall, direction, len(data)):
                        self._flowing.clear()
                        self._changed.notify_all()
                while not self._flowing.wait(0.05):
                    if _is_closed(source):
                        break
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _used_up(budget: dict[str, int], direction: str, size: int) -> bool:
        if direction not in budget:
            return False
        budget[direction] -= size
        if budget[direction] > 0:
            return False
        del budget[direction]
        return True


def _is_closed(end: socket.socket) -> bool:
    """Whether the other side has closed a connection on which it may still have sent something."""
    import select

    poll = select.poll()
    poll.register(end, select.POLLRDHUP)
    return bool(poll.poll(0))
