"""Replicate's published prices of hardware and of some official models.

Replicate's API returns no prices (docs/replicate-api.md, Prices), so this is a copy made by hand, which can be out of
date. `AS_OF` is shown with every price from this table, and the config's `[[prices.models]]` override it. To update a
price, look it up on the pricing page and change its line and its date.
"""

from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Final

import msgspec

# Days of the copies of https://replicate.com/pricing used here. Public models are billed by `metrics.predict_time` at
# the price of their hardware, official models by their outputs or tokens.
_GPUS = date(2026, 5, 4)
_CPU = date(2026, 11, 18)
_OFFICIAL = date(2026, 10, 7)

AS_OF: Final = min(_GPUS, _CPU, _OFFICIAL)
"""The oldest of these dates: every dated price below was seen on that day or later."""


class Hardware(msgspec.Struct, frozen=True):
    """The price of one kind of machine."""

    usd_per_second: Decimal
    as_of: date | None = None
    """When this price was last seen; `None` if the copy of the page that shows it has no date."""
    is_old: bool = False
    """Whether it was removed from the pricing page. Older models can still name it."""


class OfficialPrice(msgspec.Struct, frozen=True, kw_only=True):
    """The price of a model that Replicate maintains. It does not depend on the duration of the run."""

    usd_per_output: Decimal = Decimal(0)
    usd_per_input_token: Decimal = Decimal(0)
    usd_per_output_token: Decimal = Decimal(0)
    as_of: date = _OFFICIAL


HARDWARE: Final = MappingProxyType(
    {
        "cpu": Hardware(Decimal("0.000100"), _CPU),
        # Listed beside `cpu` on later copies of the page, which have no date.
        "cpu-small": Hardware(Decimal("0.000025")),
        "gpu-t4": Hardware(Decimal("0.000225"), _GPUS),
        # Spelled both ways: gpu-2x-l40s on the pricing page of 2025, gpu-l40s-2x by the API and later pages.
        "gpu-l40s": Hardware(Decimal("0.000975"), _GPUS),
        "gpu-l40s-2x": Hardware(Decimal("0.001950"), _GPUS),
        "gpu-l40s-4x": Hardware(Decimal("0.003900"), _GPUS),
        "gpu-l40s-8x": Hardware(Decimal("0.007800"), _GPUS),
        "gpu-2x-l40s": Hardware(Decimal("0.001950"), _GPUS),
        "gpu-4x-l40s": Hardware(Decimal("0.003900"), _GPUS),
        "gpu-8x-l40s": Hardware(Decimal("0.007800"), _GPUS),
        # More than one A100 or H100 is for accounts with committed spend.
        "gpu-a100-large": Hardware(Decimal("0.001400"), _GPUS),
        "gpu-a100-large-2x": Hardware(Decimal("0.002800"), _GPUS),
        "gpu-a100-large-4x": Hardware(Decimal("0.005600"), _GPUS),
        "gpu-a100-large-8x": Hardware(Decimal("0.011200"), _GPUS),
        "gpu-h100": Hardware(Decimal("0.001525"), _GPUS),
        "gpu-h100-2x": Hardware(Decimal("0.003050"), _GPUS),
        "gpu-h100-4x": Hardware(Decimal("0.006100"), _GPUS),
        "gpu-h100-8x": Hardware(Decimal("0.012200"), _GPUS),
        # On copies of the page until 2025; later copies do not list them.
        "gpu-a40-small": Hardware(Decimal("0.000575"), is_old=True),
        "gpu-a40-large": Hardware(Decimal("0.000725"), is_old=True),
        "gpu-a40-large-2x": Hardware(Decimal("0.001450"), is_old=True),
        "gpu-a40-large-4x": Hardware(Decimal("0.002900"), is_old=True),
        "gpu-a40-large-8x": Hardware(Decimal("0.005800"), is_old=True),
    }
)
"""By sku, as in upstream's list of hardware."""

OFFICIAL: Final = MappingProxyType(
    {
        # The examples on the pricing page. Prices of other official models are on their own pages.
        "black-forest-labs/flux-1.1-pro": OfficialPrice(usd_per_output=Decimal("0.04")),
        "black-forest-labs/flux-dev": OfficialPrice(usd_per_output=Decimal("0.025")),
        "black-forest-labs/flux-schnell": OfficialPrice(usd_per_output=Decimal("0.003")),
        "ideogram-ai/ideogram-v3-quality": OfficialPrice(usd_per_output=Decimal("0.09")),
        # $3.75 and $10 for a million tokens.
        "deepseek-ai/deepseek-r1": OfficialPrice(
            usd_per_input_token=Decimal("0.00000375"), usd_per_output_token=Decimal("0.00001")
        ),
    }
)
"""By `owner/name`."""
