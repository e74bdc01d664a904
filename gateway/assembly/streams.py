"""Builds event streams: one reader of upstream for each run, any number of callers."""

import msgspec

from gateway.assembly.base import Base
from gateway.assembly.predictions import PredictionParts
from gateway.assembly.upstream import UpstreamParts
from gateway.http.handlers.stream_check import Probes
from gateway.http.sse.registry import OpenStreams
from gateway.nodes.news import News, Topic
from gateway.runtime.loops import BackgroundLoop
from gateway.streams.hub import StreamHub


class StreamParts(msgspec.Struct, frozen=True):
    """Event streams of both sides."""

    hub: StreamHub
    open_streams: OpenStreams
    """Those of callers."""
    probes: Probes


def build_streams(base: Base, upstream: UpstreamParts, predictions: PredictionParts) -> StreamParts:
    """Build the hub, the streams of callers and the probes."""
    live, metrics = base.live, base.metrics
    hub = StreamHub(
        upstream.stream_reader,
        predictions.tracker,
        base.store,
        base.clock,
        metrics,
        live.streams,
        predictions.secret_values,
        base.news,
    )
    base.stack.push_async_callback(hub.close)
    base.keep_running(hub.log_writer.run, BackgroundLoop.EVENT_LOGS)
    if base.news.is_shared:
        base.keep_running(hub.log_reader.run, BackgroundLoop.WATCHED_LOGS)
    open_streams = OpenStreams(base.clock, metrics, live.streams, live.teams, predictions.service.canceled_at)
    base.keep_running(open_streams.watch, BackgroundLoop.HEARTBEATS)
    probes = Probes(live.streams)
    metrics.sse_streams.labels("upstream").set_function(lambda: hub.live)
    metrics.sse_streams.labels("check").set_function(lambda: probes.open)
    metrics.read_on_scrape("live_log_bytes", lambda: hub.live_bytes)
    metrics.read_on_scrape("kept_log_bytes", lambda: hub.kept_bytes)
    metrics.read_on_scrape("unkept_logs", lambda: hub.log_writer.dirty)
    return StreamParts(hub, open_streams, probes)


def forget_ended(predictions: PredictionParts, streams: StreamParts) -> None:
    """Drop ended runs from memory, because data of some was deleted, by this node or another one."""
    predictions.service.forget_ended()
    streams.hub.forget()


def forget_everywhere(news: News, predictions: PredictionParts, streams: StreamParts) -> None:
    """Drop ended runs from the memory of all nodes, because data of some was deleted."""
    forget_ended(predictions, streams)
    news.tell(Topic.PURGE, "")
