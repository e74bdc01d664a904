"""Tickets: parts of URLs that grant access, without a key, to one prediction's stream or one file of its output.

The ticket of a stream has the form of upstream's stream URLs (docs/replicate-api.md, Streaming): 52 base32 characters,
with `<4 letters>-` before them if the stream's events are files. It is made from the prediction's id and a secret of
the gateway, so that every response shows the same one. It contains a proof, 120 bits of a MAC over the id, and the id
itself, XORed with a pad that is derived from the proof. So the store needs no index of tickets. Without the secret, a
ticket can be neither made nor read. Tickets of earlier versions, and of ids that have another form, are a MAC alone,
and the store has their SHA-256. A ticket can be used repeatedly until it expires, because browsers reconnect by
themselves. If a publishable key created the prediction, the ticket is restricted to that key's origins, like the key
itself.

The ticket of an output file has the form `<prediction>-<place>-<proof>`: the prediction's id, the file's index, and a
MAC over both and the SHA-256 of the bytes. It is valid as long as the copy exists, so it needs no record. It is not
restricted to origins, because browsers send no Origin for `<img>` and similar elements.
"""

import base64
import binascii
import hashlib
import hmac
import re
from functools import lru_cache
from typing import NamedTuple

from gateway.domain.ids import ID, ID_LENGTH
from gateway.domain.keyed_digest import Mac
from gateway.domain.records import Prediction
from gateway.domain.teams import origin_bound

TICKET = r"[a-z2-7]{52}"
FILE_TICKET = rf"[a-z]{{4}}-{TICKET}"
FILE_PREFIX = "rgws-"
_REMEMBERED = 10_000
_TICKET_LENGTH = 52
_PROOF_BYTES = 15
_PACKED_BYTES = 17
"""An id, as a number in base 36."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [high + low for high in _LETTERS for low in _LETTERS]
_SHIFTS = range(250, -1, -10)

OUTPUT_TICKET = rf"{ID}-\d{{1,4}}-{TICKET}"
_has_usual_form = re.compile(ID).fullmatch


@lru_cache(maxsize=_REMEMBERED)
def ticket(secret: bytes, prediction_id: str) -> str:
    """Make the ticket of a prediction."""
    if _has_usual_form(prediction_id):
        return _made(secret, int(prediction_id, 36).to_bytes(_PACKED_BYTES, "big"))
    return _base32(hmac.digest(secret, b"stream:" + prediction_id.encode(), "sha256"))


def stored(secret: bytes, prediction_id: str) -> str:
    """Return what the store keeps to find the prediction of a ticket: nothing if the ticket contains its id."""
    return "" if _has_usual_form(prediction_id) else fingerprint(ticket(secret, prediction_id))


def prediction_of(secret: bytes, text: str) -> str | None:
    """Return the id that a ticket contains; `None` if it contains none, or was not made with this secret."""
    text = text[-_TICKET_LENGTH:]
    try:
        content = base64.b32decode(text.upper() + "====")
    except (binascii.Error, ValueError):
        return None
    pad = _keys(secret).pad.digest(content[:_PROOF_BYTES])[:_PACKED_BYTES]
    number = int.from_bytes(content[_PROOF_BYTES:], "big") ^ int.from_bytes(pad, "big")
    if number >= 36**ID_LENGTH:
        return None
    made = _made(secret, number.to_bytes(_PACKED_BYTES, "big"))
    if not hmac.compare_digest(made.encode(), text.encode()):
        return None
    digits = []
    for _ in range(ID_LENGTH):
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _made(secret: bytes, packed: bytes) -> str:
    keys = _keys(secret)
    proof = keys.proof.digest(packed)[:_PROOF_BYTES]
    # A pad is used for one id only, because each has its own proof.
    pad = keys.pad.digest(proof)[:_PACKED_BYTES]
    hidden = int.from_bytes(packed, "big") ^ int.from_bytes(pad, "big")
    return _base32(proof + hidden.to_bytes(_PACKED_BYTES, "big"))


class _Keys(NamedTuple):
    """The MACs in the tickets of streams."""

    proof: Mac
    pad: Mac


@lru_cache(maxsize=4)
def _keys(secret: bytes) -> _Keys:
    return _Keys(Mac(secret, b"stream-proof:"), Mac(secret, b"stream-pad:"))


def _base32(data: bytes) -> str:
    """Encode 32 bytes, as `base64.b32encode` does without padding, in half its time: two letters at once."""
    number = int.from_bytes(data, "big") << 4
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def fingerprint(text: str) -> str:
    """Return the stored form of a ticket that is a MAC alone: the SHA-256, without a file stream's prefix."""
    return hashlib.sha256(text[-_TICKET_LENGTH:].encode()).hexdigest()


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
    return _base32(hmac.digest(secret, f"output:{prediction_id}:{place}:{sha256}".encode(), "sha256"))
