"""Reads request bodies within limits on size, time and content. Refuses requests that contain the caller's own key."""

import asyncio
import secrets
from functools import partial
from io import BytesIO
from urllib.parse import unquote_to_bytes

from aiohttp import web

from gateway.domain import body_limits, json_scan
from gateway.domain.body_limits import BodyLimits, Excess
from gateway.errors import BadRequest, BodyTooLarge, Overloaded, RateLimited, Unprocessable, UnsupportedMedia
from gateway.http.body_pace import pace_of
from gateway.http.keys import BODY_BYTES, BODY_MEMORY, CALLER, METRICS, PRESENTED_KEY, REQUEST_ID, SETTINGS
from gateway.runtime.pauses import LARGE, off_the_loop

_JSON = "application/json"
_SMALL_BODY = 65_536
"""Bytes of a body that is not counted, and never refused."""
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

    Raise `Unprocessable` for a body that holds more than `[limits]` allow, and the errors of `read`.
    """
    body = await read(request)
    limits = request.app[SETTINGS].value.body_limits
    excess = await _excess_of(body, limits)
    if excess is not None:
        request.app[METRICS].body_refused(excess.limit)
        text = f"the body holds more than {excess.most} {excess.what} ({excess.limit})"
        raise Unprocessable.field(excess.field, text, "too_many")
    return body


async def _excess_of(body: bytes, limits: BodyLimits) -> Excess | None:
    """Count what a body holds, and let others run meanwhile if it is large."""
    if len(body) <= LARGE:
        return None if body_limits.is_surely_within(body, limits) else body_limits.excess_of(body, limits)
    steps = body_limits.excess_steps(body, limits)
    while True:
        try:
            next(steps)
        except StopIteration as found:
            excess: Excess | None = found.value
            return excess
        await asyncio.sleep(0)


async def read(request: web.Request) -> bytes:
    """Read and decompress a body.

    Raise `UnsupportedMedia` for an unknown content coding, `BodyTooLarge`, `BadRequest` for a body that is incomplete
    or late, `Unprocessable` if it contains the caller's key, in plain text or with JSON escapes.

    Keys are never sent upstream and never stored (docs/architecture.md, Invariants 1). A known bug of the JavaScript
    client sends one as input.
    """
    check_coding(request)
    settings = request.app[SETTINGS].value
    if (request.content_length or 0) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    try:
        if request.content.is_eof():
            # A small body arrives with its head: there is nothing to wait for.
            body = request.content.read_nowait()
            _check_size(request, len(body), settings.max_body_bytes)
        else:
            async with asyncio.timeout(settings.body_idle_seconds) as deadline:
                body = await _read_limited(request, settings.max_body_bytes, deadline)
    except TimeoutError as exc:
        raise pace_of(request).refusal() from exc
    except (web.RequestPayloadError, ValueError, ConnectionError) as exc:
        raise BadRequest("The request's body could not be read.") from exc
    key = request.get(PRESENTED_KEY, b"")
    search = partial(json_scan.holds, body, (key,))
    if key and (search() if len(body) <= LARGE else await off_the_loop(body, search)):
        raise Unprocessable(detail=_KEY_FOUND, title="API key in request")
    return body


async def _read_limited(request: web.Request, limit: int, deadline: asyncio.Timeout) -> bytes:
    """Read a body. The deadline moves as long as bytes keep coming."""
    # `request.read` has a limit that is fixed when the application is made; this one changes with a reload.
    content, body, pace, size, paused_at = request.content, BytesIO(), None, 0, 0
    started = now = asyncio.get_running_loop().time()
    while chunk := await content.readany():
        body.write(chunk)
        size += len(chunk)
        _check_size(request, size, limit)
        if size - paused_at > LARGE:
            # What arrives compressed is there at once, and takes time to unpack.
            paused_at = size
            await asyncio.sleep(0)
        if not content.is_eof():
            pace = pace or pace_of(request)
            started, now = now, asyncio.get_running_loop().time()
            pace.waited(now - started)
            pace.moved(len(chunk))
            deadline.reschedule(now + pace.patience)
    return body.getvalue()


def _check_size(request: web.Request, size: int, limit: int) -> None:
    """Raise `BodyTooLarge`, or as `_hold` does."""
    if size > limit:
        raise _too_large(limit)
    if size > _SMALL_BODY:
        _hold(request, size)


def _hold(request: web.Request, size: int) -> None:
    """Count the bytes of a body that is being read. Raise `Overloaded`, or `RateLimited` for its own team's bodies."""
    memory, team = request.app[BODY_MEMORY], _team_of(request)
    held = request.get(BODY_BYTES, 0)
    most = request.app[SETTINGS].value.max_bodies_bytes
    more = size - held
    if held + more > most or memory.used + more > most:
        request.app[METRICS].body_refused("max_bodies_bytes")
        raise Overloaded("The memory for large request bodies is in use. Try again.", retry_after=1)
    # Half of it for one team, so that it cannot keep all others from sending large bodies.
    if memory.of(team) + more > most // 2 and memory.of(team) > held:
        request.app[METRICS].body_refused("max_bodies_bytes")
        raise RateLimited("Your team is sending too many large request bodies at a time. Try again.", retry_after=1)
    memory.add(team, more)
    request[BODY_BYTES] = size


def release(request: web.Request) -> None:
    """Stop counting a request's body: it is no longer in memory."""
    held = request.get(BODY_BYTES, 0)
    if held:
        request[BODY_BYTES] = 0
        request.app[BODY_MEMORY].add(_team_of(request), -held)


def _team_of(request: web.Request) -> str:
    caller = request.get(CALLER)
    return caller.team.name if caller is not None else ""


def check_coding(request: web.Request) -> None:
    """Raise `UnsupportedMedia` for an unsupported content coding."""
    if request.headers.get("Content-Encoding", "").lower() not in _CODINGS:
        raise UnsupportedMedia("The body's content coding is not supported; use gzip, deflate or none.")


def refuse_own_key_in_head(request: web.Request, key: bytes, head: bytes) -> None:
    """Raise `Unprocessable` if the path, the query or a header other than `Authorization` contains the caller's key.

    `head` has all header fields, so it contains the key once.
    """
    target = request.raw_path.encode("utf-8", "surrogateescape")
    if not key or (head.count(key) == 1 and key not in target and b"%" not in target):
        return
    is_found = key in target or key in unquote_to_bytes(target)
    for name, value in request.headers.items():
        if key in value.encode("utf-8", "surrogateescape") and name.lower() != "authorization":
            is_found = True
    if is_found:
        # The key may be in X-Request-Id, which would be echoed and logged.
        request[REQUEST_ID] = secrets.token_hex(12)
        raise Unprocessable(detail=_KEY_FOUND, title="API key in request")


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request's body is larger than {limit} bytes. Upload files to /v1/files instead.")
