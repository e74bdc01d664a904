"""Cursors of the gateway's lists, in the form of Replicate's (Django REST cursor pagination).

See docs/replicate-api.md, Routes.

A cursor is the base64 of `p=<time>|<id>`, with `r=1&` before it if the page goes backward, towards newer items. It only
says where a page begins. It has no influence on whose items are listed, so it need not be protected.
"""

import base64
import binascii
import math
import re
from urllib.parse import parse_qs, urlencode

import msgspec

MAX_LENGTH = 200
_ID = re.compile(r"[A-Za-z0-9_=-]{1,100}")


class Cursor(msgspec.Struct, frozen=True):
    """The position after the item with this time and id."""

    at: float
    id: str
    backward: bool = False


def encode(cursor: Cursor) -> str:
    """Encode a cursor for a link."""
    fields = {"r": "1"} if cursor.backward else {}
    return base64.b64encode(urlencode(fields | {"p": f"{cursor.at!r}|{cursor.id}"}).encode()).decode()


def decode(text: str) -> Cursor:
    """Decode a cursor. Raise `ValueError` for a text that `encode` does not return."""
    if len(text) > MAX_LENGTH:
        raise ValueError("too long")
    try:
        fields = parse_qs(base64.b64decode(text, validate=True).decode("ascii"), strict_parsing=True)
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise ValueError("not a cursor") from exc
    at, _, item = fields.get("p", [""])[0].partition("|")
    cursor = Cursor(float(at), item, fields.get("r") == ["1"])
    if not math.isfinite(cursor.at) or not _ID.fullmatch(item) or encode(cursor) != text:
        raise ValueError("not a cursor")
    return cursor
