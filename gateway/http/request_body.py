"""Reads request bodies within limits on size and time. Refuses requests that contain the caller's own key."""

import asyncio
import secrets
from urllib.parse import unquote_to_bytes

from aiohttp import web

from gateway.errors import BadRequest, BodyTooLarge, Unprocessable, UnsupportedMedia
from gateway.http.body_pace import pace_of
from gateway.http.keys import PRESENTED_KEY, REQUEST_ID, SETTINGS

_JSON = "application/json"
_CODINGS = ("", "identity", "gzip", "deflate")
_KEY_FOUND = (
    "The request contains your own API key, so it was neither sent on nor stored. The JavaScript client sends its "
    "configuration, including the key, as input when fileEncodingStrategy is 'data-uri'; use 'upload' or 'default'."
)


def require_json(request: web.Request) -> None:
    """Raise `UnsupportedMedia` for a content type other than JSON, on the gateway's own routes."""
    if request.content_type != _JSON and "Content-Type" in request.headers:
        raise UnsupportedMedia(f"The body must be {_JSON}.")


async def read_json(request: web.Request) -> bytes:
    """Read a JSON body, unparsed, under any content type: `curl -d`, as in Replicate's examples, calls it a form.

    Raise the errors of `read`.
    """
    return await read(request)


async def read(request: web.Request) -> bytes:
    """Read and decompress a body.

    Raise `UnsupportedMedia` for an unknown content coding, `BodyTooLarge`, `BadRequest` for a body that is incomplete
    or late, `Unprocessable` if it contains the caller's key.
    """
    check_coding(request)
    settings = request.app[SETTINGS].value
    if (request.content_length or 0) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    try:
        async with asyncio.timeout(settings.body_idle_seconds) as deadline:
            body = await _read_limited(request, settings.max_body_bytes, deadline)
    except TimeoutError as exc:
        raise pace_of(request).refusal() from exc
    except (web.RequestPayloadError, ValueError, ConnectionError) as exc:
        raise BadRequest("The request's body could not be read.") from exc
    refuse_own_key(request, body)
    return body


async def _read_limited(request: web.Request, limit: int, deadline: asyncio.Timeout) -> bytes:
    """Read a body. The deadline moves as long as bytes keep coming."""
    # `request.read` has a limit that is fixed when the application is made; this one changes with a reload.
    content, body, pace = request.content, bytearray(), None
    started = now = asyncio.get_running_loop().time()
    while chunk := await content.readany():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
        if not content.is_eof():
            pace = pace or pace_of(request)
            started, now = now, asyncio.get_running_loop().time()
            pace.waited(now - started)
            pace.received(len(chunk))
            deadline.reschedule(now + pace.patience)
    return bytes(body)


def check_coding(request: web.Request) -> None:
    """Raise `UnsupportedMedia` for an unsupported content coding."""
    if request.headers.get("Content-Encoding", "").lower() not in _CODINGS:
        raise UnsupportedMedia("The body's content coding is not supported; use gzip, deflate or none.")


def refuse_own_key(request: web.Request, body: bytes) -> None:
    """Raise `Unprocessable` if the body contains the caller's key, in plain text or with JSON escapes.

    Keys are never sent upstream and never stored (docs/architecture.md, Invariants 1). A known bug of the JavaScript
    client sends one as input.
    """
    key = request.get(PRESENTED_KEY, b"")
    if key and (key in body or (b"\\" in body and key in _unescaped(body, key))):
        raise Unprocessable(detail=_KEY_FOUND, title="API key in request")


def refuse_own_key_in_head(request: web.Request) -> None:
    """Raise `Unprocessable` if the path, the query or a header other than `Authorization` contains the caller's key."""
    key = request.get(PRESENTED_KEY, b"")
    if not key:
        return
    target = request.raw_path.encode("utf-8", "surrogateescape")
    is_found = key in target or key in unquote_to_bytes(target)
    for name, value in request.headers.items():
        if key in value.encode("utf-8", "surrogateescape") and name.lower() != "authorization":
            is_found = True
    if is_found:
        # The key may be in X-Request-Id, which would be echoed and logged.
        request[REQUEST_ID] = secrets.token_hex(12)
        raise Unprocessable(detail=_KEY_FOUND, title="API key in request")


def _unescaped(body: bytes, key: bytes) -> bytes:
    """Undo JSON escapes of the characters that occur in the key.

    Parsing is not enough: it keeps one value of a duplicate name, but the bytes that are sent on contain both.
    """
    if b"\\u00" in body:
        for letter in set(key):
            body = body.replace(b"\\u%04x" % letter, b"%c" % letter).replace(b"\\u%04X" % letter, b"%c" % letter)
    return body.replace(b"\\/", b"/")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request's body is larger than {limit} bytes. Upload files to /v1/files instead.")
