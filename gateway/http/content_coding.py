"""Choose the content coding of a response by `Accept-Encoding` (RFC 9110, 12.5.3).

aiohttp's own choice ignores weights.
"""

import re
from functools import lru_cache

from aiohttp import web

_MIN_COMPRESSED_BYTES = 2048
_CODINGS = {"gzip": web.ContentCoding.gzip, "deflate": web.ContentCoding.deflate}
"""What the gateway can write, preferred first. Decoders disagree about the framing of `deflate`."""
_ALIASES = {"x-gzip": "gzip"}
_WEIGHT = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.ASCII)
_MAX_NAMED = 64
_REMEMBERED_LENGTH = 256


def choose(accepted: str, size: int) -> web.ContentCoding | None:
    """Return the coding of a body of `size` bytes; `None` for none.

    A small body is compressed only for a client that refuses it otherwise.
    """
    best, is_needed = _preferred(accepted) if len(accepted) <= _REMEMBERED_LENGTH else _prefer(accepted)
    return best if size >= _MIN_COMPRESSED_BYTES or is_needed else None


def _prefer(accepted: str) -> tuple[web.ContentCoding | None, bool]:
    """Return the coding that a client prefers to none, and whether it refuses none."""
    weights = _weights(accepted)
    best, weight = None, 0.0
    for name, coding in _CODINGS.items():
        if weights.get(name, weights.get("*", 0.0)) > weight:
            best, weight = coding, weights.get(name, weights.get("*", 0.0))
    # Without a word about it, no coding is acceptable and comes last.
    identity = weights.get("identity", weights.get("*"))
    if best is None or (identity is not None and identity > weight):
        return None, False
    return best, identity == 0.0


# Clients of one kind send the same value always.
_preferred = lru_cache(maxsize=256)(_prefer)


def _weights(accepted: str) -> dict[str, float]:
    """Return the weight of each coding that a header names. A weight that cannot be read is 0."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(",", _MAX_NAMED)[:_MAX_NAMED]:
        name, *parameters = (each.strip(" \t") for each in part.split(";", 2)[:2])
        match = _WEIGHT.fullmatch(parameters[0].replace(" ", "")) if parameters else None
        weight = 1.0 if not parameters or not parameters[0] else float(match[1]) if match else 0.0
        if name:
            weights.setdefault(_ALIASES.get(name, name), weight)
    return weights
