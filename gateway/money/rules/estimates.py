"""Estimate the cost of a run, which is reserved before the run is created (docs/architecture.md, Money).

The estimate comes from the size that the request's input asks for; else from the cost history of the target; else from
the price of a run of default size. Estimates from history are bounded on both sides, so that a few runs with an extreme
cost cannot block a budget or empty it.
"""

from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache

import msgspec
from msgspec import Raw

from gateway.domain import money
from gateway.domain.money import EXACT, MOST_MICROUSD, Amounts
from gateway.money.rules import numbers
from gateway.money.rules.cost_history import Typical
from gateway.money.rules.pricing import Price, Unit

DEFAULT_SECONDS = 60
"""Assumed duration without a history: the longest sync wait (docs/replicate-api.md, Sync mode). Most models are
faster."""
DEFAULT_TOKENS = 1000
"""Assumed input tokens, and output tokens: about the default `max_tokens` of upstream's language models."""

MOST_ABOVE_MEDIAN = 10
"""An estimate is at most this many times the median (or the default-size price, if that is higher): excludes
outliers."""
MOST_BELOW_TABLE = 100
"""An estimate is at least the default-size price divided by this: runs that failed at once do not lower it further."""

MOST_OUTPUTS_REQUESTED = 1000
MOST_TOKENS_REQUESTED = 1_000_000

_NULL = Raw(b"null")


class RequestedSize(msgspec.Struct, frozen=True):
    """The size of a run as far as the request's input names it. `None`: not named."""

    outputs: int | None = None
    output_tokens: int | None = None


_UNNAMED = RequestedSize()


class _Inputs(msgspec.Struct):
    """The inputs that name a size. All other inputs are skipped without being decoded."""

    num_outputs: Raw = _NULL
    num_images: Raw = _NULL
    max_tokens: Raw = _NULL
    max_new_tokens: Raw = _NULL


_decode_inputs = msgspec.json.Decoder(_Inputs).decode


def requested_size(input: bytes) -> RequestedSize:  # noqa: A002 - Replicate's word
    """Read the size that an input (a JSON object) asks for, from the usual names of such inputs.

    Only integers above 0 count. A number above the bound counts as the bound, not as absent, so that a larger number
    never gives a lower estimate.
    """
    try:
        inputs = _decode_inputs(input)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _UNNAMED
    if inputs.num_outputs is inputs.num_images is inputs.max_tokens is inputs.max_new_tokens is _NULL:
        return _UNNAMED
    return RequestedSize(
        outputs=_largest((inputs.num_outputs, inputs.num_images), MOST_OUTPUTS_REQUESTED),
        output_tokens=_largest((inputs.max_tokens, inputs.max_new_tokens), MOST_TOKENS_REQUESTED),
    )


def _largest(values: tuple[Raw, ...], most: int) -> int | None:
    largest = None
    for raw in values:
        if raw is _NULL or (number := numbers.read(bytes(raw))) is None:
            continue
        if number > 0 and numbers.is_whole(number):
            largest = max(largest or 0, int(min(number, Decimal(most))))
    return largest


def estimate(
    price: Price,
    typical: Typical | None = None,
    size: RequestedSize = _UNNAMED,
) -> Amounts:
    """Return the amounts to reserve for a run, rounded up. `typical` is the target's cost history, if there is one."""
    microusd, is_decided = _by_table(price, size)
    table = Amounts(microusd, DEFAULT_SECONDS * money.MILLISECONDS_PER_SECOND)
    if typical is None:
        return table
    milliseconds = _bounded(typical.p95.milliseconds, typical.median.milliseconds, table.milliseconds)
    if is_decided:
        return Amounts(table.microusd, milliseconds)
    return Amounts(_bounded(typical.p95.microusd, typical.median.microusd, table.microusd), milliseconds)


@lru_cache(maxsize=1024)
def _by_table(price: Price, size: RequestedSize) -> tuple[int, bool]:
    """Return the micro-dollars of a run of that size, by the price alone, and whether they are decided."""
    prices = price.by_unit()
    quantities = {
        Unit.SECOND: DEFAULT_SECONDS,
        Unit.RUN: 1,
        Unit.OUTPUT: size.outputs or 1,
        Unit.INPUT_TOKEN: DEFAULT_TOKENS,
        Unit.OUTPUT_TOKEN: size.output_tokens or DEFAULT_TOKENS,
    }
    dollars = Decimal(0)
    for unit, each in prices.items():
        dollars = EXACT.add(dollars, EXACT.multiply(Decimal(quantities[unit]), each))
    return min(money.rounded_up(dollars), MOST_MICROUSD), _is_decided(prices, size)


def _is_decided(prices: Mapping[Unit, Decimal], size: RequestedSize) -> bool:
    """Return whether prices and requested size determine the cost, so that the history adds nothing."""
    known_units = {Unit.RUN}
    if size.outputs is not None:
        known_units.add(Unit.OUTPUT)
    if size.output_tokens is not None:
        # Input tokens are the smaller part of the cost, so the default number of them is good enough.
        known_units |= {Unit.INPUT_TOKEN, Unit.OUTPUT_TOKEN}
    return known_units.issuperset(prices)


def _bounded(p95: int, median: int, table: int) -> int:
    ceiling = max(median * MOST_ABOVE_MEDIAN, table)
    floor = -(-table // MOST_BELOW_TABLE)
    return max(floor, min(p95, ceiling))
