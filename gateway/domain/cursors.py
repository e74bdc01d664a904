"""Cursors of the gateway's own lists, in the form of Replicate's (Django REST cursor pagination).

See docs/replicate-api.md, Routes.

A cursor is the base64 of `p=<time>|<id>`, with `r=1&` before it when the page runs backward, towards newer items. It
says only where a page begins; whose items are listed never depends on it.
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
    """Begin after the item that has this time and id."""

    at: float
    id: str
    backward: bool = False


def encode(cursor: Cursor) -> str:
    """Write a cursor as the opaque text of a link."""
    fields = {"r": "1"} if cursor.backward else {}
    return base64.b64encode(urlencode(fields | {"p": f"{cursor.at!r}|{cursor.id}"}).encode()).decode()


def decode(text: str) -> Cursor:
    """Read a cursor; raise `ValueError` for whatever `encode` did not write."""
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
