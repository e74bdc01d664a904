"""Charges as rows of FOCUS, the FinOps Open Cost and Usage Specification, version 1.2.

github.com/FinOps-Open-Cost-and-Usage-Spec/FOCUS_Spec, `specification/columns`. A charge is what the runs of one day,
team, key, model and set of tags have cost, or a correction. `None` is null, which the specification has for what does
not apply; in CSV it is an empty cell.

Replicate's price of a run depends on several units, so there are no unit prices: the quantity is the number of runs.
What hits and joined predictions saved is no charge.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from gateway.domain import money, windows
from gateway.domain.ledger import ChargeSum, EntryKind
from gateway.domain.windows import Window

Cell = str | Decimal | int | None

_PROVIDER: Final = "Replicate"
_SAME: Final[Mapping[str, Cell]] = {
    # The gateway has one account, and does not know its name.
    "BillingAccountId": "replicate",
    "BillingAccountName": None,
    "BillingCurrency": "USD",
    # Corrections are of the current billing period.
    "ChargeClass": None,
    "InvoiceIssuerName": _PROVIDER,
    "ProviderName": _PROVIDER,
    "PublisherName": _PROVIDER,
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": _PROVIDER,
    "ServiceSubcategory": "Machine Learning",
}
COLUMNS: Final = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "SkuId",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_KeyId",
)


def row(charge: ChargeSum) -> list[Cell]:
    """Return the cells of a charge, in the order of `COLUMNS`."""
    cost = Decimal(money.usd(charge.microusd))
    month = windows.first_day(Window.MONTH, charge.day)
    cells: dict[str, Cell] = {
        **_SAME,
        **dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
        "BillingPeriodStart": _start_of(month),
        "BillingPeriodEnd": _start_of(windows.last_day(Window.MONTH, month) + 1),
        "ChargePeriodStart": _start_of(charge.day),
        "ChargePeriodEnd": _start_of(charge.day + 1),
        "SubAccountId": charge.team,
        "SubAccountName": charge.team,
        "x_KeyId": charge.key_id or None,
        "Tags": charge.tags or None,
        **(_of_usage(charge) if charge.kind is EntryKind.SPEND else _of_correction(charge)),
    }
    return [cells[name] for name in COLUMNS]


def _of_usage(charge: ChargeSum) -> dict[str, Cell]:
    return {
        "ChargeCategory": "Usage",
        "ChargeDescription": f"Runs of {charge.target}",
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": Decimal(charge.milliseconds) / money.MILLISECONDS_PER_SECOND,
        "ConsumedUnit": "Seconds",
        "PricingCategory": "Standard",
        "PricingQuantity": charge.count,
        "PricingUnit": "Requests",
        "SkuId": charge.target,
    }


def _of_correction(charge: ChargeSum) -> dict[str, Cell]:
    nothing = ("ConsumedQuantity", "ConsumedUnit", "PricingCategory", "PricingQuantity", "PricingUnit", "SkuId")
    return {
        **dict.fromkeys(nothing),
        "ChargeCategory": "Adjustment",
        "ChargeDescription": f"Correction: {charge.note}",
        "ChargeFrequency": "One-Time",
    }


def _start_of(day: int) -> str:
    return f"{windows.text_of(day)}T00:00:00Z"
