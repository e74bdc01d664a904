"""What runs cost: whose price it is, what is charged of it, and that every amount is exact."""

import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.money import MOST_MICROUSD, MOST_USD
from gateway.domain.records import Status
from gateway.money.rules.price_table import HARDWARE, OFFICIAL
from gateway.money.rules.pricing import (
    Amounts,
    Charge,
    Origin,
    Price,
    PriceList,
    Rule,
    Unit,
    UnknownPolicy,
    Unpriced,
    charge,
    on_hardware,
    total,
)
from gateway.money.rules.usage import MOST_OUTPUTS, MOST_SECONDS, MOST_TOKENS, Doubt, Usage, usage_of
from tests.support.json_strategies import VALUES

VERSION = "ab" * 32
L40S = on_hardware("gpu-l40s")
PER_RUN = Price(per_run=Decimal("0.01"))
PER_OUTPUT = Price(per_output=Decimal("0.04"))
PER_TOKEN = Price(per_input_token=Decimal("0.00000375"), per_output_token=Decimal("0.00001"))
PER_ALL = Price(
    per_second=L40S.per_second,
    per_run=PER_RUN.per_run,
    per_output=PER_OUTPUT.per_output,
    per_input_token=PER_TOKEN.per_input_token,
    per_output_token=PER_TOKEN.per_output_token,
)
ENDS = [Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.ABORTED]


def used(status: Status = Status.SUCCEEDED, **quantities: Any) -> Usage:
    return Usage(status=status, **({"seconds": Decimal("2.5"), "outputs": 3} | quantities))


def cost(price: Price, usage: Usage, *, charge_failed: bool = True) -> int:
    return charge(price, usage, charge_failed=charge_failed).microusd


# Whose price -----------------------------------------------------------------------------------------------------


def test_first_matching_rule_is_the_price() -> None:
    """As with the cache rules: the order in the file decides, not how specific a glob is."""
    rules = (Rule("acme/up*", PER_RUN), Rule("acme/upscaler", PER_OUTPUT), Rule("*/*", PER_TOKEN))
    prices = PriceList(rules=rules)
    assert prices.price_of("acme/upscaler") is PER_RUN
    assert prices.price_of("acme/other") is PER_TOKEN
    assert PriceList(rules=rules[1:]).price_of("acme/upscaler") is PER_OUTPUT


def test_version_costs_what_its_model_does() -> None:
    """However a target is named, its price is one; a deployment is named as it is called."""
    prices = PriceList(rules=(Rule("acme/upscaler", PER_RUN), Rule("acme/my-deployment", PER_OUTPUT)))
    assert prices.price_of(f"acme/upscaler:{VERSION}") is PER_RUN
    assert prices.price_of("acme/my-deployment") is PER_OUTPUT
    assert PriceList().price_of(f"black-forest-labs/flux-dev:{VERSION}") == PriceList().price_of(
        "black-forest-labs/flux-dev"
    )


def test_rule_comes_before_the_built_in_price() -> None:
    """The table ages, and accounts have discounts."""
    target = "black-forest-labs/flux-1.1-pro"
    built_in = PriceList().price_of(target)
    assert isinstance(built_in, Price)
    assert (built_in.per_output, built_in.units) == (Decimal("0.04"), (Unit.OUTPUT,))
    assert (built_in.origin, built_in.as_of) == (Origin.OFFICIAL, OFFICIAL[target].as_of)
    assert PriceList(rules=(Rule("black-forest-labs/*", PER_RUN),)).price_of(target) is PER_RUN


def test_unknown_target_is_priced_by_the_default_hardware() -> None:
    """A guess, and marked as one."""
    price = PriceList(default_hardware="gpu-t4").price_of("acme/unheard-of")
    assert price == Price(
        per_second=Decimal("0.000225"),
        origin=Origin.DEFAULT_HARDWARE,
        hardware="gpu-t4",
        as_of=HARDWARE["gpu-t4"].as_of,
    )


def test_unknown_target_can_be_refused_or_free() -> None:
    """As the operator configures it."""
    assert PriceList(unknown=UnknownPolicy.REFUSE).price_of("acme/x") == Unpriced("acme/x")
    free = PriceList(unknown=UnknownPolicy.FREE).price_of("acme/x")
    assert free == Price(origin=Origin.FREE)
    assert cost(free, used(input_tokens=10**6)) == 0


@pytest.mark.parametrize("target", [VERSION, "", "nonsense"])
def test_version_of_an_unknown_model_matches_a_star_rule_only(target: str) -> None:
    """No rule for some model can be its own; one for `*` is."""
    assert PriceList(rules=(Rule("*/*", PER_RUN),), unknown=UnknownPolicy.REFUSE).price_of(target) == Unpriced(target)
    assert PriceList(rules=(Rule("*", PER_RUN),), unknown=UnknownPolicy.REFUSE).price_of(target) is PER_RUN


