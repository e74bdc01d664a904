"""The ops listener of a supervisor, in front of workers that are small applications on Unix sockets."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from gateway.http.ops.workers import WorkerOps, ops_app
from gateway.http.server import listen_on_socket

TOKEN = {"Authorization": "Bearer token-of-operators"}
Operators = TestClient[web.Request, web.Application]


def worker(number: int, status: int = 200) -> web.Application:
    async def metrics(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != TOKEN["Authorization"]:
            return web.Response(status=401, text="no token", headers={"WWW-Authenticate": "Bearer"})
        assert request.headers["Accept"] == "text/plain"
        return web.Response(text=f"# TYPE polls counter\npolls {number}\n")

    async def readyz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ready" if status == 200 else "draining"}, status=status)

    async def rest(request: web.Request) -> web.Response:
        said = f"{number} {request.method} {request.raw_path} {request.host} {await request.text()}"
        answer = web.Response(status=303, text=said, headers={"Location": "/dashboard"})
        answer.set_cookie("a", "1")
        answer.set_cookie("b", "2")
        return answer

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/readyz", readyz)
    app.router.add_route("*", "/{path:.*}", rest)
    return app


@pytest.fixture
async def open_workers() -> AsyncIterator[Callable[..., "AsyncIterator[Operators]"]]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir="/tmp")))

        async def start(*apps: web.Application | None) -> Operators:
            workers = {}
            for number, app in enumerate(apps, 1):
                path = folder / f"{number}"
                workers[f"{number}"] = WorkerOps(path, app is not None, restarts=number - 1)
                if app is not None:
                    runner = await listen_on_socket(app, path, grace_seconds=0.1)
                    stack.push_async_callback(runner.cleanup)
            client = TestClient(TestServer(ops_app(lambda: workers)))
            return await stack.enter_async_context(client)

        yield start


async def test_metrics_of_all_workers_are_one_page(open_workers):
    """Each series says whose it is, and a worker that is down is one that shows nothing else."""
    client = await open_workers(worker(1), worker(2), None)
    answer = await client.get("/metrics", headers=TOKEN)
    lines = (await answer.text()).splitlines()
    assert {'polls{node="1"} 1', 'polls{node="2"} 2'} <= set(lines)
    assert lines.count("# TYPE polls counter") == 1
    up = [line for line in lines if line.startswith("replicate_gateway_worker_up")]
    assert up == [f'replicate_gateway_worker_up{{node="{n}"}} {int(n < 3)}' for n in (1, 2, 3)]
    assert 'replicate_gateway_worker_restarts_total{node="3"} 2' in lines


async def test_what_the_workers_refuse_is_refused(open_workers):
    """The token is theirs to check."""
    client = await open_workers(worker(1), worker(2))
    answer = await client.get("/metrics")
    assert (answer.status, await answer.text()) == (401, "no token")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_gateway_is_ready_while_a_worker_is(open_workers):
    client = await open_workers(worker(1, 503), worker(2), None)
    answer = await client.get("/readyz")
    assert answer.status == 200
    assert await answer.json() == {"status": "ready", "workers": {"1": 503, "2": 200, "3": None}}


async def test_everything_else_is_passed_to_one_worker_and_back_unchanged(open_workers):
    """Method, path, host and body there; status, redirects and cookies back."""
    client = await open_workers(None, worker(2))
    answer = await client.post(
        "/dashboard/sign%2Fin?a=%20b", data="token=x", headers={"Host": "localhost"}, allow_redirects=False
    )
    assert answer.status == 303
    assert await answer.text() == "2 POST /dashboard/sign%2Fin?a=%20b localhost token=x"
    assert answer.headers["Location"] == "/dashboard"
    assert [each.partition("=")[0] for each in answer.headers.getall("Set-Cookie")] == ["a", "b"]


async def test_response_of_a_worker_that_ends_is_not_complete(open_workers):
    """What was sent cannot be taken back; another response may not follow in the middle of it."""

    async def partial(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"x" * 100)
        assert request.transport is not None
        request.transport.abort()
        return response

    app = web.Application()
    app.router.add_get("/audit", partial)
    client = await open_workers(app)
    answer = await client.get("/audit")
    assert answer.status == 200
    with pytest.raises(aiohttp.ClientError):
        await answer.read()


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/dashboard", "/admin/cache"])
async def test_without_a_worker_the_answer_is_503(open_workers, path):
    client = await open_workers(None)
    answer = await client.get(path, headers=TOKEN)
    assert answer.status == 503
