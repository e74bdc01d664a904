"""What the operator sets about money, as plain values."""

from collections.abc import Mapping

import msgspec

from gateway.domain.ledger import MOST_VALUES_A_DAY
from gateway.money.rules.pricing import PriceList


class MoneySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Prices, alerts and the retention of the ledger."""

    prices: PriceList = PriceList()
    budget_webhooks: Mapping[str, str] = {}
    """The URL that receives a team's budget alerts, by the team's name."""
    retain_days: float = 30.0
    """How long lines of the ledger are kept."""
    max_tag_values: int = MOST_VALUES_A_DAY
    """Values of a cost tag that are counted by name, per team and day."""
