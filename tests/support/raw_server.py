"""A server that responds with the bytes that a test gives: for malformed responses that the simulator never sends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

Script = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, *, status: str = "200 OK", content_type: str = "application/json", **headers: str) -> bytes:
    """Return a response as bytes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class RawServer:
    """The server's URL and the requests it has received."""

    def __init__(self) -> None:
        self.url = ""
        self.heads: list[bytes] = []
        self.body_bytes = 0


@asynccontextmanager
async def raw_server(script: Script | bytes) -> AsyncIterator[RawServer]:
    """Listen on a free port; each connection reads one request and runs the script."""
    log = RawServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            log.heads.append(head)
            if isinstance(script, bytes):
                await _body(reader, head, log)
                writer.write(script)
                await writer.drain()
            else:
                await script(head, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024 * 1024)
    log.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield log
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _body(reader: asyncio.StreamReader, head: bytes, log: RawServer) -> None:
    """Read and drop a body."""
    lines = head.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
    while length:
        piece = await reader.read(min(length, 65536))
        if not piece:
            return
        length -= len(piece)
        log.body_bytes += len(piece)
    if b"transfer-encoding: chunked" in lines:
        while size := int(await reader.readline(), 16):
            log.body_bytes += len(await reader.readexactly(size))
            await reader.readexactly(2)
        await reader.readline()
