"""Builds the services of predictions: creates, following runs, what callers read, deadlines."""

from functools import partial

import msgspec

from gateway.assembly.access import AccessParts, ModelParts
from gateway.assembly.base import Base
from gateway.assembly.files import FileParts
from gateway.assembly.limits import MoneyParts
from gateway.assembly.output_store import OpenOutputs, build_output_inputs
from gateway.assembly.upstream import UpstreamParts
from gateway.domain.keyed_digest import KeyedDigest
from gateway.nodes.news import Topic
from gateway.outputs.lifetime import ResultLifetime
from gateway.predictions.create import CreateService
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.estimate import EstimateService
from gateway.predictions.events import PredictionEvents
from gateway.predictions.hits import HitRecorder
from gateway.predictions.in_flight import PendingCreates
from gateway.predictions.joining import JoinService
from gateway.predictions.new_records import NewRecords
from gateway.predictions.other_creates import OtherCreates
from gateway.predictions.other_nodes import OtherNodes
from gateway.predictions.outgoing import OutgoingBodies
from gateway.predictions.queries import PredictionService
from gateway.predictions.rules import adoption
from gateway.predictions.run_creator import RunCreator
from gateway.predictions.run_identity import RunIdentities
from gateway.predictions.run_recorder import RunRecorder
from gateway.predictions.secret_values import SecretValues
from gateway.predictions.tracker import Tracker
from gateway.predictions.upstream_webhooks import UpstreamWebhooks
from gateway.runtime.loops import BackgroundLoop
from gateway.sharing.identity import IdentityService


class PredictionParts(msgspec.Struct, frozen=True):
    """Creates, the tracker, and what callers read."""

    events: PredictionEvents
    lifetime: ResultLifetime
    tracker: Tracker
    service: PredictionService
    run_creator: RunCreator
    hits: HitRecorder
    creates: CreateService
    estimates: EstimateService
    deadlines: Deadlines
    upstream_webhooks: UpstreamWebhooks
    secret_values: SecretValues
    other_nodes: OtherNodes


