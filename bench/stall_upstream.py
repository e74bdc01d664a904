"""An upstream whose predictions say hostile things: long logs, huge outputs, endless events, schemas of references.

What it answers is made before it is asked for, so that it takes no time from whoever is measured.
"""

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Self

from aiohttp import web

from tests.support.hostile import array, keys, marks, nested, string

MB = 1_000_000
LOOKS_BEFORE_THE_END = 12
_LINE = "step 17 of 50: loss 0.125, 3.4 it/s\n"


def _logs(size: int) -> bytes:
    return string(_LINE * (size // len(_LINE)))


def _fields(name: str, value: bytes) -> bytes:
    return b',"%b":%b' % (name.encode(), value)


def _events(count: int, data: bytes) -> bytes:
    lines = (b"event: output\nid: 1700000000:%d\ndata: %b\n\n" % (number, data) for number in range(count))
    return b"".join(lines) + b"event: done\nid: 1700000001:0\ndata: {}\n\n"


DOCUMENTS: dict[str, Callable[[], bytes]] = {
    "10 MB of logs": lambda: _fields("logs", _logs(10 * MB)),
    "40 MB of logs": lambda: _fields("logs", _logs(40 * MB)),
    "logs of lone surrogates": lambda: _fields("logs", b'"' + b"\\ud800" * 1_500_000 + b'"'),
    "an output of 1 M strings": lambda: _fields("output", array(b'"token"', 8 * MB)),
    "an output of links": lambda: _fields("output", array(b'"https://replicate.delivery/x/out-0.png"', 8 * MB)),
    "an output of hosts with marks": lambda: _fields(
        "output", array(string("https://a" + marks(2000) + "/x.png"), 2 * MB)
    ),
    "a nested output": lambda: _fields("output", nested(900, b"[", b"]")),
    "an output of keys": lambda: _fields("output", keys(8 * MB)),
    "metrics of many keys": lambda: _fields("metrics", keys(8 * MB)),
    "40 MB of output": lambda: _fields("output", string("data:image/png;base64," + "QUJD" * (10 * MB))),
    "40 MB of output in links": lambda: _fields("output", array(b'"https://replicate.delivery/x/out-0.png"', 40 * MB)),
    "40 MB of numbers": lambda: _fields("output", array(b"1", 40 * MB)),
    "40 MB of objects": lambda: _fields("output", array(b'{"label":"cat","box":{"x":[1,2],"at":{}}}', 40 * MB)),
    "40 MB of nested arrays": lambda: _fields("output", array(nested(600, b"[", b"]"), 40 * MB)),
    "40 MB of backslashes": lambda: _fields("output", string("\\" * 20 * MB)),
    "40 MB of lone surrogates": lambda: _fields("output", b'"' + b"\\ud800" * (40 * MB // 6) + b'"'),
    "40 MB of UTF-8": lambda: _fields("output", string("\u20ac" * (40 * MB // 3))),
    "40 MB in one link": lambda: _fields("output", string("https://replicate.delivery/" + "x" * 40 * MB)),
    "40 MB of metrics": lambda: _fields("metrics", keys(40 * MB)),
    "40 MB of error": lambda: _fields("error", string("x" * 40 * MB)),
    "40 MB of input": lambda: _fields("input", b'{"x":%b}' % array(b'"token"', 40 * MB)),
    "400,000 fields": lambda: b"," + keys(4 * MB)[1:-1],
    "a long error": lambda: _fields("error", string("x" * 4 * MB)),
    "a stream from 1 M strings": lambda: _fields("output", array(b'"token"', 8 * MB)),
    "a stream from 40 MB": lambda: _fields("output", string("token" * 8 * MB)),
    "1 M stream events": lambda: b"",
    "stream events of 1 MB": lambda: b"",
    "a schema of references": lambda: b"",
    "a schema of 40 MB": lambda: b"",
    "40 MB of models": lambda: b"",
}
"""Fields that a prediction has beside the usual ones, by kind."""
STREAMED: dict[str, Callable[[], bytes]] = {
    "1 M stream events": lambda: _events(MB, b"x"),
    "stream events of 1 MB": lambda: _events(40, b"x" * MB),
}
"""The streams of predictions, by kind."""
REPLAYED = ("a stream from 1 M strings", "a stream from 40 MB")
"""Kinds whose streams break off at once: the gateway makes the events from the output."""
MODELS = "40 MB of models"
"""The kind whose model is in a list of so many."""


def _schema() -> bytes:
    refs = b",".join([b'{"$ref":"#/components/schemas/Big"}'] * 30_000)
    big = keys(4 * MB).replace(b":0", b":{}")
    schemas = b'{"Input":{"properties":{"seed":{"type":"integer"}},"allOf":[%b]},"Big":{"properties":%b}}' % (refs, big)
    return b'"openapi_schema":{"components":{"schemas":%b}}' % schemas


SCHEMAS: dict[str, Callable[[], bytes]] = {
    "a schema of references": _schema,
    "a schema of 40 MB": lambda: b'"openapi_schema":%b' % keys(40 * MB),
}
"""What the version of a prediction says, by kind."""


def _models() -> bytes:
    model = b'{"owner":"acme","name":"hostile","description":"%b","latest_version":null}' % (b"x" * 400_000)
    return b'{"previous":null,"next":null,"results":%b}' % array(model, 40 * MB)


class HostileUpstream:
    """Answers creates and looks; each prediction runs for some looks, then succeeds."""

    def __init__(self) -> None:
        self.base_url = ""
        self._runner: web.AppRunner | None = None
        self._kinds: dict[str, str] = {}
        self._looks: dict[str, int] = {}
        self._fields: dict[str, bytes] = {}
        self._numbers = itertools.count()
        self._streams: dict[str, bytes] = {}
        self._body = b""
        """What is said of a version, or the list of models."""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/v1/predictions", self._create)
        app.router.add_get("/v1/predictions/{id}", self._get)
        app.router.add_get("/v1/predictions", self._list)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/v1/models/{rest:.+}", self._model)
        app.router.add_get("/v1/streams/{id}", self._stream)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def _document(self, prediction: str, status: str) -> bytes:
        kind = self._kinds[prediction]
        base = f"{self.base_url}/predictions/{prediction}"
        urls = {"get": base, "cancel": f"{base}/cancel"}
        if kind in STREAMED or kind in REPLAYED:
            urls["stream"] = f"{self.base_url}/streams/{prediction}"
        head = {"id": prediction, "model": "acme/hostile", "version": "a" * 64, "status": status, "urls": urls}
        head |= {"created_at": "2026-01-01T00:00:00Z", "input": {"kind": kind}}
        if status == "succeeded":
            head["completed_at"] = "2026-01-01T00:00:10Z"
        return json.dumps(head).encode()[:-1] + self._fields[kind] + b"}"

    async def _create(self, request: web.Request) -> web.Response:
        given = json.loads(await request.read())["input"]
        prediction = f"{next(self._numbers):026}"
        kind = self._kinds[prediction] = given.get("kind", "")
        self._looks[prediction] = 0
        if kind not in self._fields:
            # In a thread: this process should answer meanwhile.
            self._fields[kind] = await asyncio.to_thread(DOCUMENTS.get(kind, lambda: b""))
        if kind in STREAMED and kind not in self._streams:
            self._streams[kind] = await asyncio.to_thread(STREAMED[kind])
        if kind in SCHEMAS or kind == MODELS:
            self._body = await asyncio.to_thread(SCHEMAS.get(kind, _models))
        return _json(self._document(prediction, "starting"), 201)

    async def _get(self, request: web.Request) -> web.Response:
        prediction = request.match_info["id"]
        if prediction not in self._kinds:
            return _json(b'{"detail":"not found"}', 404)
        self._looks[prediction] += 1
        is_over = self._looks[prediction] > LOOKS_BEFORE_THE_END and self._kinds[prediction] not in STREAMED
        return _json(self._document(prediction, "succeeded" if is_over else "processing"))

    async def _list(self, _: web.Request) -> web.Response:
        return _json(b'{"previous":null,"next":null,"results":[]}')

    async def _model(self, _: web.Request) -> web.Response:
        return _json(b'{"id":"%b",%b}' % (b"a" * 64, self._body or b'"openapi_schema":{}'))

    async def _list_models(self, _: web.Request) -> web.Response:
        return _json(self._body)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        events = self._streams.get(self._kinds[request.match_info["id"]], b"")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for at in range(0, len(events), 65536):
            await response.write(events[at : at + 65536])
        return response


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")
