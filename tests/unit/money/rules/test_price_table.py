"""The built-in prices are those of the pricing page, and say of when."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.domain.money import exact_price
from gateway.money.rules.price_table import AS_OF, HARDWARE, OFFICIAL
from gateway.money.rules.usage import Doubt

DOCUMENT = Path(__file__).parents[4] / "docs" / "money.md"


@pytest.mark.parametrize(
    ("sku", "dollars_an_hour"),
    [
        ("cpu", "0.36"), ("cpu-small", "0.09"), ("gpu-t4", "0.81"), ("gpu-l40s", "3.51"), ("gpu-l40s-8x", "28.08"),
        ("gpu-2x-l40s", "7.02"), ("gpu-a100-large", "5.04"), ("gpu-a100-large-4x", "20.16"), ("gpu-h100", "5.49"),
        ("gpu-h100-8x", "43.92"), ("gpu-a40-small", "2.07"), ("gpu-a40-large", "2.61"), ("gpu-a40-large-8x", "20.88"),
    ],
)  # fmt: skip
def test_second_costs_its_part_of_the_hour(sku: str, dollars_an_hour: str) -> None:
    """The page gives both, so a mistake in copying one shows in the other."""
    assert HARDWARE[sku].usd_per_second * 3600 == Decimal(dollars_an_hour)


@pytest.mark.parametrize("sku", ["gpu-l40s", "gpu-a100-large", "gpu-h100", "gpu-a40-large"])
def test_several_machines_cost_proportionally(sku: str) -> None:
    """Two, four and eight of a kind."""
    for count in (2, 4, 8):
        assert HARDWARE[f"{sku}-{count}x"].usd_per_second == count * HARDWARE[sku].usd_per_second


def test_both_spellings_of_the_l40s_cost_the_same() -> None:
    """The page of 2025 and the API spell it differently."""
    for count in (2, 4, 8):
        assert HARDWARE[f"gpu-{count}x-l40s"] == HARDWARE[f"gpu-l40s-{count}x"]


def test_discontinued_hardware_is_marked() -> None:
    """The A40s are no longer on the page."""
    assert {sku for sku, each in HARDWARE.items() if each.is_old} == {
        "gpu-a40-small", "gpu-a40-large", "gpu-a40-large-2x", "gpu-a40-large-4x", "gpu-a40-large-8x",
    }  # fmt: skip


def test_official_models_are_priced_by_output() -> None:
    """$0.04 an image; $3.75 and $10 for a million tokens."""
    assert OFFICIAL["black-forest-labs/flux-1.1-pro"].usd_per_output == Decimal("0.04")
    assert OFFICIAL["black-forest-labs/flux-dev"].usd_per_output == Decimal("0.025")
    assert OFFICIAL["black-forest-labs/flux-schnell"].usd_per_output == Decimal("0.003")
    assert OFFICIAL["ideogram-ai/ideogram-v3-quality"].usd_per_output == Decimal("0.09")
    deepseek = OFFICIAL["deepseek-ai/deepseek-r1"]
    assert deepseek.usd_per_input_token * 10**6 == Decimal("3.75")
    assert deepseek.usd_per_output_token * 10**6 == 10


def test_no_price_is_older_than_the_table() -> None:
    """`AS_OF` is what is documented."""
    dates = [each.as_of for each in HARDWARE.values() if each.as_of] + [each.as_of for each in OFFICIAL.values()]
    assert min(dates) == AS_OF


def test_documentation_names_the_tables_date() -> None:
    """Whoever changes a price changes the documentation, too."""
    text = DOCUMENT.read_text().partition("\n## Limits")[0]
    reported = {each.as_of for each in (*HARDWARE.values(), *OFFICIAL.values()) if each.as_of}
    assert all(day.isoformat() in text for day in reported)
    assert set(re.findall(r"\d{4}-\d\d-\d\d", text)) == {day.isoformat() for day in reported}
    assert all(f"`{doubt}`" in text for doubt in Doubt)


def test_table_prices_are_exact() -> None:
    """Its prices are as fine as any that the config may give."""
    for each in HARDWARE.values():
        assert exact_price(each.usd_per_second) > 0
