"""Where every part is built, in order of need, and told of the others.

It is the only place that sees the whole config; each part gets the values it needs.
"""

import asyncio
import logging
import ssl
from contextlib import AsyncExitStack
from secrets import token_bytes

import msgspec
from aiohttp.abc import AbstractResolver

from gateway import logs
from gateway.access.authentication import Authenticator
from gateway.access.browser_tokens import TokenService
from gateway.access.policy import Policy
from gateway.access.sessions import Sessions
from gateway.assembly import outputs, settings
from gateway.assembly.background import background
from gateway.assembly.health import build_health
from gateway.assembly.limits import build_account, build_holding, build_money, build_request_rates
from gateway.assembly.parts import Parts
from gateway.assembly.shutdown import ShutdownDeadline
from gateway.config import Config
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.tracing import NoTracer, Tracer
from gateway.files.files import FileService
from gateway.files.uploads import UploadService
from gateway.http import routes
from gateway.http.handlers import stream_check
from gateway.http.settings import LiveSettings
from gateway.http.sse import registry
from gateway.metrics import Metrics, loop_lag
from gateway.models.metadata import MetadataService
from gateway.models.schemas import SchemaService
from gateway.models.versions import VersionMap
from gateway.operations.dashboard import DashboardService, Sources
from gateway.operations.delivery_history import DeliveryHistory
from gateway.operations.explain import ExplainService
from gateway.operations.janitor import Janitor
from gateway.operations.recent_errors import RecentErrors
from gateway.operations.run_timing import RunTimings
from gateway.outputs.lifetime import ResultLifetime
from gateway.predictions.create import CreateService
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.queries import PredictionService
from gateway.predictions.run_creator import RunCreator
from gateway.predictions.tracker import Tracker
from gateway.predictions.upstream_webhooks import UpstreamWebhooks
from gateway.sharing.identity import IdentityService
from gateway.store.interface import Store
from gateway.store.urls import open_store
from gateway.streams.hub import StreamHub
from gateway.throttling.upstream_limiter import InternalUpstream
from gateway.upstream.replicate import ReplicateClient, UpstreamSettings, new_session
from gateway.upstream.streams import StreamReader, StreamSettings
from gateway.upstream.webhooks import WebhookSender
from gateway.webhooks.dispatcher import WebhookDispatcher
from gateway.webhooks.secrets import WebhookSecrets

logger = logging.getLogger(__name__)

_STREAM_CONNECTIONS = 20_000
_SECRET_BYTES = 32


class ReceiverNetwork(msgspec.Struct, frozen=True):
    """How receivers that callers name are found and trusted, where it is not as the system does."""

    resolver: AbstractResolver | None = None
    tls: ssl.SSLContext | None = None


