"""What a worker and its supervisor tell each other: that the worker serves, and that either is gone.

Each has an end of a socket. The system closes it when its process ends, for whatever reason.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

_SERVES: Final = b"serves\n"


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
        """Tell the supervisor that the worker serves. Call `on_abandoned` if the supervisor ends meanwhile."""
        loop = asyncio.get_running_loop()
        with socket.socket(fileno=self.fd) as own_end:
            own_end.setblocking(False)
            own_end.sendall(_SERVES)

            def ended() -> None:
                loop.remove_reader(own_end)
                on_abandoned()

            # The supervisor sends nothing, so what can be read is its end.
            loop.add_reader(own_end, ended)
            try:
                yield
            finally:
                loop.remove_reader(own_end)


async def wait_until_serving(own_end: socket.socket) -> bool:
    """Return true when a worker serves, false if it ends before. The socket stays open."""
    loop = asyncio.get_running_loop()
    own_end.setblocking(False)
    try:
        return await loop.sock_recv(own_end, len(_SERVES)) == _SERVES
    except OSError:
        return False
