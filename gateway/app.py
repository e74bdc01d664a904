"""Where everything is built and put together: start reading here.

`running` opens every part in order of need and closes them in reverse. It is the only place that sees the whole
config; each part gets the values it needs.
"""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from secrets import token_bytes

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractResolver

from gateway import clock as clocks
from gateway import logs, outputs, settings
from gateway.config import Config
from gateway.core import windows
from gateway.core.request_rates import RequestRates
from gateway.core.teams import Team
from gateway.dashboard import assets as dashboard_assets
from gateway.dashboard.loading import load_renderer
from gateway.edge import (
    admission,
    config_state,
    dashboard,
    keys,
    middlewares,
    open_streams,
    ops,
    routes,
    stream_check,
    tracing,
)
from gateway.edge.doors import Door
from gateway.edge.open_pages import OPEN_PAGES, OpenPages
from gateway.edge.server import listen
from gateway.edge.settings import Current
from gateway.metrics import Metrics, loop_lag
from gateway.outbound.replicate import ReplicateClient, UpstreamSettings, new_session
from gateway.outbound.streams import StreamReader, StreamSettings
from gateway.outbound.webhooks import WebhookSender
from gateway.parts import Money, Parts
from gateway.ports import Clock, NoTracer, Store, Tracer
from gateway.reconfiguring import prepare
from gateway.reloading import Reloading
from gateway.service.account import Account, OwnCalls
from gateway.service.accounting import Accounting
from gateway.service.admission import Admission
from gateway.service.authentication import Authenticator
from gateway.service.bookkeeper import Bookkeeper
from gateway.service.budgets import Budgets
from gateway.service.creates import CreateService
from gateway.service.dashboard import DashboardService, Sources
from gateway.service.deadlines import Deadlines
from gateway.service.explain import ExplainService
from gateway.service.files import FileService
from gateway.service.health import Health
from gateway.service.holding import Holding
from gateway.service.identity import IdentityService
from gateway.service.janitor import Janitor
from gateway.service.leading import Leader
from gateway.service.metadata import MetadataService
from gateway.service.notifier import Notifier
from gateway.service.policy import Policy
from gateway.service.predictions import PredictionService
from gateway.service.pricing import Pricing
from gateway.service.run_clock import RunClock
from gateway.service.schemas import SchemaService
from gateway.service.sessions import Sessions
from gateway.service.stream_hub import StreamHub
from gateway.service.telling import DeliveryTeller
from gateway.service.tokens import TokenService
from gateway.service.tracker import Tracker
from gateway.service.troubles import Troubles
from gateway.service.uploads import UploadService
from gateway.service.upstream_webhooks import UpstreamWebhooks
from gateway.service.usage import UsageService
from gateway.service.versions import VersionMap
from gateway.service.webhook_secrets import WebhookSecrets
from gateway.stopping import Ending, Stop
from gateway.store.urls import open_store

logger = logging.getLogger(__name__)

_STREAM_CONNECTIONS = 20_000
_SECRET_BYTES = 32
# A webhook that is cut off is sent again by the next start; those who wait for answers come first.
_WEBHOOK_GRACE_SECONDS = 2.0


class Network(msgspec.Struct, frozen=True):
    """How receivers that callers name are found and trusted, where it is not as the system does."""

    resolver: AbstractResolver | None = None
    tls: ssl.SSLContext | None = None


