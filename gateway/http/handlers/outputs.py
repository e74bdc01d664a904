"""Serve stored copies of output files. The ticket in the URL is the permission.

Range and conditional requests are supported. A model produced the bytes, so they must not run as a page of this origin:
they are sandboxed, and browsers must not guess their type. Pages of any origin may read them, as they may read
upstream's files.
"""

import asyncio
import logging
from http import HTTPStatus
from typing import BinaryIO, assert_never

from aiohttp import web

from gateway.errors import GatewayError, NotFound, OutputLost
from gateway.http import errors, response_body
from gateway.http.keys import METRICS, OUTPUTS, STREAM_ORIGINS
from gateway.http.response_body import ClientDisconnected, abort, begin, send
from gateway.outputs.downloads import Found, OutputService
from gateway.outputs.ports import StoredObject
from gateway.outputs.rules import outputs, ranges

logger = logging.getLogger(__name__)

ANY_ORIGIN = ("*",)
_HEADERS = {
    "Accept-Ranges": "bytes",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Access-Control-Allow-Origin": "*",
    # The URL is the permission: it must not leak into another site's logs.
    "Referrer-Policy": "no-referrer",
}
# Upstream's own max-age (docs/replicate-api.md, Outputs and retention). `private`, because shared caches would go on
# serving files that were deleted here.
_MAX_AGE_SECONDS = 3600
_SEND_SECONDS = 3600.0
_CHUNK_BYTES = 1024 * 1024


async def read_output(request: web.Request) -> web.StreamResponse:
    """Handle `GET` and `HEAD /outputs/{ticket}/{name}`."""
    request[STREAM_ORIGINS] = ANY_ORIGIN
    service = request.app.get(OUTPUTS)
    if service is None:
        raise NotFound
    found = await service.find(request.match_info["ticket"], request.match_info["name"])
    copy, is_head = found.copy, request.method == "HEAD"
    etag = f'"{copy.sha256}"'
    selection = ranges.select(request.headers, etag=etag, modified_at=copy.stored_at, size=copy.size, is_head=is_head)
    headers = _HEADERS | {
        "ETag": etag,
        "Last-Modified": ranges.http_date(copy.stored_at),
        "Cache-Control": f"private, max-age={min(_MAX_AGE_SECONDS, service.seconds_left(found))}, immutable",
    }
    match selection:
        case ranges.NotModified():
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        case ranges.Failed():
            return errors.respond_http(web.HTTPPreconditionFailed())
        case ranges.Unsatisfiable():
            problem = errors.respond_http(web.HTTPRequestRangeNotSatisfiable())
            problem.headers["Content-Range"] = f"bytes */{copy.size}"
            return problem
        case ranges.Whole():
            start, stop, status = 0, copy.size, HTTPStatus.OK
        case ranges.Part(start, stop):
            status = HTTPStatus.PARTIAL_CONTENT
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{copy.size}"
        case never:
            assert_never(never)
    headers |= {"Content-Type": copy.content_type, "Content-Disposition": outputs.disposition(copy.url)}
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = stop - start
    if is_head:
        return response
    return await send_copy(request, response, service, found, start, stop)


async def send_copy(
    request: web.Request, response: web.StreamResponse, service: OutputService, found: Found, start: int, stop: int
) -> web.StreamResponse:
    """Send bytes `start` to `stop` (exclusive) of a copy."""
    try:
        async with service.open(found) as stored, asyncio.timeout(_SEND_SECONDS):
            await begin(request, response)
            await _send_range(request, response, stored, start, stop)
            await response.write_eof()
        request.app[METRICS].output_served(stop - start)
    except (ClientDisconnected, ConnectionError):
        return response
    except (GatewayError, TimeoutError) as exc:
        if not response.prepared:
            raise
        logger.warning("sending a stored output failed midway", extra={"reason": str(exc)})
        abort(request)
    return response


async def _send_file(
    request: web.Request, transport: asyncio.Transport, file: BinaryIO, start: int, length: int
) -> None:
    try:
        async with asyncio.timeout(response_body.STALL_SECONDS):
            sent = await asyncio.get_running_loop().sendfile(transport, file, start, length, fallback=False)
    except TimeoutError as exc:
        abort(request)
        raise ClientDisconnected from exc
    if sent < length:
        raise OutputLost


async def _send_range(
    request: web.Request, response: web.StreamResponse, stored: StoredObject, start: int, stop: int
) -> None:
    """Send bytes `start` to `stop` (exclusive) with `sendfile` where it is possible, else block by block."""
    if stored.file is not None and stop > start:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ClientDisconnected
        try:
            while start < stop:
                length = min(_CHUNK_BYTES, stop - start)
                await _send_file(request, transport, stored.file, start, length)
                start += length
        except (NotImplementedError, asyncio.SendfileNotAvailableError):
            # TLS, an event loop or a file system without sendfile. Raised before the first byte is sent.
            pass
        else:
            return
    async for block in stored.blocks(start, stop):
        await send(request, response, block)
