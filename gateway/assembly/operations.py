"""Builds what operators use, and what keeps the store small."""

from functools import partial

import msgspec

from gateway.assembly.base import Base
from gateway.assembly.limits import MoneyParts, RateParts
from gateway.assembly.predictions import PredictionParts
from gateway.assembly.streams import StreamParts, forget_everywhere
from gateway.assembly.upstream import UpstreamParts
from gateway.operations.dashboard import DashboardService, Sources
from gateway.operations.explain import ExplainService
from gateway.operations.health import Health
from gateway.operations.janitor import Janitor
from gateway.operations.prediction_log import PredictionLog
from gateway.operations.recent_errors import RecentErrors
from gateway.operations.run_timing import RunTimings
from gateway.operations.teams import TeamService
from gateway.runtime.loops import BackgroundLoop


class OperationsParts(msgspec.Struct, frozen=True):
    """Health, explanations, the dashboard and the janitor."""

    recent_errors: RecentErrors
    run_timings: RunTimings
    health: Health
    explain: ExplainService
    dashboard: DashboardService
    prediction_log: PredictionLog
    teams: TeamService


def build_operations(
    base: Base,
    upstream: UpstreamParts,
    money: MoneyParts,
    rates: RateParts,
    predictions: PredictionParts,
    streams: StreamParts,
) -> OperationsParts:
    """Build the services of operators, and start the janitor."""
    live, store, clock, metrics = base.live, base.store, base.clock, base.metrics
    _start_janitor(base, predictions, streams)
    recent_errors = RecentErrors(live.teams, clock, live.retention, shows_data=lambda: live.admin.value.show_data)
    tracker, limit_queue, hold_queue = predictions.tracker, money.limit_queue, rates.hold_queue
    sources = Sources(
        runs=lambda: tracker.followed,
        waiting=lambda team: limit_queue.waiting_of(team) + hold_queue.count(team),
        streams=streams.open_streams.count,
    )
    explain = ExplainService(predictions.service, store, store, store, money.pricing, live.access, store)
    health = _start_health(base, upstream)
    return OperationsParts(
        recent_errors=recent_errors,
        run_timings=RunTimings(metrics),
        health=health,
        explain=explain,
        dashboard=DashboardService(live.teams, store, metrics, recent_errors, sources, clock, store, health.known),
        prediction_log=PredictionLog(store, predictions.service, explain, live.admin, metrics.search_bound_reached),
        teams=TeamService(live.teams, store, clock),
    )


def _start_health(base: Base, upstream: UpstreamParts) -> Health:
    health = Health(
        base.store,
        upstream.internal,
        base.clock,
        lambda: upstream.client.is_failing,
        lambda: upstream.client.pool.waiting > 0,
        base.membership.is_shut_out,
    )
    base.metrics.read_on_scrape("ready", lambda: float(health.is_ready))
    base.metrics.read_on_scrape("degraded", health.degraded)
    base.keep_running(health.watch, BackgroundLoop.HEALTH)
    return health


def _start_janitor(base: Base, predictions: PredictionParts, streams: StreamParts) -> None:
    janitor = Janitor(
        base.store,
        base.store,
        base.store,
        base.store,
        base.clock,
        base.live.retention,
        on_cleared=partial(forget_everywhere, base.news, predictions, streams),
        observer=base.metrics,
        is_leader=base.membership.is_leader,
        forget_sessions=None if base.store.nodes is None else base.store.nodes.forget_sessions,
    )
    base.keep_running(janitor.run, BackgroundLoop.JANITOR)
