"""The reader of upstream's streams: how long it waits for what."""

import asyncio

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.errors import UpstreamUnavailable
from gateway.upstream.streams import StreamReader, StreamSettings


class Silent(AbstractResolver):
    """A name server that never answers."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Look for ever."""
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        """Nothing is open."""


class Observer:
    """Notes outcomes."""

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        """Note one."""
        del operation, seconds
        self.outcomes.append(outcome)


async def test_hanging_lookup_is_given_up():
    """The name server is dead, and the stream's reader still gets the result: the wait has an end."""
    settings = StreamSettings(
        base_url="https://api.replicate.com/v1", trusted_hosts=("*.replicate.com",), connect_seconds=0.05
    )
    observer = Observer()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Silent())) as session:
        reader = StreamReader(session, settings, observer)
        with pytest.raises(UpstreamUnavailable):
            async with asyncio.timeout(10), reader.open("https://stream.replicate.com/v1/streams/x"):
                raise AssertionError
    assert observer.outcomes == ["unreachable"]
