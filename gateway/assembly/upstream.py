"""Builds the client of Replicate, and the queue for the account's rates that all its calls pass."""

import aiohttp
import msgspec

from gateway.assembly.base import Base
from gateway.assembly.shares import new_limiter
from gateway.nodes.membership import OnlyNode
from gateway.runtime.loops import BackgroundLoop
from gateway.throttling.upstream_limiter import InternalUpstream, UpstreamLimiter
from gateway.upstream.pools import ConnectionPool, Pool, new_session
from gateway.upstream.replicate import ReplicateClient, UpstreamSettings
from gateway.upstream.send_guard import guarded_request
from gateway.upstream.streams import StreamReader, StreamReaderSettings

_STREAM_CONNECTIONS = 20_000


class UpstreamParts(msgspec.Struct, frozen=True):
    """The clients of Replicate, and the limiter that they share."""

    limiter: UpstreamLimiter
    client: ReplicateClient
    """For calls on behalf of callers."""
    internal: InternalUpstream
    """For the gateway's own calls."""
    stream_reader: StreamReader
    create_seconds: float
    """After so long a create that was sent is no longer waited for."""


async def build_upstream(base: Base) -> UpstreamParts:
    """Build the client and the readers of streams."""
    metrics, config = base.metrics, base.config.upstream
    limiter = _limiter(base)
    transfers = base.config.transfers
    settings = UpstreamSettings(base_url=str(config.base_url))
    session = await base.stack.enter_async_context(_session(base, settings.max_connections))
    client = ReplicateClient(
        session,
        base.live.credentials,
        settings,
        base.clock,
        metrics,
        call_limiter=limiter,
        tracer=base.tracer,
        uploads=await _pool(base, Pool.UPLOADS, transfers.max_uploads),
        downloads=await _pool(base, Pool.DOWNLOADS, transfers.max_downloads),
    )
    metrics.read_on_scrape("upstream_connections", lambda: {pool.name: pool.in_use for pool in client.pools})
    metrics.read_on_scrape("upstream_breaker_state", lambda: client.breaker.state(base.clock.monotonic()))
    reader = StreamReader(
        await base.stack.enter_async_context(new_session(_STREAM_CONNECTIONS)),
        StreamReaderSettings(base_url=settings.base_url, trusted_hosts=tuple(config.trusted_hosts)),
        metrics,
    )
    return UpstreamParts(limiter, client, InternalUpstream(client), reader, settings.read_seconds)


def _session(base: Base, max_connections: int) -> aiohttp.ClientSession:
    """Open the session for calls. Where several nodes serve, what acts upstream needs a valid lease."""
    if isinstance(base.membership, OnlyNode):
        return new_session(max_connections)
    return new_session(max_connections, guarded_request(base.membership.may_send))


async def _pool(base: Base, name: Pool, size: int) -> ConnectionPool:
    session = await base.stack.enter_async_context(new_session(size))
    return ConnectionPool(name, session, size, base.metrics)


def _limiter(base: Base) -> UpstreamLimiter:
    limiter = UpstreamLimiter(base.live.teams, base.clock, base.metrics, base.live.throttling, new_limiter(base))
    base.keep_running(limiter.run, BackgroundLoop.ACCOUNT)
    creates, requests = limiter.creates, limiter.requests
    base.metrics.read_on_scrape("waiters", lambda: {"account": len(creates), "call": len(requests)})
    base.metrics.read_on_scrape(
        "account_rate_per_minute",
        lambda: {"creates": creates.rate.rate.per_minute, "requests": requests.rate.rate.per_minute},
    )
    return limiter