class Running(msgspec.Struct, frozen=True):
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
    stop = Stop(float(config.server.shutdown_grace_seconds))
    stop.listen()
    async with running(config, reread=reread) as gateway, AsyncExitStack() as stack:
        assert gateway.reloading is not None
        _background(stack, gateway.reloading.on(stop.reload_asked), "reloads")
        if echo is not None:
            echo(f"replicate-gateway serves {gateway.base_url}; operators: {gateway.ops_url}")
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
    doors: Sequence[Door] = (),
    network: Network | None = None,
    tracer: Tracer | None = None,
    reread: Callable[[], Config] | None = None,
) -> AsyncIterator[Running]:
    """Build the gateway and serve within the context. `doors` are further open routes of the public listener.

    `network` says how callers' receivers are found and trusted, in place of the system's ways. `reread` finds the
    config anew, for reloads; it may block.

    Raise `StoreUnavailable` if the store cannot be had, `OSError` if a port cannot.
    """
    clock = clock or clocks.SystemClock()
    grace = float(config.server.shutdown_grace_seconds)
    ending = Ending(clock, grace)
    async with AsyncExitStack() as stack:
        tracer = tracer or await _opened_tracer(config, stack)
        store = await _opened_store(config, stack)
        parts = await _build(config, store, clock, network or Network(), stack, ending, tracer)
        await _resume(parts)
        public = _public_app(parts, tuple(doors))
        operators = _ops_app(parts)
        state = operators[config_state.CONFIG_STATE] = config_state.ConfigState(clock.now())
        await _add_dashboard(operators, parts)
        runner, ops_port = await listen(operators, config.ops.host, config.ops.port, grace_seconds=1.0)
        stack.push_async_callback(runner.cleanup)
        runner, port = await listen(
            public, config.server.host, config.server.port, grace_seconds=grace - config.server.drain_seconds
        )
        stack.push_async_callback(runner.cleanup)
        origin = _origin(config.server.host, port)
        parts.notifier.start((parts.settings.now.public_url or origin) + "/v1")
        stack.push_async_callback(lambda: parts.notifier.close(min(ending.left(), _WEBHOOK_GRACE_SECONDS)))
        # First of all at the end: nobody waits for what the others have to finish.
        stack.push_async_callback(_drain, parts, ending)
        logger.info("serving", extra={"port": port, "ops_port": ops_port})
        reloading = reread and Reloading(
            config, state, clock, parts.metrics, read=reread, prepare=partial(prepare, parts, origin)
        )
        yield Running(origin, _origin(config.ops.host, ops_port), partial(_retire, parts, ending), reloading)


async def _build_money(config: Config, teams: Sequence[Team], store: Store, clock: Clock, metrics: Metrics) -> Money:
    pricing = Pricing(settings.price_list(config), metrics)
    await pricing.load(store)
    budgets = Budgets(teams, settings.budget_webhooks(config), store, clock, metrics)
    admission = Admission(store, clock, metrics)
    admission.when_exhausted(budgets.exhausted)
    bookkeeper = Bookkeeper(store, store, pricing, budgets, clock, metrics, retain_days=float(config.store.retain_days))
    metrics.watch("waiters", lambda: {"limit": admission.waiting})
    metrics.watch(
        "budget_reset_timestamp_seconds", lambda: {each: windows.ends_at(each, clock.now()) for each in windows.Window}
    )
    for team in teams:
        metrics.concurrency_limited(team.name, team.allowance.own.concurrent_predictions)
    return Money(
        pricing=pricing,
        admission=admission,
        accounting=Accounting(store, pricing, budgets, admission, clock, metrics),
        budgets=budgets,
        bookkeeper=bookkeeper,
        usage=UsageService(store, clock),
    )


async def _opened_store(config: Config, stack: AsyncExitStack) -> Store:
    store = open_store(config.store.url)
    await store.open()
    stack.push_async_callback(store.close)
    await store.claim()
    return store


def _background(stack: AsyncExitStack, work: Coroutine[None, None, None], name: str) -> None:
    """Do work for as long as the gateway runs."""
    task = asyncio.create_task(work, name=name)

    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


async def _opened_tracer(config: Config, stack: AsyncExitStack) -> Tracer:
    if not config.tracing.enabled:
        return NoTracer()
    # The extra `otel` is loaded by those who want it.
    from gateway.tracing import OtelTracer  # noqa: PLC0415

    tracer = await asyncio.to_thread(OtelTracer, propagate=config.tracing.propagate)
    stack.push_async_callback(tracer.close)
    return tracer


