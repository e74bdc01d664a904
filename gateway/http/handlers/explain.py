"""`GET /gateway/explain/<id>`: how the gateway handled a prediction, and why (docs/architecture.md, Operations)."""

import msgspec
from aiohttp import web

from gateway.http.keys import CALLER, EXPLAIN


async def explain_prediction(request: web.Request) -> web.Response:
    """Handle `GET /gateway/explain/{id}`, for predictions and trainings of the caller's team."""
    answer = await request.app[EXPLAIN].explain(request[CALLER], request.match_info["id"])
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")
