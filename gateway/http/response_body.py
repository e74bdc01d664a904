"""Bodies out, piece by piece. A caller who leaves is told from an upstream that breaks off.

aiohttp raises one exception, a `ClientError`, for both: within the context of an upstream request it would be taken for
upstream's failure, counted against it, and reported to nobody.
"""

import asyncio

from aiohttp import web

from gateway.http.keys import SENT_BYTES

STALL_SECONDS = 60.0
"""How long a caller may take over one piece, of a megabyte at most. Whoever takes longer holds a connection of
upstream's, or a file, that others wait for."""


class CallerLeft(Exception):
    """There is nobody to send to any more."""


async def send(request: web.Request, response: web.StreamResponse, chunk: bytes) -> None:
    """Send a piece of a body. Raise `CallerLeft` if the connection has gone, or is cut because nobody reads."""
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await response.write(chunk)
    except TimeoutError as exc:
        cut(request)
        raise CallerLeft from exc
    except ConnectionError as exc:
        raise CallerLeft from exc
    response[SENT_BYTES] = response.get(SENT_BYTES, 0) + len(chunk)


def cut(request: web.Request) -> None:
    """Cut the connection: what has begun and cannot be finished must not look whole."""
    if request.transport is not None:
        request.transport.abort()
