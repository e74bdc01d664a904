"""Turns the config into the settings of each concept: plain values that know nothing of the config."""

from collections.abc import Mapping
from decimal import Decimal
from ipaddress import ip_network

from msgspec.structs import replace

from gateway.access.authentication import AccessSettings
from gateway.access.rules.issuers import ConsoleClient, Issuer, IssuerSettings, KeyLocation
from gateway.config import Config
from gateway.config.issuers import ConsoleSignIn
from gateway.config.issuers import Issuer as ConfigIssuer
from gateway.config.sections import ModelPrice
from gateway.config.teams import RunLimits, TeamKey, TeamLimits
from gateway.config.teams import Team as ConfigTeam
from gateway.domain import targets
from gateway.domain.body_limits import BodyLimits
from gateway.domain.limits import NO_LIMITS, UNLIMITED, Allowance, Limits
from gateway.domain.scopes import Scope
from gateway.domain.teams import Team, Teams
from gateway.domain.webhook_places import WebhookBounds
from gateway.files.rules.transfers import TransferSettings
from gateway.http.settings import HttpSettings
from gateway.metrics import MetricsSettings
from gateway.models.rules.aliases import parse_target
from gateway.money.rules import alerts, pricing
from gateway.money.settings import AlertSettings, MoneySettings
from gateway.operations.settings import AdminSettings
from gateway.predictions.settings import PredictionSettings
from gateway.sharing.rules import determinism, external_links
from gateway.sharing.settings import SharingSettings
from gateway.upstream.webhooks import TransportSettings
from gateway.webhooks.settings import WebhookSettings

_DAY = 86_400.0


def teams_of(config: Config) -> Teams:
    """Return the tenants."""
    return {team.name: _team(team, config.aliases_of(team.name)) for team in config.teams}


def _team(team: ConfigTeam, aliases: Mapping[str, str]) -> Team:
    found = Team(
        name=team.name,
        scopes=frozenset(Scope(scope) for scope in team.scopes),
        origins=team.browser_origins,
        listed_origins=team.origins,
        max_issued_keys=team.max_issued_keys,
        may_assert_deterministic=team.may_assert_deterministic,
        honor_cache_control=team.honor_cache_control,
        unbound_tokens=team.unbound_tokens,
        public_sees_team=team.public_sees == "team",
        public_webhooks=team.public_webhooks,
        allowance=_allowance(team),
        per_tag={name: _limits(limits) for name, limits in team.per_tag.items()},
        weight=team.weight,
        max_wait_seconds=team.max_wait_seconds,
        aliases={name: parse_target(target) for name, target in aliases.items()},
    )
    return replace(found, models=found.without_aliases(team.models or ("*",)))


def admin_settings(config: Config) -> AdminSettings:
    """Return what operators read of predictions."""
    return AdminSettings(
        max_searched=config.ops.max_searched,
        max_page_bytes=config.ops.max_page_bytes,
        max_data_bytes=config.ops.max_data_bytes,
        show_data=config.console.show_data,
    )


def access_settings(config: Config) -> AccessSettings:
    """Return the keys of the config, their limits, and the token of operators."""
    keys = [
        (record, _allowance(key))
        for team in config.teams
        for key, record in zip(team.keys, team.issued_keys(), strict=True)
    ]
    limited = [(record.id, allowance) for record, allowance in keys]
    limited += [
        (issuer.key_id(team), _allowance(given))
        for given, issuer in zip(config.issuers, issuer_settings(config).issuers, strict=True)
        for team in issuer.all_teams
    ]
    return AccessSettings(
        keys={record.id: record for record, _ in keys},
        allowances={key_id: allowance for key_id, allowance in limited if allowance != NO_LIMITS},
        ops_token=config.ops.token.get_secret_value() if config.ops.token else None,
    )


def issuer_settings(config: Config) -> IssuerSettings:
    """Return the issuers whose tokens are accepted."""
    return IssuerSettings(
        issuers=tuple(map(_issuer, config.issuers)),
        max_token_bytes=config.limits.max_token_bytes,
        max_cached_tokens=config.limits.max_cached_tokens,
    )


