"""Bodies in: read whole where they are looked at, with a limit and a deadline."""

import asyncio

import msgspec
from aiohttp import web

from gateway.edge.keys import PRESENTED, SETTINGS
from gateway.errors import BadRequest, BodyTooLarge, Unprocessable, UnsupportedMedia

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
    settings = request.app[SETTINGS]
    if (request.content_length or 0) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    try:
        async with asyncio.timeout(settings.body_seconds):
            body = await request.read()
    except web.HTTPRequestEntityTooLarge as exc:
        raise _too_large(settings.max_body_bytes) from exc
    except TimeoutError as exc:
        raise BadRequest("The request's body did not arrive in time.") from exc
    except (web.RequestPayloadError, ValueError) as exc:
        raise BadRequest("The request's body could not be read.") from exc
    refuse_own_key(request, body)
    return body


def check_coding(request: web.Request) -> None:
    """Raise `UnsupportedMedia` for a content coding that is not undone here."""
    if request.headers.get("Content-Encoding", "").lower() not in _CODINGS:
        raise UnsupportedMedia("The body's content coding is not supported; use gzip, deflate or none.")


def refuse_own_key(request: web.Request, body: bytes) -> None:
    """Raise `Unprocessable` if the caller's key stands in the body, plainly or in JSON's escapes.

    Keys never travel upstream and are never stored (design 2.1); a known fault of the JavaScript client sends one.
    """
    presented = request.get(PRESENTED)
    if not presented:
        return
    key = presented.encode("utf-8", "surrogateescape")
    if key in body or (b"\\u" in body and key in _unescaped(body)):
        raise Unprocessable(detail=_KEY_FOUND, title="API key in request")


def _unescaped(body: bytes) -> bytes:
    try:
        return msgspec.json.encode(msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return b""


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request's body is larger than {limit} bytes. Upload files to /v1/files instead.")
