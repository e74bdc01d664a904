"""Control routes for tests: request log, clock, faults, and the state of all predictions. Off by default."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from gateway.simulator import render
from gateway.simulator.faults import read_faults
from gateway.simulator.world import World

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_MOST_PREDICTIONS = 1000


class Control:
    """The routes under /_control/. They are not logged."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.get("/_control/requests", self._requests),
            web.delete("/_control/requests", self._clear_requests),
            web.get("/_control/clock", self._clock),
            web.post("/_control/clock", _said(self._advance)),
            web.get("/_control/faults", self._faults),
            web.put("/_control/faults", _said(self._set_faults)),
            web.post("/_control/faults", _said(self._add_faults)),
            web.delete("/_control/faults", self._clear_faults),
            web.get("/_control/predictions", self._predictions),
            web.post("/_control/reset", self._reset),
        ]

    async def _requests(self, request: web.Request) -> web.Response:
        log = self._world.requests
        found = log.find(request.query.get("operation", "*"), origin=request.query.get("origin", "*"))
        authorized = {origin: log.authorized(origin) for origin in ("api", "delivery")}
        body = {"counts": log.counts(), "authorized": authorized, "requests": msgspec.to_builtins(found)}
        return _json(body)

    async def _clear_requests(self, _: web.Request) -> web.Response:
        self._world.requests.clear()
        return web.Response(status=204)

    async def _clock(self, _: web.Request) -> web.Response:
        return _json({"now": self._world.clock.now(), "speed": self._world.clock.speed})

    async def _advance(self, request: web.Request) -> web.Response:
        body = await _body(request)
        seconds = body.get("advance") if isinstance(body, dict) else None
        if not isinstance(seconds, int | float) or isinstance(seconds, bool):
            raise ValueError('expected {"advance": seconds}')  # noqa: TRY004 - invalid data, not a wrong type in code
        self._world.clock.advance(seconds)
        return await self._clock(request)

    async def _faults(self, _: web.Request) -> web.Response:
        return _json({"faults": self._world.faults.show()})

    async def _set_faults(self, request: web.Request) -> web.Response:
        self._world.faults.set(*read_faults(await _body(request)))
        return await self._faults(request)

    async def _add_faults(self, request: web.Request) -> web.Response:
        self._world.faults.add(*read_faults(await _body(request)))
        return await self._faults(request)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._world.faults.clear()
        return web.Response(status=204)

    async def _predictions(self, _: web.Request) -> web.Response:
        newest = self._world.in_order()[::-1][:_MOST_PREDICTIONS]
        return _json({"total": len(self._world.predictions), "predictions": [self._truth(each) for each in newest]})

    def _truth(self, prediction: Any) -> dict[str, Any]:
        body = render.edge_prediction(prediction, self._world.links)
        body |= {
            "kind": prediction.kind,
            "account": prediction.account,
            "runs": prediction.model.ref,
            "runs_version": prediction.version.id,
        }
        return body

    async def _reset(self, _: web.Request) -> web.Response:
        await self._world.reset()
        return web.Response(status=204)


def _said(handler: _Handler) -> _Handler:
    """Turn a `ValueError` into a 400 with its message."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except ValueError as error:
            return _json({"detail": str(error)}, 400)

    return guarded


async def _body(request: web.Request) -> Any:
    try:
        return msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise ValueError(f"not JSON: {error}") from error


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
