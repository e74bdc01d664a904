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
