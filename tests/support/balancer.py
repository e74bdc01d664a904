"""A TCP load balancer: it asks every node for `/readyz`, and gives new connections to ready nodes only, in turn.

A connection stays at its node until one side closes it, as with a Kubernetes service or a balancer of layer 4. So it
shows what clients see of the nodes' own connections. A proxy of HTTP would repair some of it.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tests.support.ports import free_port

_PROBE_PAUSE = 0.05
_PROBE_TIMEOUT = aiohttp.ClientTimeout(total=5)
_PIECE = 64 * 1024


class Balancer:
    """The ports of the nodes, and which of them are ready."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://127.0.0.1:{port}"
        self.connections: Counter[str] = Counter()
        """Connections by the node's origin."""
        self.refused: list[str] = []
        """Connections that a node did not take, or for which no node was ready."""
        self._ready: dict[str, bool] = {}
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._next = 0
        self._open: set[asyncio.Task[None]] = set()

    def add(self, origin: str) -> None:
        """Add a node, which gets connections as soon as it is ready."""
        self._ready[origin] = False
        self._probes[origin] = asyncio.create_task(self._probe(origin))

    async def remove(self, origin: str) -> None:
        """Remove a node."""
        del self._ready[origin]
        probe = self._probes.pop(origin)
        probe.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await probe

    async def close(self) -> None:
        """Remove all nodes, and close all connections."""
        for origin in tuple(self._ready):
            await self.remove(origin)
        for each in self._open:
            each.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    @property
    def ready(self) -> list[str]:
        """The origins of the nodes that are ready."""
        return [origin for origin, is_ready in self._ready.items() if is_ready]

    async def _probe(self, origin: str) -> None:
        # Like those of Kubernetes, a probe is a connection of its own.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(origin, connector=connector, timeout=_PROBE_TIMEOUT) as session:
            while True:
                self._ready[origin] = await _is_ready(session)
                await asyncio.sleep(_PROBE_PAUSE)

    def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass a client's connection to a node."""
        task = asyncio.create_task(self._pass(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _closing(writer):
            ready = self.ready
            if not ready:
                self.refused.append("no node is ready")
                return
            self._next += 1
            origin = ready[self._next % len(ready)]
            host, _, port = origin.removeprefix("http://").partition(":")
            try:
                node_reader, node_writer = await asyncio.open_connection(host, int(port))
            except OSError as exc:
                self.refused.append(f"{origin}: {exc}")
                return
            self.connections[origin] += 1
            async with _closing(node_writer):
                await asyncio.gather(_copy(reader, node_writer), _copy(node_reader, writer))


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _is_ready(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/readyz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction of a connection, and its end."""
    try:
        while data := await reader.read(_PIECE):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        # One side has cut the connection: the other one learns it.
        writer.transport.abort()


@asynccontextmanager
async def balancing() -> AsyncIterator[Balancer]:
    """Run a balancer, without nodes yet."""
    port = free_port()
    balancer = Balancer(port)
    server = await asyncio.start_server(balancer.connect, "127.0.0.1", port)
    try:
        yield balancer
    finally:
        server.close()
        await balancer.close()
