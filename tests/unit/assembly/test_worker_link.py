"""What a worker and its supervisor learn of each other."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.assembly.workers.link import WorkerLink, wait_until_ended, wait_until_serving

Ends = tuple[socket.socket, WorkerLink]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """The supervisor's end, and the worker's link as it is passed on."""
    own_end, its_end = socket.socketpair()
    with own_end:
        yield own_end, WorkerLink.parse(str(WorkerLink(its_end.detach(), Path("/tmp/a:b"))))


async def test_worker_is_known_to_serve_and_to_end(ends: Ends):
    own_end, link = ends
    assert link.ops_socket == Path("/tmp/a:b")
    with link.announced(lambda: None):
        assert await wait_until_serving(own_end)
    assert await wait_until_ended(own_end)


async def test_worker_that_ends_before_it_serves_is_noticed(ends: Ends):
    own_end, link = ends
    socket.socket(fileno=link.fd).close()
    assert not await wait_until_serving(own_end)


async def test_worker_learns_that_its_supervisor_has_ended(ends: Ends):
    own_end, link = ends
    abandoned = asyncio.Event()
    with link.announced(abandoned.set):
        own_end.close()
        await abandoned.wait()


async def test_worker_that_says_nothing_hangs(ends: Ends):
    """It says each second that its event loop runs, which one that was stopped does not."""
    own_end, link = ends
    with link.announced(lambda: None):
        assert await wait_until_serving(own_end)
        assert await asyncio.get_running_loop().sock_recv(own_end, 1) == b"."
        assert not await wait_until_ended(own_end, seconds=0.01)
