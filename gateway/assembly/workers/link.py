"""What a worker and its supervisor tell each other: that the worker serves, still runs, and that either is gone.

Each has an end of a socket. The system closes it when its process ends, for whatever reason.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

_SERVES: Final = b"serves\n"
_RUNS: Final = b"."
_EVERY_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 30.0
"""A worker that says nothing for so long hangs. Its lease has ended long before."""


class _Heartbeat:
    """Says each second that the event loop runs."""

    def __init__(self, own_end: socket.socket) -> None:
        self._own_end = own_end
        self._timer: asyncio.TimerHandle | None = None

    def send(self) -> None:
        """Say it, and again in a second."""
        # The supervisor may be gone, or stand still.
        with suppress(OSError):
            self._own_end.send(_RUNS)
        self._timer = asyncio.get_running_loop().call_later(_EVERY_SECONDS, self.send)

    def stop(self) -> None:
        """Say nothing more."""
        if self._timer is not None:
            self._timer.cancel()


class WorkerLink(NamedTuple):
    """A worker's place under its supervisor."""

    fd: int
    """The worker's end of the socket."""
    ops_socket: Path
    """Where it serves operators."""

    @classmethod
    def parse(cls, text: str) -> "WorkerLink":
        """Read what `str` has made."""
        fd, _, path = text.partition(":")
        return cls(int(fd), Path(path))

    def __str__(self) -> str:
        return f"{self.fd}:{self.ops_socket}"

    @contextmanager
    def announced(self, on_abandoned: Callable[[], None]) -> Iterator[None]:
        """Tell the supervisor that the worker serves, and each second that its event loop runs.

        Call `on_abandoned` if the supervisor ends meanwhile.
        """
        loop = asyncio.get_running_loop()
        with socket.socket(fileno=self.fd) as own_end:
            own_end.setblocking(False)
            own_end.sendall(_SERVES)

            def ended() -> None:
                loop.remove_reader(own_end)
                on_abandoned()

            heartbeat = _Heartbeat(own_end)
            heartbeat.send()
            # The supervisor sends nothing, so what can be read is its end.
            loop.add_reader(own_end, ended)
            try:
                yield
            finally:
                heartbeat.stop()
                loop.remove_reader(own_end)


async def wait_until_serving(own_end: socket.socket) -> bool:
    """Return true when a worker serves, false if it ends before. The socket stays open."""
    loop = asyncio.get_running_loop()
    own_end.setblocking(False)
    try:
        return await loop.sock_recv(own_end, len(_SERVES)) == _SERVES
    except OSError:
        return False


async def wait_until_ended(own_end: socket.socket, seconds: float = SILENT_SECONDS) -> bool:
    """Return true when a worker that serves ends or shuts down, false if it says nothing for so long."""
    loop = asyncio.get_running_loop()
    try:
        while await asyncio.wait_for(loop.sock_recv(own_end, 4096), seconds):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True
