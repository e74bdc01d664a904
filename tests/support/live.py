"""Settings as services are given them, for tests that build one service."""

from typing import Any

from gateway.access.authentication import AccessSettings
from gateway.domain.limits import Allowance
from gateway.domain.records import Key
from gateway.domain.teams import Team, Teams
from gateway.money.rules.pricing import PriceList
from gateway.money.settings import MoneySettings
from gateway.operations.settings import RetentionSettings
from gateway.runtime.live import LiveSettings


def teams_of(*teams: Team) -> LiveSettings[Teams]:
    """Return teams of the config."""
    return LiveSettings({team.name: team for team in teams})


def named_teams(*names: str) -> LiveSettings[Teams]:
    """Return teams that have a name and nothing else."""
    return teams_of(*(Team(name=name, scopes=frozenset()) for name in names))


def access_of(
    *keys: Key, allowances: dict[str, Allowance] | None = None, ops_token: str | None = None
) -> LiveSettings[AccessSettings]:
    """Return keys of the config."""
    return LiveSettings(
        AccessSettings(keys={key.id: key for key in keys}, allowances=allowances or {}, ops_token=ops_token)
    )


def money(prices: PriceList | None = None, **more: Any) -> LiveSettings[MoneySettings]:
    """Return prices, and other settings of money."""
    return LiveSettings(MoneySettings(prices=prices or PriceList(), **more))


RETENTION = RetentionSettings(max_cache_bytes=1_000_000, retain_data_seconds=3600, retain_days=30, audit_days=365)
