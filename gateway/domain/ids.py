"""Make ids: Replicate's forms, and the gateway's own for runs. Random bytes are an argument."""

import base64
import uuid
from functools import lru_cache

# Crockford's base 32, which upstream has used for ids since 2024 (docs/replicate-api.md, Prediction object).
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_LETTERS = bytes(ord(_CROCKFORD[byte % 32]) for byte in range(256))
"""A letter for each byte. Every letter stands for as many bytes."""
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]
ID_LENGTH = 26
_STAMP_LENGTH = 6
ID = r"[a-z0-9]{26}"
RUN_ID = r"run_[0-9a-v]{20,32}"


def prediction_id(random: bytes, now: float) -> str:
    """Make a prediction id in upstream's form: 26 characters of `[a-z0-9]`. Needs 20 random bytes.

    The first six characters are the time in tenths of a second, which starts again after 3.4 years. So ids of one
    moment are neighbours in the store's indexes, and it writes few pages for many new predictions. The other 20
    characters are 100 random bits, which nobody can guess.
    """
    return _stamp(int(now * 10)) + random[: ID_LENGTH - _STAMP_LENGTH].translate(_LETTERS).decode()


def random_id(random: bytes) -> str:
    """Make an id of one character for each random byte."""
    return random.translate(_LETTERS).decode()


@lru_cache(maxsize=8)
def _stamp(ticks: int) -> str:
    return _PAIRS[ticks >> 20 & 1023] + _PAIRS[ticks >> 10 & 1023] + _PAIRS[ticks & 1023]


def file_id(random: bytes) -> str:
    """Make a file id in upstream's form: base64 of a UUID's text. Needs 16 random bytes.

    See docs/replicate-api.md, Files.
    """
    return base64.urlsafe_b64encode(str(uuid.UUID(bytes=random[:16], version=4)).encode()).decode()


def run_id(random: bytes, now: float) -> str:
    """Make a run id that sorts by creation, so that scans for open runs go from old to new. Needs 9 random bytes."""
    stamp = int(now * 1000).to_bytes(6, "big")
    return "run_" + base64.b32hexencode(stamp + random[:9]).decode().lower()
