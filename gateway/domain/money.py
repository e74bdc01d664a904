"""Money: amounts are integers of micro-dollars, prices are exact decimals of dollars.

A price can be finer than a micro-dollar, an amount cannot. The parts of an amount are added up exactly, and the sum is
rounded once, half-even.
"""

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal

import msgspec

MICROUSD_PER_USD = 1_000_000
MILLISECONDS_PER_SECOND = 1000

MOST_USD = 1_000_000_000
MOST_MICROUSD = MOST_USD * MICROUSD_PER_USD
"""The largest amount. Sums of thousands of them fit the store's 64-bit integers."""

EXACT = Context(prec=1000)
"""Context for sums and products of prices and quantities. Because both are bounded (`MOST_...`, `PRICE_PLACES`, the
limits in `usage`), no result has more digits than this, so nothing is rounded. Tests check it."""

PRICE_PLACES = 18
"""Maximum number of decimal places of a price."""

_MICRO = Decimal(1).scaleb(-6)
_PRICE_STEP = Decimal(1).scaleb(-PRICE_PLACES)


class Amounts(msgspec.Struct, frozen=True):
    """An amount that is reserved or charged: money and run time."""

    microusd: int = 0
    milliseconds: int = 0


def usd(microusd: int) -> str:
    """Format an amount as dollars with six decimals, as in the gateway's API: `0.040000`, `-1.500000`."""
    dollars, rest = divmod(abs(microusd), MICROUSD_PER_USD)
    return f"{'-' if microusd < 0 else ''}{dollars}.{rest:06d}"


def exact_microusd(dollars: Decimal) -> int:
    """Convert dollars to micro-dollars. Raise `ValueError` for finer amounts, instead of changing a limit silently."""
    if not _is_multiple_of(_MICRO, dollars):
        raise ValueError("expected at most 6 decimal places (micro-dollars)")
    return int(EXACT.multiply(dollars, Decimal(MICROUSD_PER_USD)))


def exact_price(dollars: Decimal) -> Decimal:
    """Check and return a price. Raise `ValueError` if it has more than `PRICE_PLACES` decimal places."""
    if not _is_multiple_of(_PRICE_STEP, dollars):
        raise ValueError(f"expected at most {PRICE_PLACES} decimal places")
    return dollars or Decimal(0)


def _is_multiple_of(step: Decimal, dollars: Decimal) -> bool:
    if not dollars.is_finite() or abs(dollars) > MOST_USD:
        raise ValueError(f"expected at most {MOST_USD}")
    return dollars == dollars.quantize(step, context=EXACT)


def rounded(dollars: Decimal) -> int:
    """Round an exact sum of dollars half-even to micro-dollars. Do this only once per amount."""
    return _integer(EXACT.multiply(dollars, Decimal(MICROUSD_PER_USD)), ROUND_HALF_EVEN)


def rounded_up(dollars: Decimal) -> int:
    """Round up to micro-dollars, for reservations."""
    return _integer(EXACT.multiply(dollars, Decimal(MICROUSD_PER_USD)), ROUND_CEILING)


def milliseconds(seconds: Decimal) -> int:
    """Round seconds half-even to milliseconds."""
    return _integer(EXACT.multiply(seconds, Decimal(MILLISECONDS_PER_SECOND)), ROUND_HALF_EVEN)


def _integer(number: Decimal, rounding: str) -> int:
    return int(number.to_integral_value(rounding))
