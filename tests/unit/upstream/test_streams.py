"""The reader of upstream's streams: how long it waits for what."""

import asyncio

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.errors import UpstreamUnavailable
from gateway.upstream.streams import StreamReader, StreamReaderSettings
from tests.support.observer import RecordingObserver


class Silent(AbstractResolver):
    """A name server that never answers."""

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:
        """Look forever."""
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        """Nothing is open."""


async def test_hanging_lookup_is_given_up():
    """The name server is dead, the stream's reader gets the result nevertheless: the wait has a bound."""
    settings = StreamReaderSettings(
        base_url="https://api.replicate.com/v1", trusted_hosts=("*.replicate.com",), connect_seconds=0.05
    )
    observer = RecordingObserver()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=Silent())) as session:
        reader = StreamReader(session, settings, observer)
        with pytest.raises(UpstreamUnavailable):
            async with reader.open("https://stream.replicate.com/v1/streams/x"):
                raise AssertionError
    assert observer.outcomes == ["unreachable"]
