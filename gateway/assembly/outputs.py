"""Builds what copies, keeps and serves outputs."""

from functools import partial

import aiohttp
import msgspec

from gateway.assembly.base import Base
from gateway.assembly.output_store import OpenOutputs
from gateway.assembly.predictions import PredictionParts
from gateway.assembly.streams import StreamParts, forget_everywhere
from gateway.domain.records import Run
from gateway.nodes.news import News, Topic
from gateway.outputs.copier import WORKERS, Copier
from gateway.outputs.downloads import OutputService
from gateway.outputs.eviction import OutputEviction
from gateway.outputs.rules.outputs import Persist
from gateway.predictions.queries import PredictionService
from gateway.runtime.loops import BackgroundLoop
from gateway.upstream.outputs import FetchSettings, OutputFetcher
from gateway.upstream.pools import new_session
from gateway.upstream.ssrf_guard import guarded_connector


class OutputParts(msgspec.Struct, frozen=True):
    """What copies and serves outputs."""

    service: OutputService
    copier: Copier | None
    """`None` where nothing new is copied."""


async def build_outputs(
    base: Base, opened: OpenOutputs, predictions: PredictionParts, streams: StreamParts
) -> OutputParts:
    """Build what copies, keeps and serves outputs."""
    eviction = OutputEviction(
        base.store,
        opened.store,
        base.clock,
        base.metrics,
        max_bytes=base.config.outputs.max_bytes,
        ttl_seconds=opened.ttl_seconds,
        is_leader=base.membership.is_leader,
        on_gone=partial(forget_everywhere, base.news, predictions, streams),
    )
    copier = await _copier(base, opened, eviction, predictions)
    service = OutputService(
        predictions.service,
        base.store,
        opened.store,
        eviction,
        base.clock,
        secret=opened.secret,
        ttl_seconds=opened.ttl_seconds,
        max_readers=base.config.outputs.max_readers,
        max_readers_per_team=base.config.outputs.max_readers_per_team,
        on_lost=copier.enqueue if copier is not None else None,
    )
    base.stack.push_async_callback(service.close)
    base.metrics.read_on_scrape("outputs_being_sent", lambda: service.readers)
    base.keep_running(eviction.run, BackgroundLoop.OUTPUTS)
    if copier is not None:
        base.keep_running(copier.run, BackgroundLoop.COPIES)
    return OutputParts(service, copier)


async def _copier(
    base: Base, opened: OpenOutputs, eviction: OutputEviction, predictions: PredictionParts
) -> Copier | None:
    persist = Persist(base.config.outputs.persist)
    if persist is Persist.OFF:
        return None
    fetcher = await _fetcher(base)
    copier = Copier(
        base.store,
        opened.store,
        fetcher,
        eviction,
        base.clock,
        base.metrics,
        persist=persist,
        max_bytes=base.config.outputs.max_bytes,
        is_output=fetcher.is_output,
        keep_until=predictions.lifetime.keep_until,
        on_kept=partial(_renew, base.news, predictions.service),
    )
    base.metrics.read_on_scrape("outputs_pending", lambda: copier.pending)
    return copier


def _renew(news: News, service: PredictionService, run: Run) -> None:
    service.renew(run)
    news.tell(Topic.RUN, run.id)


async def _fetcher(base: Base) -> OutputFetcher:
    upstream = base.config.upstream
    settings = FetchSettings(base_url=str(upstream.base_url), trusted_hosts=tuple(upstream.trusted_hosts))
    plain = await base.stack.enter_async_context(new_session(WORKERS))
    guarded = await base.stack.enter_async_context(
        aiohttp.ClientSession(
            connector=guarded_connector(allow_private=False, max_connections=WORKERS),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers=plain.headers,
        )
    )
    return OutputFetcher(guarded, plain, settings, base.metrics, monotonic=base.clock.monotonic)