async def _build(
    config: Config,
    store: Store,
    clock: Clock,
    network: Network,
    stack: AsyncExitStack,
    ending: Ending,
    tracer: Tracer,
) -> Parts:
    teams = settings.teams_of(config)
    metrics = _metrics(config, store, stack)
    upstream = UpstreamSettings(base_url=str(config.upstream.base_url))
    session = await stack.enter_async_context(new_session(upstream.max_connections))
    account = _account(config, teams, clock, metrics, stack)
    client = ReplicateClient(
        session, config.upstream.token.get_secret_value(), upstream, clock, metrics, pacer=account, tracer=tracer
    )
    own_calls = OwnCalls(client)
    stream_session = await stack.enter_async_context(new_session(_STREAM_CONNECTIONS))
    reader = StreamReader(
        stream_session,
        StreamSettings(base_url=upstream.base_url, trusted_hosts=tuple(config.upstream.trusted_hosts)),
        metrics,
    )
    tokens = TokenService(await store.secret("browser-tokens", token_bytes(_SECRET_BYTES)), clock)
    money = await _build_money(config, teams, store, clock, metrics)
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
        copies_ttl_seconds=float(config.outputs.ttl_seconds),
    )
    output_store = await outputs.open_outputs(config, store, clock, stack)
    tracker = Tracker(
        store,
        own_calls,
        clock,
        metrics,
        requests_per_minute=float(config.upstream.requests_per_minute),
        keep_until=identities.keep_until,
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
    tracker.when_ended(RunClock(metrics).note_end)
    troubles = Troubles([team.name for team in teams], clock, max_age_seconds=float(config.store.retain_data_seconds))
    tracker.when_ended(troubles.note_end)
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
    predictions.when_left(lambda sight: hub.look(sight.run.id))
    _background(stack, hub.keeper.run(), "event logs")
    opened = open_streams.OpenStreams(
        clock,
        metrics,
        max_total=config.streams.max_total,
        max_per_team=config.streams.max_per_team,
        heartbeat_seconds=float(config.streams.heartbeat_seconds),
        teams=frozenset(team.name for team in teams),
    )
    _background(stack, opened.watch(), "heartbeats")
    metrics.sse_streams.labels("upstream").set_function(lambda: hub.live)
    metrics.watch("kept_log_bytes", lambda: hub.kept_bytes)
    metrics.watch("unkept_logs", lambda: hub.keeper.unkept)
    upstream_webhooks = UpstreamWebhooks(
        own_calls,
        tracker,
        clock,
        secret=await store.secret("upstream-webhooks", token_bytes(_SECRET_BYTES)),
        base=settings.webhook_base(config),
    )
    deadlines = Deadlines(store, clock, predictions.expire)
    leader = Leader(
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
        settlement_of=money.pricing.settlement,
        turns=account,
        own_upstream=own_calls,
    )
    stack.push_async_callback(lambda: leader.close(ending.left()))
    creates = CreateService(
        store,
        leader,
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
        admission=money.admission,
        money=metrics,
        webhook_of=upstream_webhooks.address,
    )
    stack.push_async_callback(lambda: creates.close(ending.left()))
    _background(stack, deadlines.run(), "deadlines")
    secrets = WebhookSecrets(store, clock)
    sender = _webhook_sender(config, clock, network, stack)
    notifier = _notifier(config, store, secrets, sender, clock, metrics, tracker, predictions)
    money.budgets.announce_through(notifier)
    await money.bookkeeper.start()
    _background(stack, money.budgets.run(), "budgets")
    _background(stack, money.bookkeeper.run(), "bookkeeper")
    tracker.when_changed(notifier.note_changed)
    tracker.when_ended(notifier.note_ended)
    predictions.when_left(notifier.note_left)
    leader.when_created(notifier.note_created)
    files = FileService(store, client, clock)
    stack.push_async_callback(files.close)
    uploads = UploadService(store, client, clock, metrics, max_spool_bytes=config.server.max_spool_bytes)
    stack.push_async_callback(uploads.close)
    metrics.watch("upload_spool_bytes", lambda: uploads.spooled_bytes)
    metadata = MetadataService(
        client,
        clock,
        ttl_seconds=float(config.cache.metadata_ttl_seconds),
        max_bytes=config.cache.metadata_max_bytes,
        on_lookup=metrics.metadata_looked_up,
    )
    stack.push_async_callback(metadata.close)

    def forget() -> None:
        predictions.forget_ended()
        hub.forget()

    copies = None
    if output_store is not None:
        copies = await outputs.build_outputs(
            config, output_store, store, clock, metrics, identities, predictions, hub, stack
        )
        _background(stack, copies.keeper.run(), "outputs")
        if copies.copier is not None:
            tracker.when_ended(copies.copier.note_end)
            _background(stack, copies.copier.run(), "copies")
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
    _background(stack, janitor.run(), "janitor")
    probes = stream_check.Probes(heartbeat_seconds=float(config.streams.heartbeat_seconds))
    metrics.sse_streams.labels("check").set_function(lambda: probes.open)
    metrics.watch("log_lines_dropped", logs.dropped)
    metrics.watch("runs_followed", lambda: tracker.active)
    metrics.watch("runs_active", tracker.active_by_team)
    metrics.watch("waiters", lambda: {"sync": predictions.waiting, "create": leader.flights.waiting})
    metrics.watch("shown_bytes", lambda: predictions.shown_bytes)
    metrics.watch("metadata_cache_bytes", lambda: metadata.size)
    metrics.watch("upstream_breaker_state", lambda: client.breaker.state(clock.monotonic()))
    holding = _holding(clock, metrics)
    sources = Sources(
        runs=lambda: tracker.followed,
        waiting=lambda team: money.admission.waiting_of(team) + holding.count(team),
        streams=opened.count,
    )
    edge = settings.edge_settings(config, teams)
    sessions_secret = await store.secret("dashboard-sessions", token_bytes(_SECRET_BYTES))
    return Parts(
        settings=Current(edge),
        store=store,
        clock=clock,
        metrics=metrics,
        tracer=tracer,
        troubles=troubles,
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
            tellers=[DeliveryTeller(store)],
        ),
        leader=leader,
        deadlines=deadlines,
        upstream_webhooks=upstream_webhooks,
        files=files,
        uploads=uploads,
        metadata=metadata,
        outputs=copies.service if copies is not None else None,
        policy=policy,
        versions=versions,
        secrets=secrets,
        notifier=notifier,
        webhook_sender=sender,
        janitor=janitor,
        health=Health(store, own_calls, clock, lambda: client.token_refused_at is not None),
        streams=opened,
        probes=probes,
        account=account,
        rates=_request_rates(metrics),
        holding=holding,
        dashboard=DashboardService(teams, store, metrics, troubles, sources, clock),
        sessions=Sessions(sessions_secret, edge.ops_token, authenticator, clock),
    )