def _issuer(given: ConfigIssuer) -> Issuer:
    return Issuer(
        name=given.name,
        keys=KeyLocation(
            issuer=given.issuer,
            jwks_url=given.jwks_url,
            allow_private_addresses=given.allow_private_addresses,
            ttl_seconds=given.jwks_ttl_seconds,
            stale_seconds=given.jwks_stale_seconds,
            max_bytes=given.jwks_max_bytes,
            max_keys=given.jwks_max_keys,
        ),
        audiences=frozenset(given.audience),
        algorithms=frozenset(given.algorithms),
        team=given.team,
        team_claim=given.team_claim or "",
        teams=dict(given.teams),
        user_claim=given.user_claim,
        user_prefix=given.prefix,
        scope_claim=given.scope_claim,
        scopes=None if given.scopes is None else frozenset(given.scopes),
        models=given.models,
        origins=None if given.is_native else given.origins,
        is_native=given.is_native,
        leeway_seconds=given.leeway_seconds,
        console=None if given.console is None else _console_client(given.console),
    )


def _console_client(given: ConsoleSignIn) -> ConsoleClient:
    return ConsoleClient(
        client_id=given.client_id,
        client_secret=given.client_secret.get_secret_value() if given.client_secret else None,
        scopes=given.scopes,
        operator_claim=given.operator_claim,
        operators=frozenset(given.operators),
        lead_claim=given.lead_claim,
        leads=dict(given.leads),
    )


def _allowance(given: ConfigTeam | TeamKey | ConfigIssuer) -> Allowance:
    return Allowance(own=_limits(given), per_user=_limits(given.per_user), per_address=_limits(given.per_address))


def _limits(given: RunLimits | None) -> Limits:
    if given is None:
        return UNLIMITED
    return Limits(
        requests_per_minute=given.requests_per_minute if isinstance(given, TeamLimits) else None,
        predictions_per_minute=given.predictions_per_minute,
        burst=given.burst,
        concurrent_predictions=given.concurrent_predictions,
        seconds_per_day=given.seconds_per_day,
        seconds_per_month=given.seconds_per_month,
        microusd_per_day=given.budget_microusd_per_day,
        microusd_per_month=given.budget_microusd_per_month,
    )


def http_settings(config: Config, teams: Teams) -> HttpSettings:
    """Return the bounds of requests, and the origins that browsers may call from."""
    return HttpSettings(
        public_url=_public_url(config),
        ops_public_url=config.ops.public_url,
        trusted_proxies=tuple(ip_network(str(network)) for network in config.server.trusted_proxies),
        max_body_bytes=config.server.max_body_bytes,
        max_upload_bytes=config.server.max_upload_bytes,
        body_limits=BodyLimits(
            max_links=config.limits.max_links,
            max_keys=config.limits.max_keys,
            max_values=config.limits.max_values,
            max_depth=config.limits.max_depth,
            max_half_surrogates=config.limits.max_half_surrogates,
        ),
        max_bodies_bytes=config.limits.max_bodies_bytes,
        max_responses_bytes=config.limits.max_responses_bytes,
        max_page_bytes=config.limits.max_page_bytes,
        max_header_bytes=config.server.max_header_bytes,
        body_idle_seconds=config.server.body_idle_seconds,
        body_min_bytes_per_second=config.server.body_min_bytes_per_second,
        allow_http_webhooks=config.webhooks.allow_http,
        allow_private_webhooks=config.webhooks.allow_private_addresses,
        tag_keys=frozenset(config.tags.keys),
        origins=frozenset(origin for team in teams.values() for origin in team.origins),
        team_origins={team.name: team.origins for team in teams.values()},
    )


def _public_url(config: Config) -> str | None:
    return str(config.server.public_url or "").rstrip("/") or None


def metrics_settings(config: Config, teams: Teams) -> MetricsSettings:
    """Return the names that labels have from the start."""
    return MetricsSettings(
        teams=sorted(teams),
        top_targets=config.metrics.top_targets,
        targets=named_targets(config),
        issuers=[issuer.name for issuer in config.issuers],
        concurrent_predictions={team.name: team.allowance.own.concurrent_predictions for team in teams.values()},
    )


def named_targets(config: Config) -> list[str]:
    """Return the targets that the config names exactly, in its order."""
    allowed = [glob for team in teams_of(config).values() for glob in team.models]
    priced, ruled = [each.model for each in config.prices.models], [each.model for each in config.cache.rules]
    aliased = [parse_target(alias.target).model or "" for alias in config.aliases]
    return list(dict.fromkeys(targets.exact_models([*priced, *ruled, *allowed, *aliased])))