def test_price_shows_its_source() -> None:
    """Exactly, and without exponents."""
    assert PER_TOKEN.shown() == {
        "usd_per_input_token": "0.00000375", "usd_per_output_token": "0.00001", "origin": "rule",
    }  # fmt: skip
    shown = on_hardware("gpu-h100").shown()
    assert shown == {
        "usd_per_second": "0.001525", "origin": "rule", "hardware": "gpu-h100", "as_of": "2026-05-04",
    }  # fmt: skip
    assert json.loads(json.dumps(shown)) == shown


# What is charged -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "charge_failed", "per_second", "per_run", "per_output"),
    [
        (Status.SUCCEEDED, True, 2438, 10_000, 120_000),
        (Status.SUCCEEDED, False, 2438, 10_000, 120_000),
        (Status.FAILED, True, 2438, 0, 120_000),
        (Status.FAILED, False, 0, 0, 120_000),
        (Status.CANCELED, True, 2438, 0, 120_000),
        (Status.CANCELED, False, 2438, 0, 120_000),
        (Status.ABORTED, True, 0, 0, 0),
    ],
)  # fmt: skip
def test_each_end_is_charged_by_its_rule(
    status: Status, charge_failed: bool, per_second: int, per_run: int, per_output: int
) -> None:
    """Cancelled time is charged, failed time by the setting, delivered outputs always; aborted runs are free."""
    usage = used(status)
    assert cost(L40S, usage, charge_failed=charge_failed) == per_second
    assert cost(PER_RUN, usage, charge_failed=charge_failed) == per_run
    assert cost(PER_OUTPUT, usage, charge_failed=charge_failed) == per_output


def test_tokens_are_charged_as_delivered() -> None:
    """A text that was cut short costs what there is of it."""
    for status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELED):
        assert cost(PER_TOKEN, used(status, input_tokens=12, output_tokens=345)) == 45 + 3450
    assert cost(PER_TOKEN, used(Status.ABORTED, input_tokens=12, output_tokens=345)) == 0


def test_seconds_count_whatever_the_price_is_for() -> None:
    """A limit on seconds holds for official models, too; time that is not charged is not counted."""
    assert charge(PER_OUTPUT, used(), charge_failed=True).amounts == Amounts(120_000, 2500)
    assert charge(PER_OUTPUT, used(Status.FAILED), charge_failed=False).milliseconds == 0
    assert charge(L40S, used(Status.ABORTED), charge_failed=True) .milliseconds == 0  # fmt: skip
    assert charge(L40S, used(seconds=Decimal("0.0005")), charge_failed=True).milliseconds == 0
    assert charge(L40S, used(seconds=Decimal("0.0015")), charge_failed=True).milliseconds == 2


def test_parts_explain_the_charge() -> None:
    """Quantity, price, and the amount before rounding."""
    made = charge(L40S, used(seconds=Decimal("2.492094")), charge_failed=True)
    (part,) = made.parts
    assert (part.unit, part.quantity, part.usd_each) == (Unit.SECOND, Decimal("2.492094"), Decimal("0.000975"))
    assert part.usd == Decimal("0.00242979165")
    assert made.microusd == 2430


def test_only_doubts_about_the_amount_are_reported() -> None:
    """A model without tokens is not doubtful for not counting them; its time always counts."""
    every = frozenset(Doubt) - {Doubt.AMOUNT_CAPPED}
    always = {Doubt.DOCUMENT_UNREADABLE, Doubt.METRICS_UNREADABLE}
    time = {Doubt.TIME_ODD, Doubt.TIME_FROM_DATES, Doubt.TIME_MISSING}

    def reported(price: Price, status: Status = Status.SUCCEEDED) -> set[Doubt]:
        return set(charge(price, used(status, doubts=every), charge_failed=True).doubts)

    assert reported(L40S) == reported(PER_RUN) == always | time
    assert reported(PER_OUTPUT) == always | time | {Doubt.OUTPUTS_ODD, Doubt.OUTPUTS_REMOVED}
    assert reported(PER_TOKEN) == always | time | {Doubt.TOKENS_ODD, Doubt.TOKENS_MISSING}
    assert reported(L40S, Status.ABORTED) == set()


def test_charge_is_within_what_can_be_recorded() -> None:
    """A mistake in a configured price does not overflow the ledger."""
    made = charge(Price(per_output=Decimal(MOST_USD)), used(outputs=2), charge_failed=True)
    assert (made.microusd, made.doubts) == (MOST_MICROUSD, (Doubt.AMOUNT_CAPPED,))


# Exactness -------------------------------------------------------------------------------------------------------