def _webhook_sender(config: Config, clock: Clock, network: Network, stack: AsyncExitStack) -> WebhookSender:
    wanted = settings.webhook_transport(config, settings.notifier_settings(config))
    sender = WebhookSender(wanted, clock, resolver=network.resolver, tls=network.tls)
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
) -> Notifier:
    """Build what delivers callers' webhooks. It begins to send when the listeners are open."""
    return Notifier(
        store,
        secrets,
        transport,
        clock,
        metrics,
        settings=settings.notifier_settings(config),
        is_followed=lambda run_id: tracker.watch(run_id) is not None,
        show=predictions.show,
        random_bytes=token_bytes,
    )


def _account(config: Config, teams: Sequence[Team], clock: Clock, metrics: Metrics, stack: AsyncExitStack) -> Account:
    account = Account(
        teams,
        clock,
        metrics,
        creates_per_minute=float(config.upstream.creates_per_minute),
        requests_per_minute=float(config.upstream.requests_per_minute),
    )
    _background(stack, account.run(), "account")
    creates, requests = account.creates, account.requests
    metrics.watch("waiters", lambda: {"account": len(creates), "call": len(requests)})
    metrics.watch(
        "account_rate_per_minute",
        lambda: {"creates": creates.rate.rate.per_minute, "requests": requests.rate.rate.per_minute},
    )
    return account


def _holding(clock: Clock, metrics: Metrics) -> Holding:
    holding = Holding(clock, metrics)
    metrics.watch("waiters", lambda: {"rate": len(holding)})
    return holding


def _request_rates(metrics: Metrics) -> RequestRates:
    rates = RequestRates()
    metrics.watch("rate_subjects_kept", lambda: rates.kept)
    metrics.watch("rate_subjects_dropped", lambda: rates.dropped)
    return rates


