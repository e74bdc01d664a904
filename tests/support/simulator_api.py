"""A thin client and a webhook receiver, for tests of the simulator."""

import json
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from gateway.simulator import Simulator
from gateway.simulator.catalog import Model, Version
from tests.support.polling import attempts


@dataclass
class Reply:
    """A response with its body."""

    status: int
    headers: Any
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    @property
    def detail(self) -> str:
        detail: str = self.body["detail"]
        return detail


class Api:
    """Calls a simulator with a token."""

    def __init__(self, simulator: Simulator, session: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self.session = session
        self.token: str | None = simulator.token

    async def ask(self, method: str, path: str, **more: Any) -> Reply:
        headers = dict(more.pop("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        url = path if path.startswith("http") else self.simulator.base_url + path
        async with self.session.request(method, url, headers=headers, allow_redirects=False, **more) as response:
            return Reply(response.status, response.headers, await response.read())

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.ask("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Reply:
        return (
            await self.ask("POST", path, json=body, **more)
            if body is not None
            else await self.ask("POST", path, **more)
        )

    async def create(self, ref: str, given: dict[str, Any], *, wait: bool | str = False, **more: Any) -> Reply:
        """Create a prediction of a model by name, whatever kind of model it is."""
        model, version = find(self.simulator, ref)
        headers = dict(more.pop("headers", {}))
        if wait:
            headers["Prefer"] = wait if isinstance(wait, str) else "wait"
        body = {"version": model.ref if model.official else version.id, "input": given, **more}
        return await self.post("/predictions", body, headers=headers)

    async def finish(self, prediction_id: str) -> dict[str, Any]:
        """Poll a prediction to its end."""
        async for _ in attempts():
            reply = await self.get(f"/predictions/{prediction_id}")
            body: dict[str, Any] = reply.body
            if body["status"] in {"succeeded", "failed", "canceled", "aborted"}:
                return body
        raise AssertionError

    async def stream(self, url: str, headers: dict[str, str] | None = None) -> bytes:
        """Read a stream to its end, without a credential."""
        async with self.session.get(url, headers={"Accept": "text/event-stream", **(headers or {})}) as response:
            return await response.read()


def find(simulator: Simulator, ref: str) -> tuple[Model, Version]:
    """Find a model of the simulator, and its latest version."""
    model = simulator.world.registry.models[ref]
    assert model.latest is not None
    return model, model.latest


class Receiver:
    """Receives webhooks on a free port."""

    def __init__(self) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self._runner: web.AppRunner | None = None
        self.url = ""

    @property
    def statuses(self) -> list[str]:
        return [json.loads(body)["status"] for _, body in self.received]

    async def _take(self, request: web.Request) -> web.Response:
        self.received.append(({k.lower(): v for k, v in request.headers.items()}, await request.read()))
        status = self.answers.pop(0) if self.answers else 200
        return web.Response(status=status, headers={"Location": self.url} if 300 <= status < 400 else {})

    async def __aenter__(self) -> "Receiver":
        app = web.Application()
        app.router.add_route("*", "/{anything:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook?team=7"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
