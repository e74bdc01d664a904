"""The price of a target and the charge of a run (docs/architecture.md, Money).

Quantities and prices are exact decimals. Their products are added up exactly, and the sum is rounded once, half-even,
to the micro-dollar.
"""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from enum import StrEnum

import msgspec

from gateway.domain import money
from gateway.domain.money import EXACT, Amounts
from gateway.domain.records import Status
from gateway.domain.targets import is_named_by
from gateway.money.rules.price_table import HARDWARE, OFFICIAL, Hardware, OfficialPrice
from gateway.money.rules.usage import Doubt, Usage

_ZERO = Decimal(0)


class Unit(StrEnum):
    """What is billed."""

    SECOND = "second"
    RUN = "run"
    OUTPUT = "output"
    INPUT_TOKEN = "input_token"  # noqa: S105 - a unit
    OUTPUT_TOKEN = "output_token"  # noqa: S105 - a unit


class Origin(StrEnum):
    """Where a price comes from."""

    RULE = "rule"
    """A `[[prices.models]]` of the config."""
    OFFICIAL = "official"
    """The built-in price of an official model."""
    DEFAULT_HARDWARE = "default-hardware"
    """No price is configured: the price of the config's default hardware is assumed."""
    FREE = "free"
    """No price is configured, and the config makes such targets free."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """The price of a target in dollars per unit. One unit has a price, or both token units, or none (free)."""

    per_second: Decimal = _ZERO
    per_run: Decimal = _ZERO
    per_output: Decimal = _ZERO
    per_input_token: Decimal = _ZERO
    per_output_token: Decimal = _ZERO
    origin: Origin = Origin.RULE
    hardware: str | None = None
    """The hardware that `per_second` is the price of."""
    as_of: date | None = None
    """When the price was last seen, if it is built in."""

    def of(self, unit: Unit) -> Decimal:
        """Return the price in dollars of one `unit`."""
        match unit:
            case Unit.SECOND:
                return self.per_second
            case Unit.RUN:
                return self.per_run
            case Unit.OUTPUT:
                return self.per_output
            case Unit.INPUT_TOKEN:
                return self.per_input_token
            case Unit.OUTPUT_TOKEN:
                return self.per_output_token

    def by_unit(self) -> dict[Unit, Decimal]:
        """Return the prices above 0, in dollars."""
        every = {
            Unit.SECOND: self.per_second,
            Unit.RUN: self.per_run,
            Unit.OUTPUT: self.per_output,
            Unit.INPUT_TOKEN: self.per_input_token,
            Unit.OUTPUT_TOKEN: self.per_output_token,
        }
        return {unit: price for unit, price in every.items() if price}

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units with a price above 0."""
        return tuple(self.by_unit())

    def shown(self) -> dict[str, str]:
        """Return the price in the JSON form of the gateway's API: `{"usd_per_second": "0.000975", "hardware": …}`."""
        fields = {f"usd_per_{unit}": f"{price:f}" for unit, price in self.by_unit().items()}
        fields["origin"] = self.origin
        if self.hardware is not None:
            fields["hardware"] = self.hardware
        if self.as_of is not None:
            fields["as_of"] = self.as_of.isoformat()
        return fields


class Unpriced(msgspec.Struct, frozen=True):
    """A target without a price, whose runs the config refuses."""

    target: str


class UnknownPolicy(StrEnum):
    """How to treat a target without a price."""

    ESTIMATE = "estimate"
    REFUSE = "refuse"
    FREE = "free"


class Rule(msgspec.Struct, frozen=True):
    """One `[[prices.models]]` entry: the price of all targets that match its glob."""

    model: str
    price: Price


class PriceList(msgspec.Struct, frozen=True, kw_only=True):
    """The configured and built-in prices."""

    rules: tuple[Rule, ...] = ()
    unknown: UnknownPolicy = UnknownPolicy.ESTIMATE
    default_hardware: str = "gpu-l40s"
    charge_failed: bool = True
    table: Mapping[str, Hardware] = HARDWARE
    official: Mapping[str, OfficialPrice] = OFFICIAL

    def price_of(self, target: str) -> Price | Unpriced:
        """Return a target's price: from the first matching rule, else the built-in price, else by the policy.

        `target` is a `Target.name`. A version has the price of its model. A version whose model is unknown matches only
        the rule `*`, as with the rules of the cache.
        """
        model = target.partition(":")[0] if "/" in target else None
        for rule in self.rules:
            if is_named_by(rule.model, model):
                return rule.price
        official = self.official.get(model) if model is not None else None
        if official is not None:
            return Price(
                per_output=official.usd_per_output,
                per_input_token=official.usd_per_input_token,
                per_output_token=official.usd_per_output_token,
                origin=Origin.OFFICIAL,
                as_of=official.as_of,
            )
        match self.unknown:
            case UnknownPolicy.ESTIMATE:
                return on_hardware(self.default_hardware, self.table, Origin.DEFAULT_HARDWARE)
            case UnknownPolicy.REFUSE:
                return Unpriced(target)
            case UnknownPolicy.FREE:
                return Price(origin=Origin.FREE)


