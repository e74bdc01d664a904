"""The server's own connections."""

import asyncio
import socket

import pytest
from aiohttp import web

from gateway.http.server import listen
from tests.support.polling import until


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the platform has no such bound")
async def test_client_that_takes_nothing_is_dropped_by_the_kernel():
    """A response that nobody reads does not stay in memory forever: aiohttp itself waits without a deadline."""
    runner, port = await listen(web.Application(), "127.0.0.1", 0, grace_seconds=0.1)
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        server = runner.server
        assert server is not None
        await until(lambda: server.connections)
        transport = server.connections[0].transport
        assert transport is not None
        bound = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert 0 < bound <= 120_000
        writer.close()
    finally:
        await runner.cleanup()


async def test_idle_connections_are_closed_and_requests_are_answered():
    """A client whose request has arrived, even if nobody has read it yet, gets its response after `close_idle`."""
    go_on = asyncio.Event()

    async def respond(_: web.Request) -> web.Response:
        await go_on.wait()
        return web.Response(text="answered")

    app = web.Application()
    app.router.add_get("/", respond)
    runner, port = await listen(app, "127.0.0.1", 0, grace_seconds=5)
    try:
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        idle, half, waiting, late = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        half[1].write(request[:20])
        waiting[1].write(request)
        await until(lambda: runner.server is not None and runner.server.requests_count == 1)
        # The kernel passes it on at once; the server has not read it.
        late[1].write(request)
        await runner.close_idle()
        assert await idle[0].read() == b""
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        half[1].write(request[20:])
        go_on.set()
        for reader, _ in (half, waiting, late):
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        for _, writer in (idle, half, waiting, late):
            writer.close()
    finally:
        await runner.cleanup()
