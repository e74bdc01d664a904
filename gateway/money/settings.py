"""What the operator sets about money, as plain values."""

from collections.abc import Mapping

import msgspec

from gateway.money.rules.pricing import PriceList


class MoneySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Prices, alerts and the retention of the ledger."""

    prices: PriceList = PriceList()
    budget_webhooks: Mapping[str, str] = {}
    """The URL that receives a team's budget alerts, by the team's name."""
    retain_days: float = 30.0
    """How long lines of the ledger are kept."""
