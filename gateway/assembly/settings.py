"""From the config to the values that each part is given. The config itself goes no further than here and `app.py`."""

from collections.abc import Sequence
from decimal import Decimal
from ipaddress import ip_network

from gateway.config import Config
from gateway.config.sections import ModelPrice
from gateway.config.teams import Limits as ConfigLimits
from gateway.config.teams import Team as ConfigTeam
from gateway.config.teams import TeamKey
from gateway.domain import targets
from gateway.domain.limits import NO_LIMITS, UNLIMITED, Allowance, Limits
from gateway.domain.records import Key
from gateway.domain.scopes import Scope
from gateway.domain.teams import Team
from gateway.http.settings import EdgeSettings
from gateway.money.rules import pricing
from gateway.sharing.rules import determinism
from gateway.upstream.webhooks import TransportSettings
from gateway.webhooks.dispatcher import NotifierSettings

_DAY = 86_400.0


def teams_of(config: Config) -> list[Team]:
    """Return the tenants."""
    return [
        Team(
            name=team.name,
            scopes=frozenset(Scope(scope) for scope in team.scopes),
            models=team.models or ("*",),
            origins=team.browser_origins,
            may_assert_deterministic=team.may_assert_deterministic,
            honor_cache_control=team.honor_cache_control,
            allowance=_allowance(team),
            weight=team.weight,
            max_wait_seconds=team.max_wait_seconds,
        )
        for team in config.teams
    ]


def key_allowances(config: Config) -> dict[str, Allowance]:
    """Return what the config's keys are given, by their lasting ids; those without limits are left out."""
    given = {
        record.id: _allowance(key)
        for team in config.teams
        for key, record in zip(team.keys, team.issued_keys(), strict=True)
    }
    return {key_id: allowance for key_id, allowance in given.items() if allowance != NO_LIMITS}


def _allowance(given: ConfigTeam | TeamKey) -> Allowance:
    return Allowance(own=_limits(given), per_user=_limits(given.per_user), per_address=_limits(given.per_address))


def _limits(given: ConfigLimits | None) -> Limits:
    if given is None:
        return UNLIMITED
    return Limits(
        requests_per_minute=given.requests_per_minute,
        predictions_per_minute=given.predictions_per_minute,
        burst=given.burst,
        concurrent_predictions=given.concurrent_predictions,
        seconds_per_day=given.seconds_per_day,
        seconds_per_month=given.seconds_per_month,
        microusd_per_day=given.budget_microusd_per_day,
        microusd_per_month=given.budget_microusd_per_month,
    )


def edge_settings(config: Config, teams: Sequence[Team]) -> EdgeSettings:
    """Return what the edge needs."""
    public_url = config.server.public_url
    return EdgeSettings(
        public_url=str(public_url).rstrip("/") if public_url else None,
        upstream_base=str(config.upstream.base_url),
        trusted_proxies=tuple(ip_network(str(network)) for network in config.server.trusted_proxies),
        max_body_bytes=config.server.max_body_bytes,
        max_upload_bytes=config.server.max_upload_bytes,
        allow_http_webhooks=config.webhooks.allow_http,
        allow_private_webhooks=config.webhooks.allow_private_addresses,
        origins=frozenset(origin for team in teams for origin in team.origins),
        ops_token=config.ops.token.get_secret_value() if config.ops.token else None,
        team_origins={team.name: team.origins for team in teams},
    )


def named_targets(config: Config) -> list[str]:
    """Return the targets that the config names exactly, in its order."""
    allowed = [glob for team in config.teams for glob in team.models or ()]
    priced, ruled = [each.model for each in config.prices.models], [each.model for each in config.cache.rules]
    return list(dict.fromkeys(targets.exact_models([*priced, *ruled, *allowed])))


def config_keys(config: Config) -> list[Key]:
    """Return the keys that the config gives."""
    return [key for team in config.teams for key in team.issued_keys()]


def budget_webhooks(config: Config) -> dict[str, str]:
    """Return who is told of each team's budgets."""
    return {team.name: team.budget_webhook for team in config.teams if team.budget_webhook is not None}


def sharing_policy(config: Config) -> determinism.Policy:
    """Return the rules by which runs are shared."""
    rules = tuple(
        determinism.Rule(
            model=rule.model,
            mode=determinism.Mode(rule.mode),
            ttl_seconds=float(rule.ttl_seconds) if rule.ttl_seconds is not None else None,
            ignore_inputs=frozenset(rule.ignore_inputs),
        )
        for rule in config.cache.rules
    )
    return determinism.Policy(config.cache.enabled, rules, frozenset(config.cache.random_seeds))


def price_list(config: Config) -> pricing.PriceList:
    """Return what everything costs."""
    prices = config.prices
    return pricing.PriceList(
        rules=tuple(pricing.Rule(each.model, _price(each)) for each in prices.models),
        unknown=pricing.UnknownPolicy(prices.unknown),
        default_hardware=prices.default_hardware,
        charge_failed=prices.charge_failed,
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


def notifier_settings(config: Config) -> NotifierSettings:
    """Return how hard it is tried to deliver webhooks."""
    return NotifierSettings(
        max_attempts=config.webhooks.max_attempts,
        max_queued=config.webhooks.max_queued,
        retain_dead_seconds=config.webhooks.retain_dead_days * _DAY,
    )


def webhook_transport(config: Config, dispatcher: NotifierSettings) -> TransportSettings:
    """Return where webhooks may go."""
    return TransportSettings(
        allow_private=config.webhooks.allow_private_addresses,
        allow_http=config.webhooks.allow_http,
        max_connections=dispatcher.slots.total,
    )


def webhook_base(config: Config) -> str | None:
    """Return the address under which upstream may call; it takes https only."""
    public_url = str(config.server.public_url or "").rstrip("/")
    return public_url if config.upstream.webhooks == "auto" and public_url.startswith("https://") else None