async def build(
    config: Config,
    store: Store,
    clock: Clock,
    receiver_network: ReceiverNetwork,
    stack: AsyncExitStack,
    shutdown_deadline: ShutdownDeadline,
    tracer: Tracer,
) -> Parts:
    """Build every part. What it opens is closed by `stack`, in reverse."""
    teams = settings.teams_of(config)
    metrics = _metrics(config, store, stack)
    upstream = UpstreamSettings(base_url=str(config.upstream.base_url))
    session = await stack.enter_async_context(new_session(upstream.max_connections))
    account = build_account(config, teams, clock, metrics, stack)
    client = ReplicateClient(
        session, config.upstream.token.get_secret_value(), upstream, clock, metrics, call_limiter=account, tracer=tracer
    )
    internal_upstream = InternalUpstream(client)
    stream_session = await stack.enter_async_context(new_session(_STREAM_CONNECTIONS))
    reader = StreamReader(
        stream_session,
        StreamSettings(base_url=upstream.base_url, trusted_hosts=tuple(config.upstream.trusted_hosts)),
        metrics,
    )
    tokens = TokenService(await store.secret("browser-tokens", token_bytes(_SECRET_BYTES)), clock)
    money = await build_money(config, teams, store, clock, metrics)
    authenticator = Authenticator(
        teams, settings.config_keys(config), store, tokens, clock, allowances=settings.key_allowances(config)
    )
    versions = VersionMap(store, client)
    policy = Policy(versions, store, clock, upstream.base_url)
    schemas = SchemaService(client, clock)
    stack.push_async_callback(schemas.close)
    identities = IdentityService(
        schemas,
        versions,
        settings.sharing_policy(config),
        share=config.cache.share,
        ttl_seconds=float(config.cache.ttl_seconds),
    )
    lifetime = ResultLifetime(identities.ttl_of, copies_ttl_seconds=float(config.outputs.ttl_seconds))
    output_store = await outputs.open_outputs(config, store, clock, stack)
    tracker = Tracker(
        store,
        internal_upstream,
        clock,
        metrics,
        requests_per_minute=float(config.upstream.requests_per_minute),
        keep_until=lifetime.keep_until,
        settlement_of=money.pricing.settlement,
    )
    stack.push_async_callback(tracker.close)
    ticket_secret = await store.secret("stream-tickets", token_bytes(_SECRET_BYTES))
    predictions = PredictionService(
        store,
        tracker,
        clock,
        metrics,
        ticket_secret=ticket_secret,
        memory_bytes=config.cache.memory_bytes,
        output_links=output_store.links if output_store is not None else None,
    )
    tracker.when_ended(predictions.note_end)
    tracker.when_ended(money.accounting.note_end)
    tracker.when_ended(RunTimings(metrics).note_end)
    recent_errors = RecentErrors(
        [team.name for team in teams], clock, max_age_seconds=float(config.store.retain_data_seconds)
    )
    tracker.when_ended(recent_errors.note_end)
    stack.push_async_callback(predictions.close)
    hub = StreamHub(
        reader,
        tracker,
        store,
        clock,
        metrics,
        max_log_bytes=config.streams.max_log_bytes,
        kept_log_bytes=config.streams.kept_log_bytes,
    )
    stack.push_async_callback(hub.close)
    predictions.when_left(lambda view: hub.check_canceled(view.run.id))
    background(stack, hub.log_writer.run(), "event logs")
    opened = registry.OpenStreams(
        clock,
        metrics,
        max_total=config.streams.max_total,
        max_per_team=config.streams.max_per_team,
        heartbeat_seconds=float(config.streams.heartbeat_seconds),
        teams=frozenset(team.name for team in teams),
    )
    background(stack, opened.watch(), "heartbeats")
    metrics.sse_streams.labels("upstream").set_function(lambda: hub.live)
    metrics.read_on_scrape("kept_log_bytes", lambda: hub.kept_bytes)
    metrics.read_on_scrape("unkept_logs", lambda: hub.log_writer.dirty)
    upstream_webhooks = UpstreamWebhooks(
        internal_upstream,
        tracker,
        clock,
        secret=await store.secret("upstream-webhooks", token_bytes(_SECRET_BYTES)),
        base=settings.webhook_base(config),
    )
    deadlines = Deadlines(store, clock, predictions.expire)
    run_creator = RunCreator(
        store,
        client,
        tracker,
        identities,
        versions,
        deadlines,
        clock,
        metrics,
        metrics,
        ticket_secret=ticket_secret,
        adopt_wait_seconds=float(config.upstream.adopt_wait_seconds),
        keep_until=lifetime.keep_until,
        settlement_of=money.pricing.settlement,
        create_limiter=account,
        internal_upstream=internal_upstream,
    )
    stack.push_async_callback(lambda: run_creator.close(shutdown_deadline.left()))
    creates = CreateService(
        store,
        run_creator,
        tracker,
        policy,
        identities,
        deadlines,
        clock,
        metrics,
        ticket_secret=ticket_secret,
        ticket_ttl_seconds=float(config.streams.ticket_ttl_seconds),
        adopt_wait_seconds=float(config.upstream.adopt_wait_seconds),
        pricing=money.pricing,
        limit_queue=money.limit_queue,
        money=metrics,
        webhook_of=upstream_webhooks.address,
    )
    stack.push_async_callback(lambda: creates.close(shutdown_deadline.left()))
    background(stack, deadlines.run(), "deadlines")
    secrets = WebhookSecrets(store, clock)
    sender = _webhook_sender(config, clock, receiver_network, stack)
    dispatcher = _notifier(config, store, secrets, sender, clock, metrics, tracker, predictions)
    money.budgets.announce_through(dispatcher)
    await money.ledger_auditor.start()
    background(stack, money.budgets.run(), "budgets")
    background(stack, money.ledger_auditor.run(), "bookkeeper")
    tracker.when_changed(dispatcher.note_changed)
    tracker.when_ended(dispatcher.note_ended)
    predictions.when_left(dispatcher.note_left)
    run_creator.when_created(dispatcher.note_created)
    files = FileService(store, client, clock)
    stack.push_async_callback(files.close)
    uploads = UploadService(store, client, clock, metrics, max_spool_bytes=config.server.max_spool_bytes)
    stack.push_async_callback(uploads.close)
    metrics.read_on_scrape("upload_spool_bytes", lambda: uploads.spooled_bytes)
    metadata = MetadataService(
        client,
        clock,
        ttl_seconds=float(config.cache.metadata_ttl_seconds),
        max_bytes=config.cache.metadata_max_bytes,
        on_lookup=metrics.metadata_lookup,
    )
    stack.push_async_callback(metadata.close)

    def forget() -> None:
        predictions.forget_ended()
        hub.forget()

    copies = None
    if output_store is not None:
        copies = await outputs.build_outputs(
            config, output_store, store, clock, metrics, lifetime, predictions, hub, stack
        )
        background(stack, copies.keeper.run(), "outputs")
        if copies.copier is not None:
            tracker.when_ended(copies.copier.note_end)
            background(stack, copies.copier.run(), "copies")
    janitor = Janitor(
        store,
        store,
        clock,
        max_cache_bytes=config.cache.max_bytes,
        retain_data_seconds=float(config.store.retain_data_seconds),
        retain_days=float(config.store.retain_days),
        on_cleared=forget,
        observer=metrics,
    )
    background(stack, janitor.run(), "janitor")
    probes = stream_check.Probes(heartbeat_seconds=float(config.streams.heartbeat_seconds))
    metrics.sse_streams.labels("check").set_function(lambda: probes.open)
    metrics.read_on_scrape("log_lines_dropped", logs.dropped)
    metrics.read_on_scrape("runs_followed", lambda: tracker.active)
    metrics.read_on_scrape("runs_active", tracker.active_by_team)
    metrics.read_on_scrape(
        "waiters", lambda: {"sync": predictions.waiting, "create": run_creator.pending_creates.waiting}
    )
    metrics.read_on_scrape("shown_bytes", lambda: predictions.shown_bytes)
    metrics.read_on_scrape("metadata_cache_bytes", lambda: metadata.size)
    metrics.read_on_scrape("upstream_breaker_state", lambda: client.breaker.state(clock.monotonic()))
    hold_queue = build_holding(clock, metrics)
    sources = Sources(
        runs=lambda: tracker.followed,
        waiting=lambda team: money.limit_queue.waiting_of(team) + hold_queue.count(team),
        streams=opened.count,
    )
    edge = settings.edge_settings(config, teams)
    sessions_secret = await store.secret("dashboard-sessions", token_bytes(_SECRET_BYTES))
    return Parts(
        settings=LiveSettings(edge),
        store=store,
        clock=clock,
        metrics=metrics,
        tracer=tracer,
        recent_errors=recent_errors,
        client=client,
        hub=hub,
        authenticator=authenticator,
        tokens=tokens,
        tracker=tracker,
        identities=identities,
        predictions=predictions,
        creates=creates,
        money=money,
        explain=ExplainService(
            predictions,
            store,
            store,
            store,
            money.pricing,
            config_keys={key.id: key.name for key in settings.config_keys(config)},
            sources=[DeliveryHistory(store)],
        ),
        run_creator=run_creator,
        deadlines=deadlines,
        upstream_webhooks=upstream_webhooks,
        files=files,
        uploads=uploads,
        metadata=metadata,
        outputs=copies.service if copies is not None else None,
        policy=policy,
        versions=versions,
        secrets=secrets,
        dispatcher=dispatcher,
        webhook_sender=sender,
        janitor=janitor,
        health=build_health(store, internal_upstream, client, clock, metrics, stack),
        streams=opened,
        probes=probes,
        account=account,
        rates=build_request_rates(metrics),
        hold_queue=hold_queue,
        dashboard=DashboardService(teams, store, metrics, recent_errors, sources, clock),
        sessions=Sessions(sessions_secret, edge.ops_token, authenticator, clock),
    )


