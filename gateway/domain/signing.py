"""Webhook signatures of Svix and Standard Webhooks: HMAC-SHA256 over `{id}.{timestamp}.{body}`.

See docs/replicate-api.md, Webhooks.

A secret has the form `whsec_<base64>`. The signature header has one or more signatures of the form `v1,<base64>`,
separated by spaces. One matching signature is enough, so that secrets can be rotated.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping, Sequence

TOLERANCE_SECONDS = 300.0
"""Maximum difference between timestamp and receiver's clock, as the standard recommends. It limits replay attacks."""

_PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """Return the bytes of a secret. Raise `ValueError` if it is not valid."""
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error as exc:
        raise ValueError("not a webhook secret") from exc


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of a message in the form `v1,<base64>`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def headers(keys: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers of a signed message, with one signature per key."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(key, message_id, timestamp, body) for key in keys),
    }


def is_signed(key: bytes, given: Mapping[str, str], body: bytes, now: float) -> bool:
    """Return whether a message has a valid, recent signature of the key. Header names must be in lower case."""
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not message_id or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
        return False
    if abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    expected = sign(key, message_id, int(timestamp), body).encode()
    signatures = given.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected, signature.encode("utf-8", "replace")) for signature in signatures)
