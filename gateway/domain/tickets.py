"""Tickets: parts of URLs that grant access, without a key, to one prediction's stream or one file of its output.

The ticket of a stream has the form of upstream's stream URLs (docs/replicate-api.md, Streaming): 52 base32 characters,
with `<4 letters>-` before them if the stream's events are files. It is derived from the prediction's id and a secret of
the gateway, so that every response shows the same one. The store has only its SHA-256, so a stolen database gives no
access to streams. A ticket can be used repeatedly until it expires, because browsers reconnect by themselves. If a
publishable key created the prediction, the ticket is restricted to that key's origins, like the key itself.

The ticket of an output file has the form `<prediction>-<place>-<proof>`: the prediction's id, the file's index, and a
MAC over both and the SHA-256 of the bytes. It is valid as long as the copy exists, so it needs no record. It is not
restricted to origins, because browsers send no Origin for `<img>` and similar elements.
"""

import hashlib
import hmac
from functools import lru_cache
from typing import NamedTuple

from gateway.domain import base32
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
    return _mac(secret, b"stream:" + prediction_id.encode())


def fingerprint(text: str) -> str:
    """Return the stored form of a ticket: the SHA-256, without a file stream's prefix."""
    return hashlib.sha256(text[-52:].encode()).hexdigest()


def opens(prediction: Prediction, now: float, origin: str | None) -> bool:
    """Return whether a prediction's ticket is valid now, for a request with this Origin."""
    return now < prediction.ticket_expires_at and origin_bound(prediction.ticket_origins, origin)


class OutputTicket(NamedTuple):
    """The parts of an output file's ticket."""

    prediction_id: str
    place: int
    proof: str


def output_ticket(secret: bytes, prediction_id: str, place: int, sha256: str) -> str:
    """Return the ticket of one file of a prediction's output."""
    return f"{prediction_id}-{place}-{_proof(secret, prediction_id, place, sha256)}"


def read_output_ticket(text: str) -> OutputTicket | None:
    """Parse a ticket; `None` if it has not the right form. Check it with `proves` before use."""
    prediction_id, _, rest = text.partition("-")
    place, _, proof = rest.partition("-")
    return OutputTicket(prediction_id, int(place), proof) if place.isascii() and place.isdigit() else None


def proves(ticket: OutputTicket, secret: bytes, sha256: str) -> bool:
    """Return whether this gateway made a ticket for a file with this SHA-256."""
    return hmac.compare_digest(ticket.proof.encode(), _proof(secret, *ticket[:2], sha256).encode())


def _proof(secret: bytes, prediction_id: str, place: int, sha256: str) -> str:
    return _mac(secret, f"output:{prediction_id}:{place}:{sha256}".encode())


def _mac(secret: bytes, message: bytes) -> str:
    mac = _keyed(secret).copy()
    mac.update(message)
    return base32.encode(mac.digest())


@lru_cache(maxsize=8)
def _keyed(secret: bytes) -> hmac.HMAC:
    """Return an HMAC to be copied: the work on the key is done once."""
    return hmac.new(secret, digestmod="sha256")
