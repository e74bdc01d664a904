"""How long records are kept, as plain values."""

import msgspec


class AdminSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What operators read of predictions."""

    max_searched: int
    """Predictions of a kind that one page of a search looks at."""
    max_page_bytes: int
    """A page of a search ends after this size."""
    max_data_bytes: int
    """Inputs and outputs of this size and less are shown."""
    show_data: bool
    """Whether inputs and outputs are shown."""


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes."""

    max_cache_bytes: int
    retain_data_seconds: float
    """How long the inputs and outputs of ended runs are kept, and what errors quote of them."""
    retain_days: float
    """How long records without data are kept."""
    audit_days: float
    """How long entries of the audit log are kept."""
