"""Builds what reports whether this process can serve."""

from contextlib import AsyncExitStack

from gateway.assembly.background import background
from gateway.domain.ports.clock import Clock
from gateway.metrics import Metrics
from gateway.operations.health import Health
from gateway.store.interface import Store
from gateway.throttling.upstream_limiter import InternalUpstream
from gateway.upstream.replicate import ReplicateClient


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
