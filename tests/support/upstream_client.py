"""The upstream client alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from gateway.runtime.clock import SystemClock
from gateway.runtime.live import LiveSettings
from gateway.upstream.pools import new_session
from gateway.upstream.replicate import ReplicateClient, UpstreamCredentials, UpstreamSettings
from tests.support.observer import RecordingObserver

SHORT = 0.15
"""Seconds after which the client gives up what a test lets it give up."""


@asynccontextmanager
async def client_of(
    base_url: str, token: str = "r8_x", **more: float
) -> AsyncIterator[tuple[ReplicateClient, RecordingObserver]]:
    """Open a client, and yield it with its observer. `more` replaces settings."""
    notes = RecordingObserver()
    async with new_session(10) as session:
        settings = UpstreamSettings(base_url=base_url, **cast(dict[str, Any], more))
        yield ReplicateClient(session, LiveSettings(UpstreamCredentials(token)), settings, SystemClock(), notes), notes
