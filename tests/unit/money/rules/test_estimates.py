"""What is held for a run: what it tells itself, what others came to, or the table."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.money import MOST_MICROUSD, MOST_USD, Amounts
from gateway.domain.records import Status
from gateway.money.rules.cost_history import Recent, Sample, Typical
from gateway.money.rules.estimates import (
    DEFAULT_SECONDS,
    MOST_ABOVE_MEDIAN,
    MOST_BELOW_TABLE,
    MOST_OUTPUTS_REQUESTED,
    MOST_TOKENS_REQUESTED,
    RequestedSize,
    estimate,
    requested_size,
)
from gateway.money.rules.pricing import Price, PriceList, charge, on_hardware
from gateway.money.rules.usage import Usage
from tests.support.json_strategies import VALUES

L40S = on_hardware("gpu-l40s")
PER_RUN = Price(per_run=Decimal("0.01"))
PER_OUTPUT = Price(per_output=Decimal("0.04"))
PER_TOKEN = Price(per_input_token=Decimal("0.00000375"), per_output_token=Decimal("0.00001"))
MINUTE = DEFAULT_SECONDS * 1000
TABLE = 58_500
"""A minute of an L40S in micro-dollars."""


def typical(p95: int, median: int) -> Typical:
    return Typical(Amounts(p95, p95 * 10), Amounts(median, median * 10))


# What the input tells --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_input", "reported"),
    [
        ({}, RequestedSize()),
        ({"prompt": "four cats"}, RequestedSize()),
        ({"num_outputs": 4}, RequestedSize(outputs=4)),
        ({"num_outputs": 4.0}, RequestedSize(outputs=4)),
        ({"num_outputs": 1, "num_images": 3}, RequestedSize(outputs=3)),
        ({"max_tokens": 500}, RequestedSize(output_tokens=500)),
        ({"max_new_tokens": 128, "max_tokens": None}, RequestedSize(output_tokens=128)),
        ({"num_outputs": 10**9, "max_tokens": 10**30}, RequestedSize(MOST_OUTPUTS_REQUESTED, MOST_TOKENS_REQUESTED)),
    ],
)  # fmt: skip
def test_input_may_give_the_size(given_input: dict[str, Any], reported: RequestedSize) -> None:
    """Four images cost four times one; a large number never reserves less than a small one."""
    assert requested_size(json.dumps(given_input).encode()) == reported


@pytest.mark.parametrize("odd", [0, -4, 1.5, "4", True, None, [], {}, "∞"])
def test_odd_size_is_ignored(odd: Any) -> None:
    """The model will refuse it, or take its default."""
    names = ("num_outputs", "num_images", "max_tokens", "max_new_tokens")
    assert requested_size(json.dumps(dict.fromkeys(names, odd)).encode()) == RequestedSize()


@pytest.mark.parametrize("given_input", [b"", b"[]", b"nonsense", b"\xff", b"[" * 9999])
def test_body_without_an_input_is_ignored(given_input: bytes) -> None:
    """It is refused elsewhere, if necessary."""
    assert requested_size(given_input) == RequestedSize()


# The table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("price", "reported", "microusd"),
    [
        (L40S, RequestedSize(), TABLE),
        (PER_RUN, RequestedSize(), 10_000),
        (PER_OUTPUT, RequestedSize(), 40_000),
        (PER_OUTPUT, RequestedSize(outputs=4), 160_000),
        (PER_TOKEN, RequestedSize(), 3750 + 10_000),
        (PER_TOKEN, RequestedSize(output_tokens=100), 3750 + 1000),
        (L40S, RequestedSize(outputs=4, output_tokens=100), TABLE),
        (Price(), RequestedSize(outputs=4), 0),
    ],
)
def test_table_price_is_for_a_run_of_ordinary_size(price: Price, reported: RequestedSize, microusd: int) -> None:
    """A minute, one output, a thousand tokens; or what the input says."""
    assert estimate(price, size=reported) == Amounts(microusd, MINUTE)


def test_reservation_is_rounded_up() -> None:
    """A price of less than a micro-dollar reserves one."""
    assert estimate(Price(per_run=Decimal("1e-18"))).microusd == 1


def test_estimate_is_within_what_can_be_recorded() -> None:
    """As every charge is."""
    assert estimate(Price(per_output=Decimal(MOST_USD)), size=RequestedSize(outputs=9)).microusd == MOST_MICROUSD


# What was learned ------------------------------------------------------------------------------------------------


def test_learned_cost_comes_before_the_table() -> None:
    """A model of two seconds does not reserve a minute."""
    assert estimate(L40S, typical(3000, 2000)) == Amounts(3000, 30_000)
    assert estimate(PER_OUTPUT, typical(80_000, 40_000)).microusd == 80_000
    assert estimate(PER_TOKEN, typical(9000, 5000)).microusd == 9000


def test_size_in_the_input_comes_before_learned_cost() -> None:
    """Others' single images do not make eight of them cheap; the time is still the learned one."""
    known = typical(40_000, 40_000)
    assert estimate(PER_OUTPUT, known, RequestedSize(outputs=8)) == Amounts(320_000, 400_000)
    assert estimate(PER_TOKEN, known, RequestedSize(output_tokens=10_000)).microusd == 103_750
    assert estimate(L40S, known, RequestedSize(outputs=8)).microusd == 40_000