def sharing_settings(config: Config) -> SharingSettings:
    """Return the rules by which runs are shared."""
    rules = tuple(
        determinism.Rule(
            model=rule.model,
            mode=determinism.Mode(rule.mode),
            ttl_seconds=float(rule.ttl_seconds) if rule.ttl_seconds is not None else None,
            ignore_inputs=frozenset(rule.ignore_inputs),
            text_inputs=frozenset(rule.text_inputs),
        )
        for rule in config.cache.rules
    )
    policy = determinism.Policy(
        config.cache.enabled,
        rules,
        frozenset(config.cache.random_seeds),
        (*external_links.IMMUTABLE, *map(external_links.parse_pattern, config.cache.immutable_links)),
    )
    return SharingSettings(policy=policy, share=config.cache.share, ttl_seconds=float(config.cache.ttl_seconds))


def money_settings(config: Config) -> MoneySettings:
    """Return prices, the receivers of budget alerts, and the retention of the ledger."""
    prices = config.prices
    return MoneySettings(
        prices=pricing.PriceList(
            rules=tuple(pricing.Rule(each.model, _price(each)) for each in prices.models),
            unknown=pricing.UnknownPolicy(prices.unknown),
            default_hardware=prices.default_hardware,
            charge_failed=prices.charge_failed,
        ),
        alerts={
            team.name: AlertSettings(
                thresholds=team.budget_thresholds,
                url=team.budget_webhook,
                form=alerts.Format(team.budget_webhook_format),
            )
            for team in config.teams
        },
        retain_days=float(config.store.retain_days),
        max_tag_values=config.tags.max_values,
    )


def _price(given: ModelPrice) -> pricing.Price:
    if given.hardware is not None:
        return pricing.on_hardware(given.hardware)
    nothing = Decimal(0)
    return pricing.Price(
        per_second=given.usd_per_second or nothing,
        per_run=given.usd_per_run or nothing,
        per_output=given.usd_per_output or nothing,
        per_input_token=given.usd_per_input_token or nothing,
        per_output_token=given.usd_per_output_token or nothing,
    )


def prediction_settings(config: Config) -> PredictionSettings:
    """Return times and sizes of predictions."""
    public_url = _public_url(config)
    # Upstream calls https addresses only.
    can_call_back = config.upstream.webhooks == "auto" and public_url is not None and public_url.startswith("https://")
    return PredictionSettings(
        adopt_wait_seconds=float(config.upstream.adopt_wait_seconds),
        ticket_ttl_seconds=float(config.streams.ticket_ttl_seconds),
        memory_bytes=config.cache.memory_bytes,
        max_page_bytes=config.limits.max_page_bytes,
        followed_bytes=config.cache.followed_bytes,
        upstream_webhook_base=public_url if can_call_back else None,
        unreadable_seconds=float(config.upstream.unreadable_seconds),
        webhook_bounds=WebhookBounds(
            per_team=config.webhooks.max_queued,
            public=config.webhooks.max_queued_public,
            total=config.webhooks.max_queued_total,
        ),
    )


def transfer_settings(config: Config) -> TransferSettings:
    """Return the bounds of uploads and downloads."""
    given = config.transfers
    return TransferSettings(
        max_uploads=given.max_uploads,
        max_downloads=given.max_downloads,
        max_per_team=given.max_per_team,
        max_per_public_key=given.max_per_public_key,
    )


def webhook_settings(config: Config) -> WebhookSettings:
    """Return how hard the gateway tries to deliver webhooks."""
    return WebhookSettings(
        max_attempts=config.webhooks.max_attempts,
        max_queued=config.webhooks.max_queued,
        retain_dead_seconds=config.webhooks.retain_dead_days * _DAY,
        public_url=_public_url(config),
    )


def webhook_transport(config: Config, webhooks: WebhookSettings) -> TransportSettings:
    """Return where webhooks may go."""
    return TransportSettings(
        allow_private=config.webhooks.allow_private_addresses,
        allow_http=config.webhooks.allow_http,
        max_connections=webhooks.slots.total,
    )