async def opened_store(config: Config, stack: AsyncExitStack) -> Store:
    """Open and claim the store that the config names. Raise `StoreUnavailable`."""
    store = open_store(config.store.url)
    is_new = await store.open()
    stack.push_async_callback(store.close)
    await store.claim()
    if is_new:
        # Expected at the first start only: at any other, this is an empty ledger in place of the right one.
        logger.info("created a new store", extra={"url": config.store.url})
    return store


async def opened_tracer(config: Config, stack: AsyncExitStack) -> Tracer:
    """Open what traces are sent to; nothing where they are not wanted."""
    if not config.tracing.enabled:
        return NoTracer()
    # The extra `otel` is loaded by those who want it.
    from gateway.tracing import OtelTracer  # noqa: PLC0415

    tracer = await asyncio.to_thread(OtelTracer, propagate=config.tracing.propagate)
    stack.push_async_callback(tracer.close)
    return tracer


def _webhook_sender(
    config: Config, clock: Clock, receiver_network: ReceiverNetwork, stack: AsyncExitStack
) -> WebhookSender:
    wanted = settings.webhook_transport(config, settings.notifier_settings(config))
    sender = WebhookSender(wanted, clock, resolver=receiver_network.resolver, tls=receiver_network.tls)
    stack.push_async_callback(sender.close)
    return sender


def _notifier(
    config: Config,
    store: Store,
    secrets: WebhookSecrets,
    transport: WebhookSender,
    clock: Clock,
    metrics: Metrics,
    tracker: Tracker,
    predictions: PredictionService,
) -> WebhookDispatcher:
    """Build what delivers callers' webhooks. It begins to send when the listeners are open."""
    return WebhookDispatcher(
        store,
        secrets,
        transport,
        clock,
        metrics,
        settings=settings.notifier_settings(config),
        is_followed=lambda run_id: tracker.tracked(run_id) is not None,
        show=predictions.show,
        random_bytes=token_bytes,
    )


def _metrics(config: Config, store: Store, stack: AsyncExitStack) -> Metrics:
    metrics = Metrics(
        teams=[team.name for team in config.teams],
        top_targets=config.metrics.top_targets,
        targets=settings.named_targets(config),
        routes=[route.name for route in (*routes.PUBLIC, *routes.OWN)],
    )
    store.set_observer(metrics)
    metrics.read_on_scrape("store_pending", lambda: store.pending)
    background(stack, loop_lag.sample(metrics.loop_lagged), "loop lag")
    return metrics
