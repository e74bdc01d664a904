"""Stream tickets: URL parts that are themselves the permission to read one prediction's stream.

They have the form of upstream's own stream URLs (ref 4): 52 base32 characters, with `<4 letters>-` before them where
the stream's events are files. A ticket is derived from the prediction's id and a secret of the gateway, so that every
answer shows the same one; the store holds its SHA-256, so that a stolen database opens no stream.
"""

import base64
import hashlib
import hmac

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
