"""Charges as rows of FOCUS 1.2: names, null where it must be and nowhere else, amounts to the micro-dollar."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from gateway.domain import windows
from gateway.domain.ledger import ChargeSum, EntryKind
from gateway.money.rules import focus

NEVER_NULL = {
    "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory",
    "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost",
    "ProviderName", "PublisherName", "ServiceCategory", "ServiceName", "ServiceSubcategory",
}  # fmt: skip
"""Columns of FOCUS 1.2 that do not allow nulls."""
MANDATORY = NEVER_NULL | {"BillingAccountName", "ChargeClass", "ChargeDescription", "PricingQuantity", "PricingUnit"}
"""Columns that must be there."""
OF_USAGE = {"ConsumedQuantity", "ConsumedUnit", "PricingCategory", "PricingQuantity", "PricingUnit", "SkuId"}
"""Columns that are not null for usage, and null for adjustments."""


def charge(**fields: Any) -> ChargeSum:
    given: dict[str, Any] = {
        "day": windows.parse_day("2026-12-31"),
        "team": "acme",
        "key_id": "acme/web",
        "target": "acme/toy",
        "kind": EntryKind.SPEND,
        "tags": '{"project":"apollo"}',
        "note": "",
        "count": 3,
        "milliseconds": 1501,
        "microusd": 1_234_567,
    }
    return ChargeSum(**given | fields)


def row(of: ChargeSum) -> dict[str, Any]:
    return dict(zip(focus.COLUMNS, focus.row(of), strict=True))


USAGE = charge()
CORRECTION = charge(
    kind=EntryKind.ADJUSTMENT, key_id="", target="", tags="", note="refund", count=1, milliseconds=0, microusd=-5
)


def test_columns_are_those_of_the_specification() -> None:
    """Every mandatory one is there; others of the gateway's own begin with x_."""
    assert set(focus.COLUMNS) >= MANDATORY
    further = {"ChargeFrequency", "ConsumedQuantity", "ConsumedUnit", "PricingCategory", "SkuId", "SubAccountId",
               "SubAccountName", "Tags"}  # fmt: skip
    assert set(focus.COLUMNS) - MANDATORY - further == {"x_KeyId"}
    assert len(set(focus.COLUMNS)) == len(focus.COLUMNS)


@pytest.mark.parametrize("of", [USAGE, CORRECTION])
def test_nulls_are_where_the_specification_has_them(of: ChargeSum) -> None:
    nulls = {name for name, value in row(of).items() if value is None}
    assert not nulls & NEVER_NULL
    # A correction of the current billing period has no class.
    assert nulls == {"BillingAccountName", "ChargeClass"} | (
        OF_USAGE | {"Tags", "x_KeyId"} if of is CORRECTION else set()
    )
    assert "" not in row(of).values(), "null is no empty text"


def test_usage_has_its_amounts_and_quantities() -> None:
    of_usage = row(USAGE)
    for name in ("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"):
        assert of_usage[name] == Decimal("1.234567")
    assert (of_usage["ConsumedQuantity"], of_usage["ConsumedUnit"]) == (Decimal("1.501"), "Seconds")
    assert (of_usage["PricingQuantity"], of_usage["PricingUnit"]) == (3, "Requests")
    assert (of_usage["ChargeCategory"], of_usage["PricingCategory"]) == ("Usage", "Standard")
    assert (of_usage["SubAccountId"], of_usage["SkuId"], of_usage["x_KeyId"]) == ("acme", "acme/toy", "acme/web")
    assert of_usage["Tags"] == '{"project":"apollo"}'


def test_periods_end_where_the_next_begins() -> None:
    """Ends are exclusive. A month of December ends in the next year."""
    names = ("ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart", "BillingPeriodEnd")
    assert [row(USAGE)[name] for name in names] == [
        "2026-12-31T00:00:00Z",
        "2027-01-01T00:00:00Z",
        "2026-12-01T00:00:00Z",
        "2027-01-01T00:00:00Z",
    ]
    assert all(datetime.fromisoformat(row(USAGE)[name]) for name in names)


def test_correction_is_an_adjustment_with_its_reason() -> None:
    of_correction = row(CORRECTION)
    assert (of_correction["ChargeCategory"], of_correction["ChargeFrequency"]) == ("Adjustment", "One-Time")
    assert of_correction["ChargeDescription"] == "Correction: refund"
    assert of_correction["BilledCost"] == Decimal("-0.000005")
