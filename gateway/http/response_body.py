"""Sends large and streamed response bodies, and distinguishes a client that disconnects from an upstream that fails.

aiohttp raises `ClientError` for both. Inside the context of an upstream request, a disconnected client would be counted
as a failure of upstream.

A large response has room in `ResponseMemory` (`response_memory.py`) until its client has taken it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.http.body_pace import pace_of
from gateway.http.keys import CALLER, RESPONSE_MEMORY, SENT_BYTES, SETTINGS
from gateway.http.response import Response
from gateway.http.response_memory import SMALL_RESPONSE, Room

STALL_SECONDS = 60.0
"""Longest time that a client may take to accept one chunk, of one MiB at most. A client that takes longer is
disconnected, because it holds an upstream connection or an open file that others need."""

IN_ONE_PIECE = 256 * 1024
_SAFE = frozenset({"GET", "HEAD", "QUERY"})
"""Methods that change nothing (RFC 9110, 9.2.1). `QUERY` is a search."""
_PIECE = 256 * 1024


class ClientDisconnected(Exception):
    """The client's connection is closed."""


async def begin(request: web.Request, response: web.StreamResponse) -> None:
    """Send the header section of a response. Raise `ClientDisconnected` if the connection is closed."""
    try:
        await response.prepare(request)
    except ConnectionError as exc:
        raise ClientDisconnected from exc


async def send(request: web.Request, response: web.StreamResponse, chunk: bytes, patience: float | None = None) -> None:
    """Send a chunk of a body.

    Raise `ClientDisconnected` if the connection is closed, or if it is aborted because the client did not take the
    chunk within `patience` seconds (default: `STALL_SECONDS`).
    """
    try:
        async with asyncio.timeout(STALL_SECONDS if patience is None else patience):
            await response.write(chunk)
    except TimeoutError as exc:
        abort(request)
        raise ClientDisconnected from exc
    except ConnectionError as exc:
        raise ClientDisconnected from exc
    response[SENT_BYTES] = response.get(SENT_BYTES, 0) + len(chunk)


def room_of(request: web.Request) -> Room:
    """Return the room for a response in memory. Use it as a context: it is given back at the end."""
    caller = request.get(CALLER)
    return request.app[RESPONSE_MEMORY].room(caller.team.name if caller is not None else "")


def patience_of(request: web.Request) -> float:
    """Return for how many seconds a request may wait for room."""
    caller = request.get(CALLER)
    return caller.team.max_wait_seconds if caller is not None else 0.0


@asynccontextmanager
async def page_room(request: web.Request) -> AsyncIterator[Room]:
    """Give a context room for the largest page of a list, before it is read. Raise `RateLimited` or `Overloaded`."""
    size = request.app[SETTINGS].value.max_page_bytes
    with room_of(request) as room:
        if not room.take(size):
            await room.wait(size, patience_of(request))
        yield room


async def respond(
    request: web.Request,
    pieces: list[bytes],
    content_type: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Send a body of many pieces, for which there is room already. A large one is written piece by piece."""
    size = sum(map(len, pieces))
    if size <= SMALL_RESPONSE or request.method == "HEAD":
        return web.Response(status=status, body=b"".join(pieces), content_type=content_type, headers=headers)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_type = content_type
    return await _write(request, response, pieces, size)


async def send_whole(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Send a response that has a complete body. A large one needs room, and is written piece by piece.

    Raise `RateLimited` or `Overloaded` if there is no room: waiting would keep the body in memory. What changed
    something, such as a create, is always answered.
    """
    headers: Mapping[str, str]
    if isinstance(response, Response):
        body, headers = response.take_body(), response.fields
    elif isinstance(response, web.Response) and isinstance(response.body, bytes):
        body, headers = response.body, response.headers
    else:
        return response
    with room_of(request) as room:
        if request.method in _SAFE:
            room.need(len(body))
        else:
            room.force(len(body))
        return await _write(request, web.StreamResponse(status=response.status, headers=headers), [body], len(body))


async def _write(
    request: web.Request, response: web.StreamResponse, pieces: list[bytes], size: int
) -> web.StreamResponse:
    """Write a body as fast as the client takes it. Disconnect a client that does not keep the pace."""
    response.content_length = size
    pace, now = pace_of(request), asyncio.get_running_loop().time
    try:
        await begin(request, response)
        for piece in pieces:
            for at in range(0, len(piece), _PIECE):
                began = now()
                part = piece[at : at + _PIECE] if len(piece) > _PIECE else piece
                await send(request, response, part, pace.patience)
                pace.waited(now() - began)
                pace.moved(len(part))
                await asyncio.sleep(0)
        await response.write_eof()
    except (ClientDisconnected, ConnectionError):
        abort(request)
    return response


def abort(request: web.Request) -> None:
    """Abort the connection, so that the client does not take an incomplete body for a complete one."""
    if request.transport is not None:
        request.transport.abort()