def _metrics(config: Config, store: Store, stack: AsyncExitStack) -> Metrics:
    metrics = Metrics(
        teams=[team.name for team in config.teams],
        top_targets=config.metrics.top_targets,
        targets=settings.named_targets(config),
        routes=[door.name for door in (*routes.PUBLIC, *routes.OWN)],
    )
    store.watched_by(metrics)
    metrics.watch("store_pending", lambda: store.pending)
    _background(stack, loop_lag.sample(metrics.loop_lagged), "loop lag")
    return metrics


def _public_app(parts: Parts, doors: tuple[Door, ...]) -> web.Application:
    outermost = () if isinstance(parts.tracer, NoTracer) else (tracing.trace,)
    app = web.Application(middlewares=[*outermost, middlewares.observe, middlewares.problems, middlewares.authenticate])
    _share(app, parts)
    app.on_response_prepare.append(middlewares.add_common_headers)
    app.on_shutdown.append(_end_streams)
    routes.add_doors(app, doors)
    return app


def _ops_app(parts: Parts) -> web.Application:
    app = web.Application(middlewares=[ops.guard])
    _share(app, parts)
    ops.add_routes(app)
    return app


async def _add_dashboard(app: web.Application, parts: Parts) -> None:
    """Give the ops listener its usage page."""
    app[keys.BOARDS] = parts.dashboard
    app[keys.SESSIONS] = parts.sessions
    app[dashboard.RENDERER] = await asyncio.to_thread(load_renderer)
    app[dashboard.ASSETS] = await asyncio.to_thread(dashboard_assets.load)
    pages = app[OPEN_PAGES] = OpenPages()
    parts.metrics.watch("dashboard_streams", lambda: pages.count)


def _share(app: web.Application, parts: Parts) -> None:
    app[keys.SETTINGS] = parts.settings
    app[keys.STORE] = parts.store
    app[keys.CLOCK] = parts.clock
    app[keys.METRICS] = parts.metrics
    app[keys.TRACER] = parts.tracer
    app[keys.TROUBLES] = parts.troubles
    app[keys.UPSTREAM] = parts.client
    app[keys.HUB] = parts.hub
    app[keys.AUTHENTICATOR] = parts.authenticator
    app[keys.TOKENS] = parts.tokens
    app[keys.PREDICTIONS] = parts.predictions
    app[keys.CREATES] = parts.creates
    app[keys.USAGE] = parts.money.usage
    app[keys.UPSTREAM_WEBHOOKS] = parts.upstream_webhooks
    app[keys.EXPLAIN] = parts.explain
    app[keys.FILES] = parts.files
    app[keys.UPLOADS] = parts.uploads
    app[keys.METADATA] = parts.metadata
    if parts.outputs is not None:
        app[keys.OUTPUTS] = parts.outputs
    app[keys.POLICY] = parts.policy
    app[keys.VERSIONS] = parts.versions
    app[keys.WEBHOOK_SECRETS] = parts.secrets
    app[keys.HEALTH] = parts.health
    app[keys.ACCOUNT] = parts.account
    app[admission.RATES] = parts.rates
    app[admission.HOLDING] = parts.holding
    app[open_streams.OPEN_STREAMS] = parts.streams
    app[stream_check.PROBES] = parts.probes


async def _resume(parts: Parts) -> None:
    """Take up what an earlier process left: runs to follow, creates to look for, deadlines to keep."""
    webhooks = await parts.notifier.resume()
    orphans = await parts.leader.adopter.resume()
    runs = await parts.tracker.resume()
    await parts.deadlines.resume()
    logger.info("resumed", extra={"runs": runs, "uncertain_creates": orphans, "webhooks": webhooks})


async def _end_streams(app: web.Application) -> None:
    await app[open_streams.OPEN_STREAMS].end()
    app[stream_check.PROBES].end()


def _retire(parts: Parts, ending: Ending) -> None:
    """Say that no more should come."""
    ending.begin()
    parts.health.draining = True


async def _drain(parts: Parts, ending: Ending) -> None:
    """Answer those who wait and say that no more should come, before the listeners close."""
    _retire(parts, ending)
    parts.money.admission.close()
    parts.account.close()
    await parts.holding.close()
    await parts.predictions.drain()


def _origin(host: str, port: int) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"
