"""Bodies in: read whole where they are looked at, with a limit and a deadline."""

import asyncio
import secrets
from urllib.parse import unquote_to_bytes

from aiohttp import web

from gateway.errors import BadRequest, BodyTooLarge, Unprocessable, UnsupportedMedia
from gateway.http.keys import PRESENTED, REQUEST_ID, SETTINGS

_JSON = "application/json"
_CODINGS = ("", "identity", "gzip", "deflate")
_KEY_FOUND = (
    "The request contains your own API key, so it was neither sent on nor stored. The JavaScript client sends its own "
    "state, key included, as input when fileEncodingStrategy is 'data-uri'; use 'upload' or 'default' instead."
)


async def read_json(request: web.Request) -> bytes:
    """Read a JSON body. Raise `UnsupportedMedia` for another type, and what `read` raises."""
    if request.content_type != _JSON and "Content-Type" in request.headers:
        raise UnsupportedMedia(f"The body must be {_JSON}.")
    return await read(request)


async def read(request: web.Request) -> bytes:
    """Read a body as it is meant, decompressed.

    Raise `BodyTooLarge`, `BadRequest` for one that does not arrive whole, `Unprocessable` if the caller's key is in it.
    """
    check_coding(request)
    settings = request.app[SETTINGS].value
    if (request.content_length or 0) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    try:
        async with asyncio.timeout(settings.body_seconds):
            body = await _whole(request, settings.max_body_bytes)
    except TimeoutError as exc:
        raise BadRequest("The request's body did not arrive in time.") from exc
    except (web.RequestPayloadError, ValueError, ConnectionError) as exc:
        raise BadRequest("The request's body could not be read.") from exc
    refuse_own_key(request, body)
    return body


async def _whole(request: web.Request, limit: int) -> bytes:
    # aiohttp's own way knows one limit, for good.
    body = bytearray()
    while piece := await request.content.readany():
        body += piece
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def check_coding(request: web.Request) -> None:
    """Raise `UnsupportedMedia` for a content coding that is not undone here."""
    if request.headers.get("Content-Encoding", "").lower() not in _CODINGS:
        raise UnsupportedMedia("The body's content coding is not supported; use gzip, deflate or none.")


def refuse_own_key(request: web.Request, body: bytes) -> None:
    """Raise `Unprocessable` if the caller's key stands in the body, plainly or in JSON's escapes.

    Keys never travel upstream and are never stored (docs/architecture.md, Invariants 1); a known fault of the
    JavaScript client sends one.
    """
    key = _presented(request)
    if key and (key in body or key in _unescaped(body, key)):
        raise Unprocessable(detail=_KEY_FOUND, title="API key in request")


def refuse_own_key_in_head(request: web.Request) -> None:
    """Raise `Unprocessable` if the caller's key stands in the path, the query, or a header that is not for keys."""
    key = _presented(request)
    if not key:
        return
    target = request.raw_path.encode("utf-8", "surrogateescape")
    values = [target, unquote_to_bytes(target)]
    values += [
        value.encode("utf-8", "surrogateescape")
        for name, value in request.headers.items()
        if name.lower() != "authorization"
    ]
    if any(key in value for value in values):
        # The id may be where it stands, and would be said again.
        request[REQUEST_ID] = secrets.token_hex(12)
        raise Unprocessable(detail=_KEY_FOUND, title="API key in request")


def _presented(request: web.Request) -> bytes:
    presented: str = request.get(PRESENTED, "")
    return presented.encode("utf-8", "surrogateescape")


def _unescaped(body: bytes, key: bytes) -> bytes:
    """Undo the escapes of those letters that are in the key.

    Parsing would be no help: of a name that stands twice in an object it keeps one value, and both are sent on.
    """
    if b"\\u00" in body:
        for letter in set(key):
            body = body.replace(b"\\u%04x" % letter, b"%c" % letter).replace(b"\\u%04X" % letter, b"%c" % letter)
    return body.replace(b"\\/", b"/")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request's body is larger than {limit} bytes. Upload files to /v1/files instead.")