DOLLARS = st.decimals(0, 1000, places=18) | st.sampled_from([Decimal(0), Decimal("1e-18"), Decimal("0.0000005")])
PRICES = st.builds(
    Price,
    per_second=DOLLARS,
    per_run=DOLLARS,
    per_output=DOLLARS,
    per_input_token=DOLLARS,
    per_output_token=DOLLARS,
)
SECONDS = (
    st.floats(0, MOST_SECONDS).map(lambda each: Decimal(repr(each)))
    | st.decimals(0, MOST_SECONDS, places=9)
    | st.sampled_from([Decimal("5e-324"), Decimal("3e-06"), Decimal(0), Decimal("1e-400")])
)
USAGES = st.builds(
    Usage,
    status=st.sampled_from(ENDS),
    seconds=SECONDS,
    outputs=st.integers(0, MOST_OUTPUTS),
    input_tokens=st.integers(0, MOST_TOKENS),
    output_tokens=st.integers(0, MOST_TOKENS),
)


def exact(price: Price, usage: Usage, *, charge_failed: bool) -> Fraction:
    """Reckon by another arithmetic, from the rules of docs/money.md. Micro-dollars."""
    if usage.status is Status.ABORTED:
        return Fraction(0)
    dollars = Fraction(0)
    if usage.status is not Status.FAILED or charge_failed:
        dollars += Fraction(usage.seconds) * Fraction(price.per_second)
    if usage.status is Status.SUCCEEDED:
        dollars += Fraction(price.per_run)
    dollars += usage.outputs * Fraction(price.per_output)
    dollars += usage.input_tokens * Fraction(price.per_input_token)
    dollars += usage.output_tokens * Fraction(price.per_output_token)
    return dollars * 1_000_000


@given(PRICES, USAGES, st.booleans())
def test_charge_is_the_exact_sum_rounded_once(price: Price, usage: Usage, charge_failed: bool) -> None:
    """An independent oracle in fractions gives the same micro-dollar, and so do the parts that are shown."""
    made = charge(price, usage, charge_failed=charge_failed)
    oracle = exact(price, usage, charge_failed=charge_failed)
    assert made.microusd == min(round(oracle), MOST_MICROUSD)
    assert sum((Fraction(part.usd) for part in made.parts), Fraction(0)) * 1_000_000 == oracle
    assert Fraction(total(made.parts)) * 1_000_000 == oracle
    assert made.microusd >= 0
    assert made.milliseconds >= 0


@given(PRICES, USAGES, st.booleans())
def test_prices_add_up(price: Price, usage: Usage, charge_failed: bool) -> None:
    """What each unit costs alone, it costs the same beside the others."""
    together = charge(price, usage, charge_failed=charge_failed)
    alone = [
        part
        for unit in Unit
        for part in charge(Price(**{f"per_{unit}": price.of(unit)}), usage, charge_failed=charge_failed).parts
    ]
    assert list(together.parts) == alone


@given(PRICES, USAGES, USAGES, st.booleans())
def test_larger_usage_costs_no_less(price: Price, one: Usage, other: Usage, charge_failed: bool) -> None:
    """Of two runs with one end, the one that is larger in everything costs at least as much."""
    larger = Usage(
        status=one.status,
        seconds=max(one.seconds, other.seconds),
        outputs=max(one.outputs, other.outputs),
        input_tokens=max(one.input_tokens, other.input_tokens),
        output_tokens=max(one.output_tokens, other.output_tokens),
    )
    smaller_cost = charge(price, one, charge_failed=charge_failed)
    larger_cost = charge(price, larger, charge_failed=charge_failed)
    assert larger_cost.microusd >= smaller_cost.microusd
    assert larger_cost.milliseconds >= smaller_cost.milliseconds


@given(st.lists(SECONDS, min_size=1, max_size=30))
def test_bill_is_off_by_less_than_half_a_micro_dollar_a_run(times: list[Decimal]) -> None:
    """Rounding never accumulates: each run is rounded once, from its exact cost."""
    charges = [cost(L40S, used(seconds=each)) for each in times]
    sum_of_costs = sum((Fraction(each) for each in times), Fraction(0)) * Fraction(L40S.per_second) * 1_000_000
    assert abs(sum(charges) - sum_of_costs) <= Fraction(len(times), 2)


@given(PRICES, st.dictionaries(st.sampled_from(["metrics", "output", "started_at", "completed_at"]), VALUES))
def test_any_document_has_a_charge_of_at_least_zero(price: Price, fields: dict[str, Any]) -> None:
    """From the bytes to the amount."""
    for status in ENDS:
        made: Charge = charge(price, usage_of(json.dumps(fields).encode(), status), charge_failed=True)
        assert 0 <= made.microusd <= MOST_MICROUSD
