"""Several gateways in one process, as nodes on one PostgreSQL database."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import aiohttp

from gateway.nodes.membership import LeaseTimes
from tests.support.polling import attempts
from tests.support.session_calls import open_session
from tests.support.stack import OpenGateway, Stack

T = TypeVar("T")


class Nodes:
    """Gateways with the same keys, and a session of team alpha to each."""

    def __init__(self, stacks: Sequence[Stack], sessions: Sequence[aiohttp.ClientSession]) -> None:
        self.stacks = stacks
        self.sessions = sessions

    def of(self, number: int) -> tuple[Stack, aiohttp.ClientSession]:
        """Return a node and its session."""
        return self.stacks[number], self.sessions[number]


async def few_at_a_time(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Await calls in groups of ten, and return their results in order.

    On a crowded machine the steps of a larger burst can wait for PostgreSQL longer than their deadline of five seconds.
    """
    waiting, done = list(calls), list[T]()
    for first in range(0, len(waiting), 10):
        done += await asyncio.gather(*waiting[first : first + 10])
    return done


@contextlib.asynccontextmanager
async def open_nodes(open_gateway: OpenGateway, database: str, count: int = 2, **settings: Any) -> AsyncIterator[Nodes]:
    """Open gateways on one database. They listen to each other's news. Their leases last longer than any test."""
    settings = {"lease_times": LeaseTimes(lease=600.0)} | settings
    async with AsyncExitStack() as stack:
        stacks: list[Stack] = []
        for _ in range(count):
            keys = stacks[0].keys if stacks else None
            stacks.append(await stack.enter_async_context(open_gateway(store={"url": database}, keys=keys, **settings)))
        sessions = [await stack.enter_async_context(open_session(each)) for each in stacks]
        for each in stacks:
            await _until_listening(each)
        yield Nodes(stacks, sessions)


async def _until_listening(stack: Stack) -> None:
    async with aiohttp.ClientSession(stack.ops_url) as operator:
        async for _ in attempts():
            async with operator.get("/metrics") as response:
                if "replicate_gateway_news_listening 1.0" in await response.text():
                    return


def at(stack: Stack, url: str) -> str:
    """Return the address of a stream on a node."""
    return f"{stack.base_url}/{url.partition('/v1/')[2]}"
