"""Bodies out, piece by piece. A caller who leaves is told from an upstream that breaks off.

aiohttp raises one exception, a `ClientError`, for both: within the context of an upstream request it would be taken for
upstream's failure, counted against it, and reported to nobody.
"""

from aiohttp import web

from gateway.edge.keys import SENT_BYTES


class CallerLeft(Exception):
    """There is nobody to send to any more."""


async def send(response: web.StreamResponse, chunk: bytes) -> None:
    """Send a piece of a body. Raise `CallerLeft` if the connection has gone."""
    try:
        await response.write(chunk)
    except ConnectionError as exc:
        raise CallerLeft from exc
    response[SENT_BYTES] = response.get(SENT_BYTES, 0) + len(chunk)


def cut(request: web.Request) -> None:
    """Cut the connection: what has begun and cannot be finished must not look whole."""
    if request.transport is not None:
        request.transport.abort()
