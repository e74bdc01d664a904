"""The gateway as a whole: start reading here.

`running` opens the store, builds every part, continues what an earlier process left, opens the listeners, and closes
all of it in reverse. Each step is a module of `gateway.assembly`.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from gateway.assembly.base import open_base
from gateway.assembly.build import build
from gateway.assembly.lifecycle import drain, resume, retire, start_webhooks
from gateway.assembly.listeners import open_listeners
from gateway.assembly.news import connect_news
from gateway.assembly.nodes import connect_nodes, join_nodes
from gateway.assembly.ports import check_ports
from gateway.assembly.reload import Reloading
from gateway.assembly.reload_parts import open_reloading
from gateway.assembly.shutdown import ShutdownDeadline, SignalHandler
from gateway.assembly.waiting import WaitingListeners
from gateway.assembly.webhooks import ReceiverNetwork
from gateway.assembly.workers.link import WorkerLink
from gateway.config import Config
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.tracing import Tracer
from gateway.errors import StoreAway
from gateway.http.route import Route
from gateway.nodes.membership import LeaseTimes
from gateway.runtime import clock as clocks
from gateway.runtime.collector import spare_long_lived_objects
from gateway.runtime.tasks import run_until_first

logger = logging.getLogger(__name__)


_PAUSE_SECONDS = 1.0
"""Between two attempts to start."""


class StoppedEarly(Exception):
    """The gateway was asked to stop before it had started."""


class GatewayHandle(msgspec.Struct, frozen=True):
    """A gateway that serves."""

    origin: str
    ops_url: str
    retire: Callable[[], None] = lambda: None
    """Report not ready, so that no more requests come, and end open streams. Requests that come are answered."""
    reloading: Reloading | None = None
    """Reloads the config; `None` where no `reread` was given."""

    @property
    def base_url(self) -> str:
        """The URL that clients use, with `/v1`."""
        return f"{self.origin}/v1"


async def serve(
    config: Config,
    *,
    reread: Callable[[], Config],
    echo: Callable[[str], None] | None = None,
    link: WorkerLink | None = None,
) -> None:
    """Serve until a signal to stop arrives; then shut down within the grace of the config. SIGHUP reloads the config.

    At shutdown `/readyz` answers 503 at once, and streams end with a hint to reconnect. After `drain_seconds` callers
    who wait are answered with what is known, and the listeners close. Runs go on upstream; the next start follows them.
    `link` is that of a worker to its supervisor, whose end is a signal to stop.
    """
    stop = SignalHandler(float(config.server.shutdown_grace_seconds))
    stop.listen()
    with suppress(StoppedEarly):
        await _serve(config, stop, reread, echo, link)
    logger.info("stopped")


async def _serve(
    config: Config,
    stop: SignalHandler,
    reread: Callable[[], Config],
    echo: Callable[[str], None] | None,
    link: WorkerLink | None,
) -> None:
    ops_socket = None if link is None else link.ops_socket
    async with (
        running(config, reread=reread, stop=stop, ops_socket=ops_socket) as gateway,
        AsyncExitStack() as stack,
    ):
        assert gateway.reloading is not None
        gateway.reloading.listen(stop.reload_asked, stack)
        spare_long_lived_objects()
        if link is not None:
            stack.enter_context(link.announced(partial(stop.signalled, signal.SIGTERM)))
        elif echo is not None:
            echo(f"replicate-gateway serves {gateway.base_url}; operators: {gateway.ops_url} (/dashboard, /metrics)")
        await stop.wait()
        logger.info("stopping")
        gateway.retire()
        await asyncio.sleep(config.server.drain_seconds)


async def _pause(clock: Clock, stop: SignalHandler | None) -> None:
    if stop is None:
        await clock.sleep(_PAUSE_SECONDS)
        return
    await run_until_first(clock.sleep(_PAUSE_SECONDS), stop.wait())
    if stop.is_asked:
        raise StoppedEarly


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
    ops_socket: Path | None = None,
    stop: SignalHandler | None = None,
) -> AsyncIterator[GatewayHandle]:
    """Build the gateway and serve within the context. `routes` are further open routes of the public listener.

    `receiver_network` replaces the system's resolver and certificates for receivers of webhooks. `reread` reads the
    config again, for reloads; it may block. With `ops_socket`, operators are served there. `lease_times` replaces how
    long the leases of nodes last.

    While the store's database is away, the start waits, and both listeners answer 503. Raise `StoreUnavailable` if the
    store cannot be opened for another reason, `OSError` if a port is not available, and `StoppedEarly` if `stop` is
    asked to stop while the start waits.
    """
    clock = clock or clocks.SystemClock()
    started_at = clock.monotonic()
    deadline = ShutdownDeadline(clock, float(config.server.shutdown_grace_seconds))
    await check_ports(config, ops_socket)
    async with AsyncExitStack() as stack:
        waiting = WaitingListeners(config, ops_socket)
        stack.push_async_callback(waiting.close)
        while True:
            attempt = AsyncExitStack()
            try:
                join = partial(join_nodes, times=lease_times)
                base = await open_base(config, clock, tracer, deadline, attempt, join)
                parts = await build(base, receiver_network or ReceiverNetwork())
                connect_news(parts)
                await resume(parts)
                await connect_nodes(parts)
                await waiting.close()
                listeners = await open_listeners(parts, tuple(routes), ops_socket)
                break
            except StoreAway as exc:
                await attempt.aclose()
                await waiting.answer(exc.detail)
                await _pause(clock, stop)
            except BaseException:
                await attempt.aclose()
                raise
        stack.push_async_exit(attempt)
        start_webhooks(parts, listeners.origin)
        reloading = None
        if reread is not None:
            reloading = await open_reloading(parts, listeners.config_state, reread, started_at)
        # Runs first at shutdown, so that waiting callers are answered before the other parts finish.
        stack.push_async_callback(drain, parts, listeners)
        yield GatewayHandle(
            listeners.origin,
            listeners.ops_url,
            partial(retire, parts),
            reloading,
        )
