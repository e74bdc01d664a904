"""A proxy before PostgreSQL that cuts connections where a test wants it.

It reads what clients send, message by message, and recognises the commits of steps. It listens on a socket in a
temporary folder, which takes the place of the server's in an address.
"""

import contextlib
import enum
import select
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.store.postgres.commits import NOTE

_SOCKET = ".s.PGSQL.5432"
_SIMPLE_QUERY = ord("Q")
_SIZE = 65536
_COMMITTED = b"D\0\0\0\x0b\0\x01\0\0\0\x01t"
"""The row that says that a step has written something: one column, one byte."""


class Cut(enum.Enum):
    """What becomes of the commit of a step."""

    PASSED = enum.auto()
    """Server and client get what the other sends."""
    BEFORE = enum.auto()
    """The connection is cut before the server gets it."""
    AFTER = enum.auto()
    """The connection is cut when the server has answered, before the client gets the answer.

    The answer to a step that has written nothing is passed.
    """
    AT_ONCE = enum.auto()
    """The connection is cut when the server has got it, before it has answered."""


Plan = Callable[[], Cut]


def every(cut: Cut) -> Plan:
    """Cut every commit."""
    return lambda: cut


def every_other(cut: Cut) -> Plan:
    """Cut every second commit."""
    state = [False]
    lock = threading.Lock()

    def plan() -> Cut:
        with lock:
            state[0] = not state[0]
            return cut if state[0] else Cut.PASSED

    return plan


class Proxy:
    """A proxy that runs."""

    def __init__(self, upstream: Path, plan: Plan) -> None:
        self.plan = plan
        self.folder = Path(tempfile.mkdtemp(prefix="pgproxy", dir="/tmp"))
        self.cuts = 0
        """Number of connections that were cut."""
        self.is_away = False
        """Whether connections are refused, as while the server is down."""
        self._open: set[socket.socket] = set()
        self._upstream = upstream / _SOCKET
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.folder / _SOCKET))
        self._listener.listen(64)
        self._thread = threading.Thread(target=self._accept, name="postgres-proxy", daemon=True)
        self._thread.start()

    def url(self, url: str) -> str:
        """Return the address of a database through the proxy."""
        return url.replace(str(self._upstream.parent), str(self.folder))

    def cut_all(self) -> None:
        """Cut every connection."""
        for each in tuple(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Accept no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                if self.is_away:
                    raise ConnectionRefusedError
                server.connect(str(self._upstream))
            except OSError:
                server.close()
                client.close()
                continue
            self._open |= {client, server}
            threading.Thread(target=self._relay, args=(client, server), daemon=True).start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            with contextlib.suppress(OSError):
                self._exchange(client, server)
            self._open -= {client, server}

    def _exchange(self, client: socket.socket, server: socket.socket) -> None:
        sent = b""
        is_started = False
        while True:
            readable, _, _ = select.select([client, server], [], [])
            if server in readable:
                answer = server.recv(_SIZE)
                if not answer:
                    return
                client.sendall(answer)
            if client not in readable:
                continue
            more = client.recv(_SIZE)
            if not more:
                return
            sent += more
            while (message := _first(sent, is_started=is_started)) is not None:
                sent = sent[len(message) :]
                cut = self.plan() if is_started and _is_commit(message) else Cut.PASSED
                is_started = True
                if cut is Cut.BEFORE:
                    self.cuts += 1
                    return
                server.sendall(message)
                if cut is Cut.AFTER:
                    answer = _whole_answer(server)
                    if _COMMITTED in answer:
                        self.cuts += 1
                        return
                    client.sendall(answer)
                elif cut is Cut.AT_ONCE:
                    self.cuts += 1
                    return


def _first(sent: bytes, *, is_started: bool) -> bytes | None:
    """Return the first message of what was sent, if it is complete. The very first has no type."""
    head = 5 if is_started else 4
    if len(sent) < head:
        return None
    size = int.from_bytes(sent[head - 4 : head]) + head - 4
    return sent[:size] if len(sent) >= size else None


def _is_commit(message: bytes) -> bool:
    return message[0] == _SIMPLE_QUERY and NOTE in message


def _whole_answer(server: socket.socket) -> bytes:
    """Return what the server answers, until ReadyForQuery: `Z`, its size, and one byte."""
    answer = b""
    while answer[-6:-1] != b"Z\0\0\0\x05":
        more = server.recv(_SIZE)
        if not more:
            break
        answer += more
    return answer


@contextmanager
def proxy(upstream: Path, plan: Plan) -> Iterator[Proxy]:
    """Run a proxy before the server whose socket is in the folder."""
    made = Proxy(upstream, plan)
    try:
        yield made
    finally:
        made.stop()
