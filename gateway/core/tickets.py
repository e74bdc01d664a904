"""Stream tickets: URL parts that are themselves the permission to read one prediction's stream.

They have the form of upstream's own stream URLs (ref 4): 52 base32 characters, with `<4 letters>-` before them where
the stream's events are files. A ticket is derived from the prediction's id and a secret of the gateway, so that every
answer shows the same one; the store holds its SHA-256, so that a stolen database opens no stream.

A ticket belongs to one prediction, and so to its team; it lives for a time, within which it can be used again, because
a browser comes back by itself. What a key for pages creates is bound to that key's origins: another page that has come
by the address gets nothing, and a request that names no page gets nothing either, as with the key itself.
"""

import base64
import hashlib
import hmac

from gateway.core.records import Prediction
from gateway.core.teams import origin_bound

TICKET = r"[a-z2-7]{52}"
FILE_TICKET = rf"[a-z]{{4}}-{TICKET}"
FILE_PREFIX = "rgws-"


def ticket(secret: bytes, prediction_id: str) -> str:
    """Derive the ticket of a prediction."""
    mac = hmac.digest(secret, b"stream:" + prediction_id.encode(), "sha256")
    return base64.b32encode(mac).decode().rstrip("=").lower()


def fingerprint(text: str) -> str:
    """Return what the store keeps of a ticket. A file stream's prefix is no part of it."""
    return hashlib.sha256(text[-52:].encode()).hexdigest()


def opens(prediction: Prediction, now: float, origin: str | None) -> bool:
    """Say whether a prediction's ticket opens its stream now, to a request of this origin."""
    return now < prediction.ticket_expires_at and origin_bound(prediction.ticket_origins, origin)
