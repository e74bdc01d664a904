"""What every builder needs: the config, the live settings, the store, the clock, metrics and traces."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from secrets import token_bytes

import msgspec

from gateway import logs
from gateway.assembly.apply_config import Live, live_settings
from gateway.assembly.shutdown import ShutdownDeadline
from gateway.config import Config
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.tracing import NoTracer, Tracer
from gateway.http import routes
from gateway.metrics import Metrics, loop_lag
from gateway.nodes.membership import Membership
from gateway.nodes.news import News
from gateway.runtime.loops import BackgroundLoop, Loop, run_while_open
from gateway.store.interface import Store
from gateway.store.urls import open_store

logger = logging.getLogger(__name__)

_SECRET_BYTES = 32

Join = Callable[[Store, Clock, Metrics, AsyncExitStack], Awaitable[Membership]]
"""Joins the nodes that serve from a store."""


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """What every builder needs. What a builder opens, `stack` closes, in reverse."""

    config: Config
    """As it was at the start: for settings that need a restart."""
    live: Live
    store: Store
    membership: Membership
    """This process as one of the nodes that serve from the store."""
    news: News
    """What the nodes tell each other."""
    clock: Clock
    metrics: Metrics
    tracer: Tracer
    shutdown_deadline: ShutdownDeadline
    stack: AsyncExitStack

    async def secret(self, name: str) -> bytes:
        """Return a secret that lasts as long as the store, made at the first start."""
        return await self.store.secret(name, token_bytes(_SECRET_BYTES))

    def keep_running(self, loop: Loop, name: BackgroundLoop) -> None:
        """Keep a background loop running until the gateway closes."""
        run_while_open(self.stack, loop, name, self.clock, self.metrics.loop_crashed)


async def open_base(
    config: Config,
    clock: Clock,
    tracer: Tracer | None,
    shutdown_deadline: ShutdownDeadline,
    stack: AsyncExitStack,
    join: Join,
) -> Base:
    """Open traces and the store, join the nodes that serve from it, and start counting. Raise `StoreUnavailable`."""
    tracer = tracer or await _open_tracer(config, stack)
    store = await _open_store(config, stack)
    live = live_settings(config)
    metrics = Metrics(live.metrics, routes=[route.name for route in (*routes.PUBLIC, *routes.OWN)])
    store.set_observer(metrics)
    store.bound_tag_values(live.money.value.max_tag_values)
    live.money.subscribe(lambda money: store.bound_tag_values(money.max_tag_values))
    metrics.read_on_scrape("store_pending", lambda: store.pending)
    membership = await join(store, clock, metrics, stack)
    news = store.open_news(metrics)
    metrics.read_on_scrape("news_waiting", lambda: news.waiting)
    metrics.read_on_scrape("news_listening", lambda: float(news.is_listening))
    metrics.read_on_scrape("log_lines_dropped", logs.dropped)
    sample = partial(loop_lag.sample, metrics.loop_lagged)
    run_while_open(stack, sample, BackgroundLoop.LOOP_LAG, clock, metrics.loop_crashed)
    return Base(
        config=config,
        live=live,
        store=store,
        membership=membership,
        news=news,
        clock=clock,
        metrics=metrics,
        tracer=tracer,
        shutdown_deadline=shutdown_deadline,
        stack=stack,
    )


async def _open_store(config: Config, stack: AsyncExitStack) -> Store:
    """Open the store of the config and claim it where it takes one process only. Raise `StoreUnavailable`."""
    # In a thread: what an engine needs is imported when it is used.
    store = await asyncio.to_thread(open_store, *config.store.address)
    is_new = await store.open()
    stack.push_async_callback(store.close)
    await store.claim()
    if is_new:
        # Expected at the first start only: at any other, this is an empty ledger in place of the right one.
        logger.info("created a new store", extra={"url": config.store.url})
    return store


async def _open_tracer(config: Config, stack: AsyncExitStack) -> Tracer:
    if not config.tracing.enabled:
        return NoTracer()
    # The extra `otel` is needed only where traces are on.
    from gateway.tracing import OtelTracer  # noqa: PLC0415

    tracer = await asyncio.to_thread(OtelTracer, propagate=config.tracing.propagate)
    stack.push_async_callback(tracer.close)
    return tracer
