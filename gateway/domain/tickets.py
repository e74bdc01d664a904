"""Tickets: URL parts that are themselves the permission to read one prediction's stream, or one file of its output.

Those of streams have the form of upstream's own stream URLs (docs/replicate-api.md, Streaming): 52 base32 characters,
with `<4 letters>-` before them where the stream's events are files. A ticket is derived from the prediction's id and a
secret of the gateway, so that every answer shows the same one; the store holds its SHA-256, so that a stolen database
opens no stream.

A ticket belongs to one prediction, and so to its team; it lives for a time, within which it can be used again, because
a browser comes back by itself. What a key for pages creates is bound to that key's origins: another page that has come
by the address gets nothing, and a request that names no page gets nothing either, as with the key itself.

The ticket of an output file names the prediction and the file's place, and proves that both, and the very bytes, were
meant: `<prediction>-<place>-<proof>`. It lives as long as the copy, so it needs no record of its own; and it is bound
to no origin, because the elements of a page that show files do not say whose page it is.
"""

import base64
import hashlib
import hmac
from functools import lru_cache
from typing import NamedTuple

from gateway.domain.ids import ID
from gateway.domain.records import Prediction
from gateway.domain.teams import origin_bound

TICKET = r"[a-z2-7]{52}"
FILE_TICKET = rf"[a-z]{{4}}-{TICKET}"
FILE_PREFIX = "rgws-"
_REMEMBERED = 10_000

OUTPUT_TICKET = rf"{ID}-\d{{1,4}}-{TICKET}"


@lru_cache(maxsize=_REMEMBERED)
def ticket(secret: bytes, prediction_id: str) -> str:
    """Derive the ticket of a prediction. A create needs it twice: for its record, and for its answer."""
    mac = hmac.digest(secret, b"stream:" + prediction_id.encode(), "sha256")
    return base64.b32encode(mac).decode().rstrip("=").lower()


def fingerprint(text: str) -> str:
    """Return what the store keeps of a ticket. A file stream's prefix is no part of it."""
    return hashlib.sha256(text[-52:].encode()).hexdigest()


def opens(prediction: Prediction, now: float, origin: str | None) -> bool:
    """Say whether a prediction's ticket opens its stream now, to a request of this origin."""
    return now < prediction.ticket_expires_at and origin_bound(prediction.ticket_origins, origin)


class OutputTicket(NamedTuple):
    """What the ticket of an output file says."""

    prediction_id: str
    place: int
    proof: str


def output_ticket(secret: bytes, prediction_id: str, place: int, sha256: str) -> str:
    """Derive the ticket by which a prediction's caller reads one file of its output."""
    return f"{prediction_id}-{place}-{_proof(secret, prediction_id, place, sha256)}"


def read_output_ticket(text: str) -> OutputTicket | None:
    """Read what a ticket says, which is still to be proved (`proves`)."""
    prediction_id, _, rest = text.partition("-")
    place, _, proof = rest.partition("-")
    return OutputTicket(prediction_id, int(place), proof) if place.isascii() and place.isdigit() else None


def proves(ticket: OutputTicket, secret: bytes, sha256: str) -> bool:
    """Say whether a ticket was derived for these bytes, by this gateway."""
    return hmac.compare_digest(ticket.proof.encode(), _proof(secret, *ticket[:2], sha256).encode())


def _proof(secret: bytes, prediction_id: str, place: int, sha256: str) -> str:
    mac = hmac.digest(secret, f"output:{prediction_id}:{place}:{sha256}".encode(), "sha256")
    return base64.b32encode(mac).decode().rstrip("=").lower()
