"""How the config becomes the settings of each service."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.assembly.settings import money_settings
from gateway.config import Config, from_mapping, load
from gateway.money.rules.price_table import HARDWARE
from gateway.money.rules.pricing import Origin, Price, PriceList, UnknownPolicy, Unpriced

ENVIRON = {"REPLICATE_API_TOKEN": "r8_0123456789abcdefghijklmnopqrstuvwxyz0"}
EXAMPLE = Path(__file__).parents[3] / "config.example.toml"


def config(**prices: Any) -> Config:
    return from_mapping({"prices": prices}, ENVIRON)


def price_list(config: Config) -> PriceList:
    return money_settings(config).prices


def test_config_without_prices_uses_the_built_in_ones() -> None:
    """Costs are shown without any setting."""
    assert price_list(config()) == PriceList()


@pytest.mark.parametrize(
    ("given", "price"),
    [
        ({"usd_per_second": Decimal("0.001525")}, Price(per_second=Decimal("0.001525"))),
        ({"usd_per_run": 1}, Price(per_run=Decimal(1))),
        ({"usd_per_output": Decimal("0.04")}, Price(per_output=Decimal("0.04"))),
        (
            {"usd_per_input_token": Decimal("0.00000375"), "usd_per_output_token": Decimal("0.00001")},
            Price(per_input_token=Decimal("0.00000375"), per_output_token=Decimal("0.00001")),
        ),
        ({"usd_per_output_token": Decimal("1e-8")}, Price(per_output_token=Decimal("0.00000001"))),
        ({"usd_per_run": 0}, Price()),
        (
            {"hardware": "gpu-a100-large"},
            Price(
                per_second=Decimal("0.0014"),
                hardware="gpu-a100-large",
                as_of=HARDWARE["gpu-a100-large"].as_of,
                origin=Origin.RULE,
            ),
        ),
    ],
)
def test_configured_price_is_charged_exactly(given: dict[str, Any], price: Price) -> None:
    """To the last digit that was written."""
    prices = price_list(config(unknown="refuse", models=[{"model": "acme/*", **given}]))
    assert prices.price_of("acme/upscaler") == price
    assert prices.price_of("other/upscaler") == Unpriced("other/upscaler")


def test_other_price_settings_are_applied() -> None:
    """Policy, default hardware and who pays for failures."""
    prices = price_list(config(unknown="free", default_hardware="gpu-t4", charge_failed=False))
    assert (prices.unknown, prices.default_hardware, prices.charge_failed) == (UnknownPolicy.FREE, "gpu-t4", False)


def test_example_config_prices_each_of_its_models(tmp_path: Path) -> None:
    """The example that operators copy has its prices read exactly, TOML floats included."""
    text = EXAMPLE.read_text()
    path = tmp_path / "config.toml"
    path.write_text(text)
    prices = price_list(load(path, ENVIRON | {"ACME_KEY": "y" * 30}))
    deepseek = prices.price_of("deepseek-ai/deepseek-r1")
    assert deepseek == Price(per_input_token=Decimal("0.00000375"), per_output_token=Decimal("0.00001"))
    upscaler = prices.price_of("acme/upscaler")
    assert isinstance(upscaler, Price)
    assert str(upscaler.per_second) == "0.001525"
