"""Money: whole micro-dollars, one rounding, six decimals."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import money
from gateway.domain.money import MOST_MICROUSD

DOLLARS = st.decimals(-(10**9), 10**9, allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("microusd", "text"),
    [
        (0, "0.000000"),
        (1, "0.000001"),
        (-1, "-0.000001"),
        (40_000, "0.040000"),
        (1_000_000, "1.000000"),
        (-1_500_000, "-1.500000"),
        (MOST_MICROUSD, "1000000000.000000"),
        (10**30 + 7, "1000000000000000000000000.000007"),
    ],
)
def test_amounts_are_shown_with_six_decimals(microusd: int, text: str) -> None:
    """What a bill shows can be added up by hand."""
    assert money.usd(microusd) == text


@given(st.integers(-(10**20), 10**20))
def test_shown_amount_is_exact(microusd: int) -> None:
    """No amount is shown as another."""
    assert Decimal(money.usd(microusd)) * 1_000_000 == microusd


@pytest.mark.parametrize(
    ("dollars", "microusd"),
    [("0", 0), ("0.1", 100_000), ("0.000001", 1), ("-2.5", -2_500_000), ("1E+3", 10**9), ("1.0000000", 10**6)],
)
def test_limit_is_read_exactly(dollars: str, microusd: int) -> None:
    """A budget of 0.1 dollars is 100000 micro-dollars."""
    assert money.exact_microusd(Decimal(dollars)) == microusd


@pytest.mark.parametrize(
    "dollars", ["0.0000001", "0.0000015", "1.0000001", "1." + "0" * 1200 + "1", "1e-999999", "NaN", "1e10", "Infinity"]
)
def test_limit_below_a_micro_dollar_is_refused(dollars: str) -> None:
    """It would silently become another limit."""
    with pytest.raises(ValueError, match="expected"):
        money.exact_microusd(Decimal(dollars))


@pytest.mark.parametrize("dollars", ["0", "0.00000375", "0.000000000000000001", "1000000000", "1.50000000000000000000"])
def test_price_may_be_finer_than_an_amount(dollars: str) -> None:
    """Tokens cost millionths of a dollar, and parts of them."""
    assert money.exact_price(Decimal(dollars)) == Decimal(dollars)


@pytest.mark.parametrize("dollars", ["0.0000000000000000001", "1e-999999", "1e2000", "NaN", "-Infinity", "1000000001"])
def test_price_out_of_range_is_refused(dollars: str) -> None:
    """Sums of such prices could not be kept exact."""
    with pytest.raises(ValueError, match="expected at most"):
        money.exact_price(Decimal(dollars))


@pytest.mark.parametrize(
    ("dollars", "microusd"),
    [
        ("0.0000005", 0), ("0.0000015", 2), ("0.0000025", 2), ("0.00000250000000000000000000000000000000000001", 3),
        ("0.0000014999999999999999999999999999999999999999", 1), ("-0.0000015", -2), ("12", 12_000_000),
    ],
)  # fmt: skip
def test_halves_round_to_the_even_micro_dollar(dollars: str, microusd: int) -> None:
    """However many digits come before the half is decided."""
    assert money.rounded(Decimal(dollars)) == microusd


@given(DOLLARS)
def test_rounding_agrees_with_fractions(dollars: Decimal) -> None:
    """An independent arithmetic gives the same amounts."""
    exact = Fraction(dollars) * 1_000_000
    assert money.rounded(dollars) == round(exact)
    assert money.rounded_up(dollars) == -(-exact // 1)
    assert money.milliseconds(dollars) == round(Fraction(dollars) * 1000)
