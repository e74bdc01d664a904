"""Webhook signatures, as Svix and Standard Webhooks have them: HMAC-SHA256 over `{id}.{timestamp}.{body}`.

See docs/replicate-api.md, Webhooks.

A secret is written `whsec_<base64>`; the signature header holds several, parted by spaces, each `v1,<base64>`; any
match passes, so that secrets can be rotated.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence

TOLERANCE_SECONDS = 300.0
"""How far a sender's clock may be off; more would let old messages be played again (the standard's advice)."""

_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """Return the key inside of a written secret. Raise `ValueError` if it is none."""
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as exc:
        raise ValueError("not a webhook secret") from exc


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message in its written form, `v1,<base64>`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def headers(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that a signed message goes with: one signature for each key that is in use."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(key, message_id, timestamp, body) for key in keys),
    }


def is_signed(key: bytes, given: Mapping[str, str], body: bytes, now: float) -> bool:
    """Say whether a message was signed with the key, lately. The names of its headers are in small letters."""
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not message_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        return False
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    expected = sign(key, message_id, int(timestamp), body).encode()
    signatures = given.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected, signature.encode("utf-8", "replace")) for signature in signatures)
