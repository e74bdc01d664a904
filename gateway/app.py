"""The gateway as a whole: start reading here.

`running` has every part built (`building.py`), opens the listeners (`listeners.py`), and closes all in reverse.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import msgspec

from gateway.assembly.apply_config import prepare
from gateway.assembly.background import background
from gateway.assembly.build import ReceiverNetwork, build, opened_store, opened_tracer
from gateway.assembly.listeners import add_dashboard, ops_app, public_app
from gateway.assembly.parts import Parts
from gateway.assembly.reload import Reloading
from gateway.assembly.shutdown import ShutdownDeadline, SignalHandler
from gateway.config import Config
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.tracing import Tracer
from gateway.http.ops import config_state
from gateway.http.route import Route
from gateway.http.server import listen
from gateway.runtime import clock as clocks

logger = logging.getLogger(__name__)

# A webhook that is cut off is sent again by the next start; those who wait for answers come first.
_WEBHOOK_GRACE_SECONDS = 2.0


class GatewayHandle(msgspec.Struct, frozen=True):
    """A gateway that serves."""

    origin: str
    ops_url: str
    retire: Callable[[], None] = lambda: None
    """Say that no more requests should come; those that do are answered."""
    reloading: Reloading | None = None
    """Reads the config anew; `None` where nobody has said from where."""

    @property
    def base_url(self) -> str:
        """What clients are given, with `/v1`."""
        return f"{self.origin}/v1"


async def serve(config: Config, *, reread: Callable[[], Config], echo: Callable[[str], None] | None = None) -> None:
    """Serve until a signal to stop arrives; then end in good order, within the grace that the config gives.

    On SIGHUP the config is read anew.

    `/readyz` says no at once. After `drain_seconds` those who wait are answered with what is known, streams end with a
    hint to come back, and the listeners close. Runs go on upstream, for the next start to follow.
    """
    stop = SignalHandler(float(config.server.shutdown_grace_seconds))
    stop.listen()
    async with running(config, reread=reread) as gateway, AsyncExitStack() as stack:
        assert gateway.reloading is not None
        background(stack, gateway.reloading.on(stop.reload_asked), "reloads")
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
) -> AsyncIterator[GatewayHandle]:
    """Build the gateway and serve within the context. `routes` are further open routes of the public listener.

    `receiver_network` says how callers' receivers are found and trusted, in place of the system's ways. `reread` finds
    the config anew, for reloads; it may block.

    Raise `StoreUnavailable` if the store cannot be had, `OSError` if a port cannot.
    """
    clock = clock or clocks.SystemClock()
    grace = float(config.server.shutdown_grace_seconds)
    shutdown_deadline = ShutdownDeadline(clock, grace)
    async with AsyncExitStack() as stack:
        tracer = tracer or await opened_tracer(config, stack)
        store = await opened_store(config, stack)
        parts = await build(
            config, store, clock, receiver_network or ReceiverNetwork(), stack, shutdown_deadline, tracer
        )
        await _resume(parts)
        public = public_app(parts, tuple(routes))
        operators = ops_app(parts)
        state = operators[config_state.CONFIG_STATE] = config_state.ConfigState(clock.now())
        await add_dashboard(operators, parts)
        runner, ops_port = await listen(operators, config.ops.host, config.ops.port, grace_seconds=1.0)
        stack.push_async_callback(runner.cleanup)
        runner, port = await listen(
            public, config.server.host, config.server.port, grace_seconds=grace - config.server.drain_seconds
        )
        stack.push_async_callback(runner.cleanup)
        origin = _origin(config.server.host, port)
        parts.dispatcher.start((parts.settings.now.public_url or origin) + "/v1")
        stack.push_async_callback(lambda: parts.dispatcher.close(min(shutdown_deadline.left(), _WEBHOOK_GRACE_SECONDS)))
        # First of all at the end: nobody waits for what the others have to finish.
        stack.push_async_callback(_drain, parts, shutdown_deadline)
        addresses = {"url": origin, "ops_url": _origin(config.ops.host, ops_port), "port": port, "ops_port": ops_port}
        logger.info("serving", extra=addresses)
        reloading = reread and Reloading(
            config, state, clock, parts.metrics, read=reread, prepare=partial(prepare, parts, origin)
        )
        yield GatewayHandle(
            origin, _origin(config.ops.host, ops_port), partial(_retire, parts, shutdown_deadline), reloading
        )


async def _resume(parts: Parts) -> None:
    """Take up what an earlier process left: runs to follow, creates to look for, deadlines to keep."""
    webhooks = await parts.dispatcher.resume()
    orphans = await parts.run_creator.adopter.resume()
    runs = await parts.tracker.resume()
    await parts.deadlines.resume()
    logger.info("resumed", extra={"runs": runs, "uncertain_creates": orphans, "webhooks": webhooks})


def _retire(parts: Parts, shutdown_deadline: ShutdownDeadline) -> None:
    """Say that no more should come."""
    shutdown_deadline.begin()
    parts.health.draining = True


async def _drain(parts: Parts, shutdown_deadline: ShutdownDeadline) -> None:
    """Answer those who wait and say that no more should come, before the listeners close."""
    _retire(parts, shutdown_deadline)
    parts.money.limit_queue.close()
    parts.account.close()
    await parts.hold_queue.close()
    await parts.predictions.drain()


def _origin(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"
