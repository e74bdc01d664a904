"""What a run will probably cost: what is held for it before it is created (docs/architecture.md, Money).

What the request itself tells decides; else what the target's last runs came to; else the price, for a run of ordinary
size. What was learned is bounded on both sides, so that no single run, freak or nil, closes a budget or opens it.
"""

from decimal import Decimal

import msgspec
from msgspec import Raw

from gateway.domain import money
from gateway.domain.money import MOST_MICROUSD, Amounts
from gateway.money.rules import numbers
from gateway.money.rules.cost_history import Typical
from gateway.money.rules.pricing import Part, Price, Unit, total

ORDINARY_SECONDS = 60
"""As long as a sync wait may be: most models answer within it, and what takes longer is soon learned.

See docs/replicate-api.md, Sync mode.
"""
ORDINARY_TOKENS = 1000
"""In and out each: a page and a half of text, and around the defaults of the `max_tokens` of upstream's models."""

MOST_ABOVE_MEDIAN = 10
"""What lies further above the ordinary run than this is a freak, and not what the next one will cost."""
MOST_BELOW_TABLE = 100
"""A run that ended at once, such as a failed one, is not what the next one will cost: of the 60 s at least 0.6."""

MOST_OUTPUTS_TOLD = 1000
MOST_TOKENS_TOLD = 1_000_000

_NULL = Raw(b"null")


class ToldCost(msgspec.Struct, frozen=True):
    """What a request's input tells of the run's size. `None`: nothing."""

    outputs: int | None = None
    output_tokens: int | None = None


class _Inputs(msgspec.Struct):
    """The inputs that tell, as they are written. All others are skipped unread."""

    num_outputs: Raw = _NULL
    num_images: Raw = _NULL
    max_tokens: Raw = _NULL
    max_new_tokens: Raw = _NULL


_decode_inputs = msgspec.json.Decoder(_Inputs).decode


def told_by(input: bytes) -> ToldCost:  # noqa: A002 - Replicate's word
    """Read what an input (a JSON object) tells: the usual names of such inputs, where they are whole and above 0.

    More than any model gives counts as the bound, so that a large number never holds less than a small one.
    """
    try:
        inputs = _decode_inputs(input)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ToldCost()
    return ToldCost(
        outputs=_largest((inputs.num_outputs, inputs.num_images), MOST_OUTPUTS_TOLD),
        output_tokens=_largest((inputs.max_tokens, inputs.max_new_tokens), MOST_TOKENS_TOLD),
    )


def _largest(told: tuple[Raw, ...], most: int) -> int | None:
    found = [number for raw in told if (number := numbers.read(bytes(raw))) is not None]
    return max(
        (int(min(number, Decimal(most))) for number in found if number > 0 and numbers.is_whole(number)), default=None
    )


def estimate(price: Price, typical: Typical | None = None, told: ToldCost = ToldCost()) -> Amounts:  # noqa: B008 - immutable
    """Return what to hold for a run: never less than a price says, and rounded up."""
    table = Amounts(_by_table(price, told), ORDINARY_SECONDS * money.MILLISECONDS_PER_SECOND)
    if typical is None:
        return table
    milliseconds = _bounded(typical.p95.milliseconds, typical.median.milliseconds, table.milliseconds)
    if _is_decided(price, told):
        return Amounts(table.microusd, milliseconds)
    return Amounts(_bounded(typical.p95.microusd, typical.median.microusd, table.microusd), milliseconds)


def _by_table(price: Price, told: ToldCost) -> int:
    quantities = {
        Unit.SECOND: ORDINARY_SECONDS,
        Unit.RUN: 1,
        Unit.OUTPUT: told.outputs or 1,
        Unit.INPUT_TOKEN: ORDINARY_TOKENS,
        Unit.OUTPUT_TOKEN: told.output_tokens or ORDINARY_TOKENS,
    }
    parts = tuple(Part(unit, Decimal(quantities[unit]), price.of(unit)) for unit in price.units)
    return min(money.rounded_up(total(parts)), MOST_MICROUSD)


def _is_decided(price: Price, told: ToldCost) -> bool:
    """Whether nothing that was learned could tell better: the price is one for all runs, or the size is told."""
    told_units = {Unit.RUN}
    if told.outputs is not None:
        told_units.add(Unit.OUTPUT)
    if told.output_tokens is not None:
        # Its prompt is the lesser part; how long it is, the ordinary one stands for.
        told_units |= {Unit.INPUT_TOKEN, Unit.OUTPUT_TOKEN}
    return told_units.issuperset(price.units)


def _bounded(p95: int, median: int, table: int) -> int:
    ceiling = max(median * MOST_ABOVE_MEDIAN, table)
    floor = -(-table // MOST_BELOW_TABLE)
    return max(floor, min(p95, ceiling))
