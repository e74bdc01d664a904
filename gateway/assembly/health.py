"""Opens the store, and builds what reports whether this process can serve."""

import logging
from contextlib import AsyncExitStack

from gateway.assembly.background import background
from gateway.config import Config
from gateway.domain.ports.clock import Clock
from gateway.metrics import Metrics
from gateway.operations.health import Health
from gateway.store.interface import Store
from gateway.store.urls import open_store
from gateway.throttling.upstream_limiter import InternalUpstream
from gateway.upstream.replicate import ReplicateClient

logger = logging.getLogger(__name__)


async def opened_store(config: Config, stack: AsyncExitStack) -> Store:
    """Open and claim the store that the config names. Raise `StoreUnavailable`."""
    store = open_store(config.store.url)
    is_new = await store.open()
    stack.push_async_callback(store.close)
    await store.claim()
    if is_new:
        # Expected at the first start only: at any other, this is an empty ledger in place of the right one.
        logger.warning("created a new store", extra={"url": config.store.url})
    return store


def build_health(
    store: Store,
    upstream: InternalUpstream,
    client: ReplicateClient,
    clock: Clock,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> Health:
    """Build the health checks and their metrics. `stack` ends the check that runs in the background."""
    health = Health(store, upstream, clock, lambda: client.token_refused_at is not None)
    metrics.read_on_scrape("ready", lambda: float(health.is_ready))
    metrics.read_on_scrape("degraded", health.degraded)
    background(stack, health.watch(), "health")
    return health
