"""Sends streamed response bodies, and distinguishes a client that disconnects from an upstream that fails.

aiohttp raises `ClientError` for both. Inside the context of an upstream request, a disconnected client would be counted
as a failure of upstream.
"""

import asyncio
from collections.abc import Mapping

from aiohttp import web

from gateway.http.keys import SENT_BYTES

STALL_SECONDS = 60.0
"""Longest time that a client may take to accept one chunk, of one MiB at most. A client that takes longer is
disconnected, because it holds an upstream connection or an open file that others need."""

IN_ONE_PIECE = 256 * 1024
_PIECE = 256 * 1024


class ClientDisconnected(Exception):
    """The client's connection is closed."""


async def send(request: web.Request, response: web.StreamResponse, chunk: bytes) -> None:
    """Send a chunk of a body.

    Raise `ClientDisconnected` if the connection is closed, or if it is aborted because the client stopped reading.
    """
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await response.write(chunk)
    except TimeoutError as exc:
        abort(request)
        raise ClientDisconnected from exc
    except ConnectionError as exc:
        raise ClientDisconnected from exc
    response[SENT_BYTES] = response.get(SENT_BYTES, 0) + len(chunk)


async def respond(
    request: web.Request,
    pieces: list[bytes],
    content_type: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """Send a body of many pieces. A large one is written piece by piece, as fast as the client takes it."""
    size = sum(map(len, pieces))
    if size <= IN_ONE_PIECE or request.method == "HEAD":
        return web.Response(status=status, body=b"".join(pieces), content_type=content_type, headers=headers)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_type, response.content_length = content_type, size
    await response.prepare(request)
    try:
        for piece in pieces:
            for at in range(0, len(piece), _PIECE):
                await send(request, response, piece[at : at + _PIECE] if len(piece) > _PIECE else piece)
                await asyncio.sleep(0)
        await response.write_eof()
    except ClientDisconnected:
        abort(request)
    return response


def abort(request: web.Request) -> None:
    """Abort the connection, so that the client does not take an incomplete body for a complete one."""
    if request.transport is not None:
        request.transport.abort()
