"""What the operator sets about money, as plain values."""

from collections.abc import Mapping
from typing import Final

import msgspec

from gateway.domain.ledger import MOST_VALUES_A_DAY
from gateway.money.rules.alerts import Format
from gateway.money.rules.pricing import PriceList

DEFAULT_THRESHOLDS: Final = (80, 100)


class AlertSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The budget alerts of a team."""

    thresholds: tuple[int, ...] = DEFAULT_THRESHOLDS
    """Percentages of a budget."""
    url: str | None = None
    """Receives the alerts. They are logged in any case."""
    form: Format = Format.STANDARD


class MoneySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Prices, alerts and the retention of the ledger."""

    prices: PriceList = PriceList()
    alerts: Mapping[str, AlertSettings] = {}
    """By the team's name."""
    retain_days: float = 30.0
    """How long lines of the ledger are kept."""
    max_tag_values: int = MOST_VALUES_A_DAY
    """Values of a cost tag that are counted by name, per team and day."""