def on_hardware(sku: str, table: Mapping[str, Hardware] = HARDWARE, origin: Origin = Origin.RULE) -> Price:
    """Return the price per second of a hardware. Raise `KeyError` if it is not in the table."""
    hardware = table[sku]
    return Price(per_second=hardware.usd_per_second, origin=origin, hardware=sku, as_of=hardware.as_of)


class Part(msgspec.Struct, frozen=True):
    """One line of a charge: a quantity of a unit at a price."""

    unit: Unit
    quantity: Decimal
    usd_each: Decimal

    @property
    def usd(self) -> Decimal:
        """The amount in dollars, not rounded."""
        return EXACT.multiply(self.quantity, self.usd_each)


class Charge(msgspec.Struct, frozen=True):
    """The itemised cost of a run that has ended."""

    microusd: int
    milliseconds: int
    """Charged run time, also when the price is not per second."""
    parts: tuple[Part, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    """Reasons why the amount may differ from upstream's charge."""

    @property
    def amounts(self) -> Amounts:
        """The amounts to settle."""
        return Amounts(self.microusd, self.milliseconds)


_DOUBTS_OF: Mapping[Unit, frozenset[Doubt]] = {
    Unit.SECOND: frozenset({Doubt.TIME_ODD, Doubt.TIME_FROM_DATES, Doubt.TIME_MISSING}),
    Unit.RUN: frozenset(),
    Unit.OUTPUT: frozenset({Doubt.OUTPUTS_ODD, Doubt.OUTPUTS_REMOVED}),
    Unit.INPUT_TOKEN: frozenset({Doubt.TOKENS_ODD, Doubt.TOKENS_MISSING}),
    Unit.OUTPUT_TOKEN: frozenset({Doubt.TOKENS_ODD, Doubt.TOKENS_MISSING}),
}
_ALWAYS = frozenset({Doubt.DOCUMENT_UNREADABLE, Doubt.METRICS_UNREADABLE})


def charge(price: Price, usage: Usage, *, charge_failed: bool) -> Charge:
    """Return the charge of a run that has ended.

    An aborted run is free. Time is charged for every other final status; for a failed run only if `charge_failed`. A
    price per run is charged if the run succeeded. Outputs and tokens are charged as counted.
    """
    quantities = _quantities(usage, charge_failed=charge_failed)
    prices = price.by_unit()
    parts = tuple([Part(unit, quantities[unit], each) for unit, each in prices.items()])
    doubts = usage.doubts if usage.status is not Status.ABORTED else frozenset()
    relevant = _ALWAYS.union(_DOUBTS_OF[Unit.SECOND], *map(_DOUBTS_OF.__getitem__, prices))
    doubts &= relevant
    microusd = money.rounded(total(parts))
    if microusd > money.MOST_MICROUSD:
        microusd, doubts = money.MOST_MICROUSD, doubts | {Doubt.AMOUNT_CAPPED}
    return Charge(microusd, money.milliseconds(quantities[Unit.SECOND]), parts, tuple(sorted(doubts)))


def total(parts: tuple[Part, ...]) -> Decimal:
    """Return the exact sum of the parts in dollars."""
    dollars = _ZERO
    for part in parts:
        dollars = EXACT.add(dollars, part.usd)
    return dollars


def _quantities(usage: Usage, *, charge_failed: bool) -> dict[Unit, Decimal]:
    if usage.status is Status.ABORTED:
        return dict.fromkeys(Unit, _ZERO)
    is_time_free = usage.status is Status.FAILED and not charge_failed
    return {
        Unit.SECOND: _ZERO if is_time_free else usage.seconds,
        Unit.RUN: Decimal(int(usage.status is Status.SUCCEEDED)),
        Unit.OUTPUT: Decimal(usage.outputs),
        Unit.INPUT_TOKEN: Decimal(usage.input_tokens),
        Unit.OUTPUT_TOKEN: Decimal(usage.output_tokens),
    }
