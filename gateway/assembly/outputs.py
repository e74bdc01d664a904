"""The output store, put together: what `app.py` needs of it in one place."""

from contextlib import AsyncExitStack
from secrets import token_bytes

import aiohttp
import msgspec

from gateway.config import Config
from gateway.domain.ports.clock import Clock
from gateway.metrics import Metrics
from gateway.outputs.copier import WORKERS, Copier
from gateway.outputs.downloads import OutputService
from gateway.outputs.eviction import OutputEviction, let_go_of_all
from gateway.outputs.lifetime import ResultLifetime
from gateway.outputs.links import OutputLinks
from gateway.outputs.ports import OutputStore
from gateway.outputs.rules.outputs import Persist
from gateway.predictions.queries import PredictionService
from gateway.store.interface import Store
from gateway.store.objects.urls import open_output_store
from gateway.streams.hub import StreamHub
from gateway.upstream.outputs import FetchSettings, OutputFetcher
from gateway.upstream.replicate import new_session
from gateway.upstream.ssrf_guard import guarded_connector

_SECRET_BYTES = 32


class OpenOutputs(msgspec.Struct, frozen=True):
    """An output store that is open, and the links of what is in it."""

    store: OutputStore
    links: OutputLinks
    secret: bytes
    ttl_seconds: float


class OutputParts(msgspec.Struct, frozen=True):
    """What runs and serves."""

    service: OutputService
    keeper: OutputEviction
    copier: Copier | None
    """`None` where nothing new is copied."""


async def open_outputs(config: Config, store: Store, clock: Clock, stack: AsyncExitStack) -> OpenOutputs | None:
    """Open the output store, if there is one. Raise `StoreUnavailable` if it cannot be had."""
    if config.outputs.url is None:
        await let_go_of_all(store)
        return None
    objects = open_output_store(config.outputs.url)
    await objects.open()
    stack.push_async_callback(objects.close)
    secret = await store.secret("output-tickets", token_bytes(_SECRET_BYTES))
    ttl_seconds = float(config.outputs.ttl_seconds)
    return OpenOutputs(objects, OutputLinks(clock, secret=secret, ttl_seconds=ttl_seconds), secret, ttl_seconds)


async def build_outputs(
    config: Config,
    opened: OpenOutputs,
    store: Store,
    clock: Clock,
    metrics: Metrics,
    lifetime: ResultLifetime,
    predictions: PredictionService,
    hub: StreamHub,
    stack: AsyncExitStack,
) -> OutputParts:
    """Build what copies, keeps and serves."""

    def forget() -> None:
        predictions.forget_ended()
        hub.forget()

    keeper = OutputEviction(
        store,
        opened.store,
        clock,
        metrics,
        max_bytes=config.outputs.max_bytes,
        ttl_seconds=opened.ttl_seconds,
        on_gone=forget,
    )
    copier = None
    persist = Persist(config.outputs.persist)
    if persist is not Persist.OFF:
        fetcher = await _fetcher(config, clock, metrics, stack)
        copier = Copier(
            store,
            opened.store,
            fetcher,
            keeper,
            clock,
            metrics,
            persist=persist,
            max_bytes=config.outputs.max_bytes,
            is_output=fetcher.is_output,
            keep_until=lifetime.keep_until,
            on_kept=predictions.renew,
        )
        metrics.read_on_scrape("outputs_pending", lambda: copier.pending)
    service = OutputService(
        predictions,
        store,
        opened.store,
        keeper,
        clock,
        secret=opened.secret,
        ttl_seconds=opened.ttl_seconds,
        on_lost=copier.enqueue if copier is not None else None,
    )
    stack.push_async_callback(service.close)
    metrics.read_on_scrape("outputs_being_sent", lambda: service.readers)
    return OutputParts(service, keeper, copier)


async def _fetcher(config: Config, clock: Clock, metrics: Metrics, stack: AsyncExitStack) -> OutputFetcher:
    settings = FetchSettings(base_url=str(config.upstream.base_url), trusted_hosts=tuple(config.upstream.trusted_hosts))
    plain = await stack.enter_async_context(new_session(WORKERS))
    guarded = await stack.enter_async_context(
        aiohttp.ClientSession(
            connector=guarded_connector(allow_private=False, max_connections=WORKERS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers=plain.headers,
        )
    )
    return OutputFetcher(guarded, plain, settings, metrics, monotonic=clock.monotonic)
