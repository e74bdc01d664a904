"""Reads the JSON bodies of the gateway's own routes into values, and cursors of lists. Errors name the field."""

import base64
import binascii
import json
import math
from contextlib import suppress
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from gateway.errors import BadRequest, Unprocessable, UnsupportedMedia
from gateway.http.request_body import read_json, require_json

BodyT = TypeVar("BodyT", bound=msgspec.Struct)
Place = tuple[float, str]
"""A place in a list that is ordered by time and id."""

_JSON: Final = "application/json"
HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Of answers that only their caller may have."""
_LONGEST_REASON: Final = 500
_LONGEST_CURSOR: Final = 500


async def read_body(request: web.Request, kind: type[BodyT]) -> BodyT:
    """Read a body of the public listener. Raise `BadRequest`, `Unprocessable`, or as `request_body.read` does."""
    require_json(request)
    return decode(await read_json(request), kind)


async def read_ops_body(request: web.Request, kind: type[BodyT]) -> BodyT:
    """Read a body of the ops listener, which must be declared as JSON.

    A page of another site cannot send that without asking first, also where the listener needs no token.
    """
    if request.content_type != _JSON or "Content-Type" not in request.headers:
        raise UnsupportedMedia(f"Send the body as Content-Type: {_JSON}.")
    return decode(await read_json(request), kind)


def decode(body: bytes, kind: type[BodyT]) -> BodyT:
    """Decode a body. Raise `BadRequest` if it is no JSON, `Unprocessable` naming the field that is wrong."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        raise _unprocessable(exc) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadRequest(f"Failed to parse request body as JSON: {exc}") from exc


def _unprocessable(error: msgspec.ValidationError) -> Unprocessable:
    # It names the field, and a field that does not exist can be as long as the body.
    text = str(error)[:_LONGEST_REASON]
    field = text.rpartition("`$.")[2].partition("`")[0] if "`$." in text else ""
    return Unprocessable.field(field, text, "invalid_type")


def write_cursor(place: Place | None) -> str | None:
    """Return the cursor of the page after a place."""
    return None if place is None else base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def read_cursor(text: str | None) -> Place | None:
    """Return the place of a cursor. Raise `Unprocessable` for any other text."""
    if text is None:
        return None
    place: Place | None = None
    with suppress(binascii.Error, UnicodeError, ValueError, msgspec.MsgspecError):
        place = msgspec.json.decode(base64.urlsafe_b64decode(text[:_LONGEST_CURSOR].encode("ascii")), type=Place)
    if place is None or not math.isfinite(place[0]) or "\0" in place[1] or write_cursor(place) != text:
        raise Unprocessable.field("cursor", "cursor must be the `next` of an earlier page")
    return place


def answer(body: object, status: int = 200) -> web.Response:
    """Return an answer that no cache keeps: it can have a secret."""
    return web.Response(status=status, body=msgspec.json.encode(body), content_type=_JSON, headers=HEADERS)
