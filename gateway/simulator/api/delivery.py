"""The second origin: streams and hosted outputs. It requires no credentials; the unguessable URL grants access."""

import contextlib
import re

from aiohttp import web

from gateway.simulator import ids, problems, sse
from gateway.simulator.api.call import Answer, Call
from gateway.simulator.api.routes import Route
from gateway.simulator.faults import Fault
from gateway.simulator.outputs import Output
from gateway.simulator.registry import targets_of
from gateway.simulator.streams import EventLog

_RANGE = re.compile(r"^bytes=(\d*)-(\d*)$")
_STREAM_ENDS = ("stream_cut", "stream_end", "stream_idle")
_CORS = {"Access-Control-Allow-Origin": "*"}


async def stream(call: Call) -> Answer | web.StreamResponse:
    """GET /v1/streams/… and /v1/files/…: past events, then live events, until the idle time-out."""
    token = call.params["token"]
    form = ids.STREAM_TOKEN if "/streams/" in call.request.path else ids.FILE_STREAM_TOKEN
    if not form.match(token):
        raise problems.not_found()
    prediction = call.world.streams.get(token)
    if prediction is not None:
        call.world.expire(prediction)
    content_type = "text/event-stream; charset=utf-8"
    if "stream_content_type" in call.faults:
        content_type = call.faults["stream_content_type"].get("value")
    response = web.StreamResponse(headers={**_CORS, "Content-Type": content_type, "Cache-Control": "no-cache"})
    with call.world.held():
        await response.prepare(call.request)
        if call.request.method == "HEAD":
            return response
        log = prediction.stream if prediction is not None else None
        with contextlib.suppress(ConnectionError):  # the reader disconnected
            await _relay(call, response, EventLog(0) if log is None else log)
    return response


async def output(call: Call) -> Answer | web.StreamResponse:
    """GET an output file or a range of it."""
    path = call.request.path
    found = None if "output_missing" in call.faults else call.world.outputs.get(path)
    if found is None:
        raise problems.Problem(404, {"detail": "Not found."}, django=True, headers=_CORS)
    headers = {
        **_CORS,
        "ETag": found.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "public, max-age=3600",
    }
    if "output_cut" in call.faults:
        return await _cut(call, found, headers, call.faults["output_cut"].get("count"))
    if call.request.headers.get("If-None-Match") in {found.etag, "*"}:
        return Answer(304, b"", found.content_type, headers)
    return _part(call, found, headers)


def routes() -> tuple[Route, ...]:
    """Return the routes of this origin."""
    return (
        Route("GET", "/v1/streams/{token}", "streams.get", stream, "delivery", None, open=True),
        Route("GET", "/v1/files/{token}", "streams.get", stream, "delivery", None, open=True),
        Route("GET", "/{shard}/{folder}/{name}", "outputs.get", output, "delivery", None, open=True),
    )


def targets(call: Call) -> tuple[str, ...]:
    """Return the names by which faults can select a stream or output."""
    token = call.params.get("token")
    if token is not None:
        prediction = call.world.streams.get(token)
        return () if prediction is None else targets_of(prediction.model, prediction.version, prediction.deployment)
    found = call.world.outputs.get(call.request.path)
    return () if found is None else (found.model,)


async def _relay(call: Call, response: web.StreamResponse, log: EventLog) -> None:
    idle = call.world.settings.stream_idle_seconds
    end = next((call.faults[name] for name in _STREAM_ENDS if name in call.faults), None)
    left = None if end is None else end.get("count")
    await response.write(sse.GREETING)
    place = log.place_after(call.request.headers.get("Last-Event-ID"))
    while True:
        frames, place = log.read(place, left)
        if frames:
            await response.write(b"".join(frames))
        if left is not None:
            left -= len(frames)
            if left <= 0 and end is not None:
                await _end(call, response, end, idle)
                return
        if not await log.more(place, idle):
            await response.write(sse.TIMEOUT)
            return


async def _end(call: Call, response: web.StreamResponse, end: Fault, idle: float) -> None:
    if end.name == "stream_cut" and call.request.transport is not None:
        call.request.transport.abort()
    elif end.name == "stream_idle":
        seconds = end.get("seconds")
        await EventLog(0).more(0, idle if seconds is None else seconds)
        await response.write(sse.TIMEOUT)


async def _cut(call: Call, found: Output, headers: dict[str, str], count: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={**headers, "Content-Type": found.content_type})
    response.content_length = len(found.data)
    await response.prepare(call.request)
    await response.write(found.data[:count])
    if call.request.transport is not None:
        call.request.transport.abort()
    return response


def _part(call: Call, found: Output, headers: dict[str, str]) -> Answer:
    size = len(found.data)
    match = _RANGE.match(call.request.headers.get("Range", ""))
    if match is None or match[0] == "bytes=-" or call.request.headers.get("If-Range", found.etag) != found.etag:
        return Answer(200, found.data, found.content_type, headers)
    if match[1]:
        start = int(match[1])
        stop = min(int(match[2]) + 1 if match[2] else size, size)
    else:
        start, stop = max(0, size - int(match[2])), size
    if start >= stop:
        return Answer(416, b"", "text/plain; charset=utf-8", {**headers, "Content-Range": f"bytes */{size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Answer(206, found.data[start:stop], found.content_type, headers)
