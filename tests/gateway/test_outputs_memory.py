"""Large outputs pass through: neither copying one nor serving it holds it in memory."""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest

from gateway.simulator import Simulator
from tests.support.http_calls import ask
from tests.support.outputs import add_output, gateway_with_copies
from tests.support.polling import attempts
from tests.support.s3 import CREDENTIALS, make_bucket
from tests.support.samples import create
from tests.support.stack import OpenGateway

MB = 1_000_000
PIECE = bytes(MB)
GROWTH = 30 * MB


@asynccontextmanager
async def host_of_zeros(size: int) -> AsyncIterator[str]:
    """Host one large file: nothing but zeros."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // MB):
            writer.write(PIECE)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/film.mp4"


@pytest.fixture
def large_folder() -> Iterator[Path]:
    """A folder in memory, where there is such a place, that is not looked through afterwards."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


def forget_peak() -> int:
    """Let the peak of the process's memory be what it uses now; return that, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """Return the most memory that the process has used."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def download(link: str) -> int:
    """Read a file and throw it away; return its size."""
    parts = urlsplit(link)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=MB)
    writer.write(f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    size = 0
    while piece := await reader.read(MB):
        size += len(piece)
    writer.close()
    await writer.wait_closed()
    return size


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="only Linux reports the peak of memory")
@pytest.mark.parametrize(("kind", "size"), [("folder", 500 * MB), ("bucket", 40 * MB)])
async def test_large_output_is_copied_and_served_in_bounded_memory(
    open_gateway: OpenGateway,
    upstream: Simulator,
    large_folder: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    size: int,
):
    """Half a gigabyte is stored and served, and the process grows by less than thirty megabytes."""
    url = str(large_folder / "outputs")
    if kind == "bucket":
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name, value)
        url = make_bucket(request.getfixturevalue("s3"), "films")
    async with host_of_zeros(size) as link:
        add_output(upstream, "acme/cinema", lambda _: link)
        async with gateway_with_copies(open_gateway, upstream, url, outputs={"persist": "all"}) as it:
            before = forget_peak()
            made = await create(it.stack, model="acme/cinema", headers={"Prefer": "wait"})
            assert made.json["output"] == link
            async for _ in attempts():
                if not await it.metric("outputs_pending"):
                    break
            assert await it.metric("outputs_stored_bytes_total") == size
            it.clock.advance(56 * 60)
            mine = (await ask(it.stack, "GET", made.json["urls"]["get"])).json["output"]
            assert await download(mine) == size
            assert peak() - before < GROWTH, f"grown by {(peak() - before) / MB:.1f} MB"
