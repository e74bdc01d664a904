"""The gateway as a whole: start reading here.

`running` opens the store, builds every part, continues what an earlier process left, opens the listeners, and closes
all of it in reverse. Each step is a module of `gateway.assembly`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec

from gateway.assembly.apply_config import prepare
from gateway.assembly.base import open_base
from gateway.assembly.build import build
from gateway.assembly.lifecycle import drain, resume, retire, start_webhooks
from gateway.assembly.listeners import open_listeners
from gateway.assembly.news import connect_news, tell_reloads
from gateway.assembly.nodes import connect_nodes, join_nodes
from gateway.assembly.reload import Reloading
from gateway.assembly.shutdown import ShutdownDeadline, SignalHandler
from gateway.assembly.webhooks import ReceiverNetwork
from gateway.config import Config
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.tracing import Tracer
from gateway.http.route import Route
from gateway.nodes.membership import LeaseTimes
from gateway.runtime import clock as clocks
from gateway.runtime.collector import spare_long_lived_objects

logger = logging.getLogger(__name__)


class GatewayHandle(msgspec.Struct, frozen=True):
    """A gateway that serves."""

    origin: str
    ops_url: str
    retire: Callable[[], None] = lambda: None
    """Report not ready, so that no more requests come. Those that come are answered."""
    reloading: Reloading | None = None
    """Reloads the config; `None` where no `reread` was given."""

    @property
    def base_url(self) -> str:
        """The URL that clients use, with `/v1`."""
        return f"{self.origin}/v1"


async def serve(config: Config, *, reread: Callable[[], Config], echo: Callable[[str], None] | None = None) -> None:
    """Serve until a signal to stop arrives; then shut down within the grace of the config. SIGHUP reloads the config.

    At shutdown `/readyz` answers 503 at once. After `drain_seconds` callers who wait are answered with what is known,
    streams end with a hint to reconnect, and the listeners close. Runs go on upstream; the next start follows them.
    """
    stop = SignalHandler(float(config.server.shutdown_grace_seconds))
    stop.listen()
    async with running(config, reread=reread) as gateway, AsyncExitStack() as stack:
        assert gateway.reloading is not None
        gateway.reloading.listen(stop.reload_asked, stack)
        spare_long_lived_objects()
        if echo is not None:
            echo(f"replicate-gateway serves {gateway.base_url}; operators: {gateway.ops_url} (/dashboard, /metrics)")
        await stop.wait()
        logger.info("stopping")
        gateway.retire()
        await asyncio.sleep(config.server.drain_seconds)
    logger.info("stopped")


@asynccontextmanager
async def running(
    config: Config,
    *,
    clock: Clock | None = None,
    routes: Sequence[Route] = (),
    receiver_network: ReceiverNetwork | None = None,
    tracer: Tracer | None = None,
    reread: Callable[[], Config] | None = None,
    lease_times: LeaseTimes | None = None,
) -> AsyncIterator[GatewayHandle]:
    """Build the gateway and serve within the context. `routes` are further open routes of the public listener.

    `receiver_network` replaces the system's resolver and certificates for receivers of webhooks. `reread` reads the
    config again, for reloads; it may block. `lease_times` replaces how long the leases of nodes last.

    Raise `StoreUnavailable` if the store cannot be opened, `OSError` if a port is not available.
    """
    clock = clock or clocks.SystemClock()
    deadline = ShutdownDeadline(clock, float(config.server.shutdown_grace_seconds))
    async with AsyncExitStack() as stack:
        base = await open_base(config, clock, tracer, deadline, stack, partial(join_nodes, times=lease_times))
        parts = await build(base, receiver_network or ReceiverNetwork())
        connect_news(parts)
        await resume(parts)
        await connect_nodes(parts)
        listeners = await open_listeners(parts, tuple(routes))
        start_webhooks(parts, listeners.origin)
        reloading = reread and Reloading(
            config, listeners.config_state, clock, base.metrics, read=reread, prepare=partial(prepare, base.live)
        )
        if reloading is not None:
            tell_reloads(parts, reloading)
        # Runs first at shutdown, so that waiting callers are answered before the other parts finish.
        stack.push_async_callback(drain, parts)
        yield GatewayHandle(
            listeners.origin,
            listeners.ops_url,
            partial(retire, parts),
            reloading,
        )
