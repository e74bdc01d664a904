"""Money: amounts are whole micro-dollars, prices are exact decimals of dollars.

A price may be finer than a micro-dollar (a token costs a few), an amount never is. Between the two there is one
rounding, half-even, when all parts of an amount have been added up.
"""

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context, Decimal

import msgspec

MICROUSD_PER_USD = 1_000_000
MILLISECONDS_PER_SECOND = 1000

MOST_USD = 1_000_000_000
MOST_MICROUSD = MOST_USD * MICROUSD_PER_USD
"""No amount is above it, so that thousands of them still fit the stores' 64-bit integers."""

EXACT = Context(prec=1000)
"""For sums and products of prices and quantities. The bounds on both (`MOST_...`, `PRICE_PLACES`, what `usage` reads)
leave no result with more digits than this, so that nothing is rounded on the way; tests hold it."""

PRICE_PLACES = 18
"""Decimal places that a price may have: a trillionth of a dollar for a million tokens."""

_MICRO = Decimal(1).scaleb(-6)
_PRICE_STEP = Decimal(1).scaleb(-PRICE_PLACES)


class Amounts(msgspec.Struct, frozen=True):
    """What is held or charged: money, and seconds of upstream's work."""

    microusd: int = 0
    milliseconds: int = 0


def usd(microusd: int) -> str:
    """Write an amount as dollars with six decimals, as the gateway's answers show it: `0.040000`, `-1.500000`."""
    dollars, rest = divmod(abs(microusd), MICROUSD_PER_USD)
    return f"{'-' if microusd < 0 else ''}{dollars}.{rest:06d}"


def exact_microusd(dollars: Decimal) -> int:
    """Turn dollars into micro-dollars. Raise `ValueError` for what is finer, so that no limit is quietly another."""
    if not _is_whole_in(_MICRO, dollars):
        raise ValueError("expected whole micro-dollars: at most 6 places after the point")
    return int(EXACT.multiply(dollars, Decimal(MICROUSD_PER_USD)))


def exact_price(dollars: Decimal) -> Decimal:
    """Return a price as it is. Raise `ValueError` for one that is finer than any that is asked."""
    if not _is_whole_in(_PRICE_STEP, dollars):
        raise ValueError(f"expected at most {PRICE_PLACES} places after the point")
    return dollars or Decimal(0)


def _is_whole_in(step: Decimal, dollars: Decimal) -> bool:
    if not dollars.is_finite() or abs(dollars) > MOST_USD:
        raise ValueError(f"expected at most {MOST_USD}")
    return dollars == dollars.quantize(step, context=EXACT)


def rounded(dollars: Decimal) -> int:
    """Round an exact sum of dollars half-even to the micro-dollar: done once for an amount, at its end."""
    return _whole(EXACT.multiply(dollars, Decimal(MICROUSD_PER_USD)), ROUND_HALF_EVEN)


def rounded_up(dollars: Decimal) -> int:
    """Round up to the micro-dollar, for what is held: it is never less than what it stands for."""
    return _whole(EXACT.multiply(dollars, Decimal(MICROUSD_PER_USD)), ROUND_CEILING)


def milliseconds(seconds: Decimal) -> int:
    """Round seconds half-even to milliseconds."""
    return _whole(EXACT.multiply(seconds, Decimal(MILLISECONDS_PER_SECOND)), ROUND_HALF_EVEN)


def _whole(number: Decimal, rounding: str) -> int:
    return int(number.to_integral_value(rounding))
