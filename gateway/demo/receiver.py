"""A receiver of webhooks, as an app's own server has one: it checks signatures and remembers the newest events."""

import time
from collections import deque
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web

from gateway.domain import signing

PATH: Final = "/hook"
_KEPT: Final = 50
_MODEL_INPUT: Final = {"prompt": "Write about a loud doorbell", "max_tokens": 24}


class _Secret(msgspec.Struct, frozen=True):
    key: str


class _Prediction(msgspec.Struct, frozen=True):
    id: str
    status: str


class WebhookReceiver:
    """Creates predictions with a webhook for a team, and receives their events."""

    def __init__(self, gateway_origin: str, page_origin: str, model: str) -> None:
        self._gateway = gateway_origin
        self._address = f"{page_origin}{PATH}"
        self._model = model
        self._secrets: dict[str, bytes] = {}
        self._received: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    async def create(self, session: aiohttp.ClientSession, team: str, key: str) -> str:
        """Create a prediction whose start and end are sent to this server; return its id."""
        bearer = {"Authorization": f"Bearer {key}"}
        async with session.get(f"{self._gateway}/v1/webhooks/default/secret", headers=bearer) as response:
            response.raise_for_status()
            self._secrets[team] = signing.key_of(msgspec.json.decode(await response.read(), type=_Secret).key)
        body = {
            "input": _MODEL_INPUT,
            "webhook": f"{self._address}?team={team}",
            "webhook_events_filter": ["start", "completed"],
        }
        url = f"{self._gateway}/v1/models/{self._model}/predictions"
        async with session.post(url, json=body, headers=bearer) as response:
            response.raise_for_status()
            return msgspec.json.decode(await response.read(), type=_Prediction).id

    async def receive(self, request: web.Request) -> web.Response:
        """Handle a webhook. Without a valid signature of the team's secret it is refused."""
        body = await request.read()
        secret = self._secrets.get(request.query.get("team", ""))
        headers = {name.lower(): value for name, value in request.headers.items()}
        if secret is None or not signing.is_signed(secret, headers, body, time.time()):
            return web.Response(status=401)
        prediction = msgspec.json.decode(body, type=_Prediction)
        at = {"webhook_id": headers["webhook-id"], "bytes": len(body)}
        self._received.append({"prediction": prediction.id, "status": prediction.status, **at})
        return web.Response(status=200)

    async def events(self, request: web.Request) -> web.Response:
        """Return the events of a prediction, to the page that polls for them."""
        wanted = request.query.get("prediction")
        return web.json_response([event for event in self._received if event["prediction"] == wanted])
