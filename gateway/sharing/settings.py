"""Which requests share a run and for how long, as plain values."""

import msgspec

from gateway.sharing.rules.determinism import Policy


class SharingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of sharing."""

    policy: Policy
    share: str
    """`team` or `all`: between whom results are shared."""
    ttl_seconds: float
    """How long a result answers other requests, unless a rule says otherwise."""
