"""Builds the life of a prediction: its create, the run it shares, its end."""

import msgspec

from gateway.assembly.access import AccessParts, ModelParts
from gateway.assembly.base import Base
from gateway.assembly.limits import MoneyParts
from gateway.assembly.upstream import UpstreamParts
from gateway.outputs.lifetime import ResultLifetime
from gateway.predictions.create import CreateService
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.ports.outputs import CopyLinks
from gateway.predictions.queries import PredictionService
from gateway.predictions.run_creator import RunCreator
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.tracker import Tracker
from gateway.predictions.upstream_webhooks import UpstreamWebhooks
from gateway.runtime.tasks import run_while_open
from gateway.sharing.identity import IdentityService


class PredictionParts(msgspec.Struct, frozen=True):
    """Creates, the tracker, and what callers read."""

    lifetime: ResultLifetime
    tracker: Tracker
    service: PredictionService
    run_creator: RunCreator
    creates: CreateService
    deadlines: Deadlines
    upstream_webhooks: UpstreamWebhooks


async def build_predictions(
    base: Base,
    upstream: UpstreamParts,
    money: MoneyParts,
    access: AccessParts,
    models: ModelParts,
    output_links: CopyLinks | None,
) -> PredictionParts:
    """Build the services of predictions. They close before what they call."""
    live, metrics = base.live, base.metrics
    identities = _identities(base, models)
    lifetime = ResultLifetime(identities.ttl_of, copies_ttl_seconds=float(base.config.outputs.ttl_seconds))
    tracker = _tracker(base, upstream, money, lifetime)
    ticket_secret = await base.secret("stream-tickets")
    service = PredictionService(
        base.store,
        tracker,
        base.clock,
        metrics,
        ticket_secret=ticket_secret,
        memory_bytes=live.predictions.value.memory_bytes,
        output_links=output_links,
    )
    base.stack.push_async_callback(service.close)
    metrics.read_on_scrape("shown_bytes", lambda: service.shown_bytes)
    deadlines = Deadlines(base.store, base.clock, service.expire)
    run_creator = _run_creator(base, upstream, money, models, identities, lifetime, tracker, deadlines, ticket_secret)
    upstream_webhooks = UpstreamWebhooks(
        upstream.internal,
        tracker,
        base.clock,
        secret=await base.secret("upstream-webhooks"),
        base=live.predictions.value.upstream_webhook_base,
    )
    creates = CreateService(
        base.store,
        run_creator,
        tracker,
        access.policy,
        identities,
        deadlines,
        base.clock,
        metrics,
        ticket_secret=ticket_secret,
        ticket_ttl_seconds=live.predictions.value.ticket_ttl_seconds,
        adopt_wait_seconds=live.predictions.value.adopt_wait_seconds,
        pricing=money.pricing,
        limit_queue=money.limit_queue,
        money=metrics,
        webhook_of=upstream_webhooks.address,
    )
    base.stack.push_async_callback(lambda: creates.close(base.shutdown_deadline.left()))
    run_while_open(base.stack, deadlines.run(), "deadlines")
    metrics.read_on_scrape("waiters", lambda: {"sync": service.waiting, "create": run_creator.pending_creates.waiting})

    def apply(new: PredictionSettings) -> None:
        service.reconfigure(memory_bytes=new.memory_bytes)
        upstream_webhooks.reconfigure(base=new.upstream_webhook_base)
        run_creator.reconfigure(adopt_wait_seconds=new.adopt_wait_seconds)
        creates.reconfigure(adopt_wait_seconds=new.adopt_wait_seconds, ticket_ttl_seconds=new.ticket_ttl_seconds)

    live.predictions.subscribe(apply)
    return PredictionParts(lifetime, tracker, service, run_creator, creates, deadlines, upstream_webhooks)


def _identities(base: Base, models: ModelParts) -> IdentityService:
    sharing = base.live.sharing
    identities = IdentityService(
        models.schemas,
        models.versions,
        sharing.value.policy,
        share=sharing.value.share,
        ttl_seconds=sharing.value.ttl_seconds,
    )
    sharing.subscribe(lambda new: identities.reconfigure(new.policy, share=new.share, ttl_seconds=new.ttl_seconds))
    return identities


def _tracker(base: Base, upstream: UpstreamParts, money: MoneyParts, lifetime: ResultLifetime) -> Tracker:
    throttling = base.live.throttling
    tracker = Tracker(
        base.store,
        upstream.internal,
        base.clock,
        base.metrics,
        requests_per_minute=throttling.value.requests_per_minute,
        keep_until=lifetime.keep_until,
        settlement_of=money.pricing.settlement,
    )
    throttling.subscribe(lambda new: tracker.reconfigure(requests_per_minute=new.requests_per_minute))
    base.stack.push_async_callback(tracker.close)
    base.metrics.read_on_scrape("runs_followed", lambda: tracker.active)
    base.metrics.read_on_scrape("runs_active", tracker.active_by_team)
    return tracker


def _run_creator(
    base: Base,
    upstream: UpstreamParts,
    money: MoneyParts,
    models: ModelParts,
    identities: IdentityService,
    lifetime: ResultLifetime,
    tracker: Tracker,
    deadlines: Deadlines,
    ticket_secret: bytes,
) -> RunCreator:
    run_creator = RunCreator(
        base.store,
        upstream.client,
        tracker,
        identities,
        models.versions,
        deadlines,
        base.clock,
        base.metrics,
        base.metrics,
        ticket_secret=ticket_secret,
        adopt_wait_seconds=base.live.predictions.value.adopt_wait_seconds,
        keep_until=lifetime.keep_until,
        settlement_of=money.pricing.settlement,
        create_limiter=upstream.limiter,
        internal_upstream=upstream.internal,
    )
    base.stack.push_async_callback(lambda: run_creator.close(base.shutdown_deadline.left()))
    return run_creator