def test_price_per_run_needs_no_learning() -> None:
    """It is the same for each, also after many that failed at no cost."""
    assert estimate(PER_RUN, typical(0, 0)).microusd == 10_000
    assert estimate(Price(), typical(5000, 5000)).microusd == 0


def test_single_outlier_blocks_no_caller() -> None:
    """Half an hour once, among runs of 200 seconds: the next does not reserve half an hour."""
    assert estimate(L40S, typical(1_755_000, 19_500)) == Amounts(
        MOST_ABOVE_MEDIAN * 19_500, MOST_ABOVE_MEDIAN * 195_000
    )
    assert estimate(L40S, typical(1_755_000, 10)).microusd == TABLE


def test_free_runs_do_not_disable_budgets() -> None:
    """A hundred failures at once, and the next run still reserves something."""
    assert estimate(L40S, typical(0, 0)) == Amounts(TABLE // MOST_BELOW_TABLE, MINUTE // MOST_BELOW_TABLE)
    assert estimate(Price(per_output=Decimal("1e-9")), typical(0, 0)).microusd == 1


AMOUNTS = st.integers(0, 10**9)


@given(st.lists(st.tuples(AMOUNTS, AMOUNTS), min_size=5, max_size=40), st.sampled_from([L40S, PER_OUTPUT, PER_TOKEN]))
def test_estimate_lies_within_its_limits(runs: list[tuple[int, int]], price: Price) -> None:
    """Between what occurred, or at the limit."""
    recent = Recent()
    for number, (microusd, milliseconds) in enumerate(runs):
        recent.add("x", Sample(number, "r", microusd, milliseconds))
    known = recent.typical("x")
    assert known is not None
    table, found = estimate(price), estimate(price, known)
    for got, p95, median, by_table in (
        (found.microusd, known.p95.microusd, known.median.microusd, table.microusd),
        (found.milliseconds, known.p95.milliseconds, known.median.milliseconds, table.milliseconds),
    ):
        assert by_table / MOST_BELOW_TABLE <= got <= max(by_table, median * MOST_ABOVE_MEDIAN)
        assert got == p95 or p95 * MOST_BELOW_TABLE <= by_table or p95 > median * MOST_ABOVE_MEDIAN


@given(st.integers(1, MOST_OUTPUTS_REQUESTED))
def test_given_size_is_reserved_to_the_micro_dollar(outputs: int) -> None:
    """What is reserved for images is what they will cost."""
    price = PriceList().price_of("black-forest-labs/flux-schnell")
    assert isinstance(price, Price)
    usage = Usage(status=Status.SUCCEEDED, outputs=outputs)
    assert (
        estimate(price, size=RequestedSize(outputs=outputs)).microusd
        == charge(price, usage, charge_failed=True).microusd
    )


@given(VALUES)
def test_any_input_has_a_positive_estimate(value: Any) -> None:
    """Nothing that a caller sends makes it raise."""
    given_input = json.dumps({"num_outputs": value, "max_tokens": value}).encode()
    for price in (L40S, PER_RUN, PER_OUTPUT, PER_TOKEN):
        assert 0 < estimate(price, size=requested_size(given_input)).microusd <= MOST_MICROUSD
