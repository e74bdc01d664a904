"""Which part goes by which values of the config while it runs. First all that is given is worked out, then it is given.

What is not here is built at the start and stays: `config/changes.py` names it.
"""

from collections.abc import Callable

from gateway.assembly import settings
from gateway.assembly.parts import Parts
from gateway.config import Config


def prepare(parts: Parts, origin: str, config: Config) -> Callable[[], None]:
    """Work out what every part is to go by; return what gives it to them, without a pause in between.

    `origin` is the public listener's own address.
    """
    upstream, cache, streams, store = config.upstream, config.cache, config.streams, config.store
    teams = settings.teams_of(config)
    keys, allowances = settings.config_keys(config), settings.key_allowances(config)
    budget_webhooks = settings.budget_webhooks(config)
    edge = settings.edge_settings(config, teams)
    sharing, prices = settings.sharing_policy(config), settings.price_list(config)
    targets = settings.named_targets(config)
    dispatcher = settings.notifier_settings(config)
    transport = settings.webhook_transport(config, dispatcher)
    webhook_base = settings.webhook_base(config)
    token = upstream.token.get_secret_value()
    names = frozenset(team.name for team in teams)
    adopt_wait_seconds, heartbeat_seconds = float(upstream.adopt_wait_seconds), float(streams.heartbeat_seconds)
    requests_per_minute, retain_days = float(upstream.requests_per_minute), float(store.retain_days)

    def put() -> None:
        parts.settings.now = edge
        # Series of a team are there before anything is counted of it.
        parts.metrics.reconfigure(teams=sorted(names), top_targets=config.metrics.top_targets, targets=targets)
        for team in teams:
            parts.metrics.concurrency_limited(team.name, team.allowance.own.concurrent_predictions)
        parts.authenticator.reconfigure(teams, keys, allowances)
        parts.rates.reconfigure()
        parts.account.reconfigure(
            teams, creates_per_minute=float(upstream.creates_per_minute), requests_per_minute=requests_per_minute
        )
        parts.client.use_token(token)
        parts.tracker.reconfigure(requests_per_minute=requests_per_minute)
        parts.run_creator.reconfigure(adopt_wait_seconds=adopt_wait_seconds)
        parts.creates.reconfigure(
            adopt_wait_seconds=adopt_wait_seconds, ticket_ttl_seconds=float(streams.ticket_ttl_seconds)
        )
        parts.upstream_webhooks.reconfigure(base=webhook_base)
        parts.money.pricing.reconfigure(prices)
        parts.money.budgets.reconfigure(teams, budget_webhooks)
        parts.money.ledger_auditor.reconfigure(retain_days=retain_days)
        parts.identities.reconfigure(sharing, share=cache.share, ttl_seconds=float(cache.ttl_seconds))
        parts.predictions.reconfigure(memory_bytes=cache.memory_bytes)
        parts.metadata.reconfigure(ttl_seconds=float(cache.metadata_ttl_seconds), max_bytes=cache.metadata_max_bytes)
        parts.janitor.reconfigure(
            max_cache_bytes=cache.max_bytes,
            retain_data_seconds=float(store.retain_data_seconds),
            retain_days=retain_days,
        )
        parts.uploads.reconfigure(max_spool_bytes=config.server.max_spool_bytes)
        parts.hub.reconfigure(max_log_bytes=streams.max_log_bytes, kept_log_bytes=streams.kept_log_bytes)
        parts.streams.reconfigure(
            max_total=streams.max_total,
            max_per_team=streams.max_per_team,
            heartbeat_seconds=heartbeat_seconds,
            teams=names,
        )
        parts.probes.heartbeat_seconds = heartbeat_seconds
        parts.dispatcher.reconfigure(dispatcher, (edge.public_url or origin) + "/v1")
        parts.webhook_sender.reconfigure(transport)
        parts.recent_errors.reconfigure(team.name for team in teams)
        parts.dashboard.reconfigure(teams)
        parts.explain.reconfigure({key.id: key.name for key in keys})
        parts.sessions.reconfigure(edge.ops_token)

    return put
