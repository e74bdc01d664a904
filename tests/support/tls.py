"""A TLS door before a plain one, so that what upstream hosts has the `https:` link that clients make files of."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support.tools import make_certificate


@contextlib.asynccontextmanager
async def tls_door(folder: Path) -> AsyncIterator["Door"]:
    """Open a TLS listener with a certificate of its own; `door.leads_to` says where it passes everything on to."""
    certificate, key = make_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    route = Door(certificate)
    server = await asyncio.start_server(route.pass_on, "127.0.0.1", 0, ssl=context)
    route.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield route
    finally:
        server.close()
        await route.close()


class Door:
    """Passes bytes both ways, for as long as either side talks."""

    def __init__(self, certificate: Path) -> None:
        self.certificate = certificate
        self.url = ""
        self.leads_to = ""
        self._tasks: set[asyncio.Task[None]] = set()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        host, _, port = self.leads_to.removeprefix("http://").partition(":")
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)

    async def close(self) -> None:
        """Cut every connection."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
