"""When the keys of an issuer are read: before they expire, and if a token names a key that is not among them.

Tokens choose which keys they name, so at most one read of an issuer begins in `PAUSE_SECONDS`.
"""

import math
from enum import Enum
from typing import Final

import msgspec

from gateway.access.rules.issuers import KeyLocation
from gateway.access.rules.json_web_keys import KeySet, PublicKey
from gateway.access.rules.json_web_tokens import Reason, TokenRefusal

PAUSE_SECONDS: Final = 10.0
_LONGEST_PAUSE_SECONDS: Final = 300.0
_EARLY: Final = 0.8
"""After this part of their life keys are read again, so that several attempts fit into the rest."""


class KnownKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an issuer's keys. Times by the monotonic clock."""

    keys: KeySet | None = None
    read_at: float = -math.inf
    """When the keys were read."""
    tried_at: float = -math.inf
    """When the last attempt to read them began."""
    failures: int = 0
    """Attempts that failed since then."""


class Next(Enum):
    """What to do about a key that is not known."""

    READ = "read"


def look_up(
    known: KnownKeys, where: KeyLocation, key_id: str | None, algorithm: str, now: float, *, may_read: bool
) -> PublicKey | Next | TokenRefusal:
    """Return the key of a token, or say that the keys must be read first, or why there is no key.

    Pass `may_read=False` directly after they were read.
    """
    is_usable = known.keys is not None and now < known.read_at + where.stale_seconds
    if is_usable and known.keys is not None and (found := known.keys.find(key_id, algorithm)) is not None:
        return found
    if may_read and now >= known.tried_at + PAUSE_SECONDS:
        return Next.READ
    if known.failures or not is_usable:
        return TokenRefusal(Reason.KEYS_UNAVAILABLE, "The keys of this token's issuer cannot be read at the moment.")
    return TokenRefusal(Reason.UNKNOWN_KEY, "The issuer of this token publishes no such key (kid).")


def due_at(known: KnownKeys, where: KeyLocation) -> float:
    """Return when the keys are to be read, whether or not a token needs them."""
    if known.failures:
        return known.tried_at + min(PAUSE_SECONDS * 2.0 ** min(known.failures - 1, 10), _LONGEST_PAUSE_SECONDS)
    return max(known.read_at + _EARLY * where.ttl_seconds, known.tried_at + PAUSE_SECONDS)


def succeeded(known: KnownKeys, keys: KeySet, now: float) -> KnownKeys:
    """Return what is known after the keys were read."""
    return msgspec.structs.replace(known, keys=keys, read_at=now, failures=0)


def failed(known: KnownKeys) -> KnownKeys:
    """Return what is known after the keys could not be read: those of before stay."""
    return msgspec.structs.replace(known, failures=known.failures + 1)