async def build_predictions(
    base: Base,
    upstream: UpstreamParts,
    money: MoneyParts,
    access: AccessParts,
    models: ModelParts,
    files: FileParts,
    opened: OpenOutputs | None,
) -> PredictionParts:
    """Build the services of predictions. They close before what they call."""
    live, metrics = base.live, base.metrics
    events = PredictionEvents(base.clock, metrics)
    base.stack.push_async_callback(events.close)
    request_secret = await base.secret("requests")
    identities = IdentityService(models.schemas, models.versions, live.sharing, secret=request_secret)
    lifetime = ResultLifetime(identities.ttl_of, copies_ttl_seconds=float(base.config.outputs.ttl_seconds))
    secret_values = SecretValues(models.schemas)
    tracker = _tracker(base, upstream, money, events, lifetime, secret_values)
    ticket_secret = await base.secret("stream-tickets")
    service = PredictionService(
        base.store,
        tracker,
        base.clock,
        events,
        metrics,
        ticket_secret=ticket_secret,
        upstream_base=str(base.config.upstream.base_url),
        settings=live.predictions,
        output_links=opened.links if opened is not None else None,
        news=base.news,
    )
    base.stack.push_async_callback(service.close)
    metrics.read_on_scrape("shown_bytes", lambda: service.shown_bytes)
    metrics.read_on_scrape("uncertain_creates", lambda: run_creator.adopter.searching)
    metrics.read_on_scrape("recent_bytes", lambda: service.recent_bytes)
    deadlines = Deadlines(base.store, base.clock, service.expire, base.membership.is_alive)
    upstream_webhooks = UpstreamWebhooks(
        upstream.internal,
        tracker,
        base.clock,
        live.predictions,
        secret=await base.secret("upstream-webhooks"),
    )
    run_identities = RunIdentities(base.store, tracker, identities, models.versions, keep_until=lifetime.keep_until)
    digest = KeyedDigest(request_secret, "inputs")
    news = base.news
    pending_creates = PendingCreates(
        partial(adoption.may_be_equal, digest=digest),
        on_resolved=partial(news.tell, Topic.RUN) if news.is_shared else None,
    )
    other_creates = OtherCreates(base.store, base.clock)
    base.stack.push_async_callback(other_creates.close)
    recorder = RunRecorder(
        base.store,
        tracker,
        run_identities,
        deadlines,
        pending_creates,
        base.clock,
        events,
        metrics,
        ticket_secret=ticket_secret,
        keep_until=lifetime.keep_until,
        settlement_of=money.pricing.settlement,
        news=news,
    )
    run_creator = RunCreator(
        base.store,
        upstream.client,
        recorder,
        run_identities,
        pending_creates,
        base.clock,
        metrics,
        live.predictions,
        create_limiter=upstream.limiter,
        internal_upstream=upstream.internal,
        secret_values=secret_values,
        digest=digest,
        membership=base.membership,
        other_creates=other_creates,
        news=news,
    )
    base.stack.push_async_callback(lambda: run_creator.close(base.shutdown_deadline.left()))
    output_inputs = build_output_inputs(base, opened, service, files)
    hits = HitRecorder(base.store, events, metrics, metrics)
    creates = CreateService(
        base.store,
        run_creator,
        JoinService(base.store, tracker, run_creator, run_identities, base.clock, live.predictions),
        access.policy,
        identities,
        base.clock,
        metrics,
        hits=hits,
        records=NewRecords(
            base.clock, live.predictions, ticket_secret=ticket_secret, webhook_of=upstream_webhooks.address
        ),
        outputs=output_inputs,
        bodies=OutgoingBodies(models.schemas, output_inputs, digest),
        pricing=money.pricing,
        limit_queue=money.limit_queue,
        money=metrics,
        teams=live.teams,
    )
    base.stack.push_async_callback(lambda: creates.close(base.shutdown_deadline.left()))
    estimates = EstimateService(
        base.store,
        access.policy,
        identities,
        base.clock,
        outputs=output_inputs,
        pricing=money.pricing,
        limit_queue=money.limit_queue,
    )
    base.keep_running(deadlines.run, BackgroundLoop.DEADLINES)
    metrics.read_on_scrape(
        "waiters",
        lambda: {
            "sync": service.waiting,
            "create": pending_creates.waiting + other_creates.waiting,
            "hit": hits.waiting,
        },
    )
    metrics.read_on_scrape("runs_observed", lambda: len(tracker.observed))
    return PredictionParts(
        events,
        lifetime,
        tracker,
        service,
        run_creator,
        hits,
        creates,
        estimates,
        deadlines,
        upstream_webhooks,
        secret_values,
        OtherNodes(base.store, tracker, service, pending_creates, other_creates, deadlines, events, base.clock),
    )


def _tracker(
    base: Base,
    upstream: UpstreamParts,
    money: MoneyParts,
    events: PredictionEvents,
    lifetime: ResultLifetime,
    secret_values: SecretValues,
) -> Tracker:
    throttling, predictions = base.live.throttling, base.live.predictions
    tracker = Tracker(
        base.store,
        upstream.internal,
        base.clock,
        events,
        base.metrics,
        requests_per_minute=lambda: throttling.value.requests_per_minute,
        keep_until=lifetime.keep_until,
        settlement_of=money.pricing.settlement,
        max_document_bytes=lambda: base.live.predictions.value.followed_bytes,
        secret_values=secret_values,
        unreadable_seconds=lambda: predictions.value.unreadable_seconds,
        membership=base.membership,
        news=base.news,
    )
    base.metrics.read_on_scrape("followed_bytes", lambda: tracker.document_bytes)
    base.stack.push_async_callback(tracker.close)
    base.metrics.read_on_scrape("runs_followed", lambda: tracker.active)
    base.metrics.read_on_scrape("runs_active", tracker.active_by_team)
    return tracker
