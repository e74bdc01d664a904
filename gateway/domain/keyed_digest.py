"""Digests that only the owner of a secret can compute.

A plain digest of a short or guessable value, such as a password in an input, gives the value away: whoever has the
database can try values until one fits. The secret is the store's own, so all nodes and all later versions agree.
"""

import hmac


class KeyedDigest:
    """Computes HMAC-SHA256 with one secret, for one purpose."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        self._secret = hmac.digest(secret, purpose.encode(), "sha256")

    def __call__(self, *parts: bytes) -> str:
        """Return the digest (hex) of parts, which must not contain NUL bytes."""
        mac = hmac.new(self._secret, digestmod="sha256")
        for place, part in enumerate(parts):
            if place:
                mac.update(b"\0")
            mac.update(part)
        return mac.hexdigest()
