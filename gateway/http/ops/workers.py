"""The ops listener of a supervisor: the metrics of all workers on one page, everything else from one of them.

The workers check the operators' token. What they refuse is refused here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from gateway.errors import GatewayError, StoreUnavailable
from gateway.http import errors
from gateway.http.response_body import ClientDisconnected, abort, begin, send
from gateway.metrics.catalogue import NAMESPACE
from gateway.metrics.merging import merge

_SECONDS: Final = 5.0
_SILENT_SECONDS: Final = 60.0
"""Longest silence of a worker in a response. Streams of the console have heartbeats."""
_HOP_BY_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
_MAX_BODY_BYTES: Final = 1024 * 1024
_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"


class WorkerOps(NamedTuple):
    """Where a worker serves operators."""

    socket: Path
    is_serving: bool
    restarts: int


Workers = Callable[[], Mapping[str, WorkerOps]]


class _Answer(NamedTuple):
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class _Operators:
    """Answers operators from the workers."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers

    async def metrics(self, request: web.Request) -> web.Response:
        """Handle `GET /metrics`: those of all workers, with the label `node`, and which workers there are."""
        answers = await self._ask_all(request)
        refused = next((each for each in answers.values() if each is not None and each.status != 200), None)
        if refused is not None:
            return web.Response(status=refused.status, body=refused.body, headers=_kept(refused.headers))
        if not any(answers.values()):
            raise _no_worker()
        workers = self._workers()
        pages = {
            number: ("" if each is None else each.body.decode()) + _of_worker(workers[number], is_up=each is not None)
            for number, each in answers.items()
        }
        return web.Response(body=merge(pages).encode(), headers={"Content-Type": _TEXT})

    async def health(self, request: web.Request) -> web.Response:
        """Handle `GET /healthz` and `GET /readyz`: that of the best worker, with the status of each."""
        answers = await self._ask_all(request)
        statuses = {number: None if each is None else each.status for number, each in answers.items()}
        best = min((each for each in answers.values() if each is not None), key=lambda each: each.status, default=None)
        said = {"status": "starting"} if best is None else msgspec.json.decode(best.body)
        body = msgspec.json.encode({**said, "workers": statuses})
        return web.Response(status=503 if best is None else best.status, body=body, content_type="application/json")

    async def relay(self, request: web.Request) -> web.StreamResponse:
        """Handle everything else by the first worker that serves: sessions of the console are in its memory."""
        worker = next((each for each in self._workers().values() if each.is_serving), None)
        if worker is None:
            raise _no_worker()
        body = await request.read()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_SECONDS, sock_read=_SILENT_SECONDS)
        async with _asked(worker, request, timeout, body) as answer:
            response = web.StreamResponse(status=answer.status, headers=_kept(answer.headers))
            try:
                await begin(request, response)
                async for part in answer.content.iter_any():
                    await send(request, response, part)
                await response.write_eof()
            except (ClientDisconnected, aiohttp.ClientError, TimeoutError):
                # One of the two connections ended midway. Another response may not follow what was sent.
                abort(request)
            return response

    async def _ask_all(self, request: web.Request) -> dict[str, _Answer | None]:
        workers = self._workers()
        answers = await asyncio.gather(*(_ask(each, request) for each in workers.values()))
        return dict(zip(workers, answers, strict=True))


async def _ask(worker: WorkerOps, request: web.Request) -> _Answer | None:
    """Return a worker's answer to a request without a body; `None` if it does not answer.

    One that waits for its store at the start does answer.
    """
    try:
        async with _asked(worker, request, aiohttp.ClientTimeout(total=_SECONDS)) as answer:
            return _Answer(answer.status, answer.headers, await answer.read())
    except (aiohttp.ClientError, TimeoutError):
        return None


@asynccontextmanager
async def _asked(
    worker: WorkerOps, request: web.Request, timeout: aiohttp.ClientTimeout, body: bytes = b""
) -> AsyncIterator[aiohttp.ClientResponse]:
    headers = _kept(request.headers)
    # So that the text can be merged.
    headers.popall("Accept-Encoding", None)
    if request.path == "/metrics":
        headers["Accept"] = "text/plain"
    url = URL.build(scheme="http", host="worker").join(URL(request.raw_path, encoded=True))
    connector = aiohttp.UnixConnector(str(worker.socket), force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session,
        session.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False, skip_auto_headers=["Accept"]
        ) as answer,
    ):
        yield answer


def _kept(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """Return the headers that are about the message, not the connection."""
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HOP_BY_HOP)


def _of_worker(worker: WorkerOps, *, is_up: bool) -> str:
    """Return the metrics of a worker that only the supervisor knows."""
    up, restarts = f"{NAMESPACE}_worker_up", f"{NAMESPACE}_worker_restarts_total"
    return (
        f"# HELP {up} Whether the worker answers.\n# TYPE {up} gauge\n{up} {int(is_up)}\n"
        f"# HELP {restarts} Times that the worker ended and was started again.\n# TYPE {restarts} counter\n"
        f"{restarts} {worker.restarts}\n"
    )


def _no_worker() -> StoreUnavailable:
    return StoreUnavailable("No worker serves at the moment.", retry_after=1)


@web.middleware
async def _plain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except GatewayError as exc:
        return errors.respond(exc)
    except (aiohttp.ClientError, TimeoutError):
        return errors.respond(_no_worker())


def ops_app(workers: Workers) -> web.Application:
    """Return the application of operators."""
    operators = _Operators(workers)
    app = web.Application(middlewares=[_plain_errors], client_max_size=_MAX_BODY_BYTES)
    app.router.add_get("/metrics", operators.metrics)
    app.router.add_get("/healthz", operators.health)
    app.router.add_get("/readyz", operators.health)
    app.router.add_route("*", "/{path:.*}", operators.relay)
    return app
