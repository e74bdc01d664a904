"""`/admin/webhooks`: the deliveries that receivers have not accepted."""

from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web

from gateway.errors import NotFound
from gateway.http import json_body
from gateway.http.keys import CLOCK, STORE
from gateway.http.ops import answers
from gateway.webhooks.rules import rows
from gateway.webhooks.rules.deliveries import DeliveryState
from gateway.webhooks.rules.rows import DeliveryRow

_MOST: Final = 1000


class DeliveryQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of the list."""

    team: str | None = None
    state: Literal["queued", "dead"] | None = None
    cursor: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=_MOST)] = 100


class DeliveryPage(msgspec.Struct, frozen=True):
    """A page of deliveries, in order of id."""

    results: list[DeliveryRow]
    next: str | None
    """The address of the next page; null at the end."""


class Redelivered(msgspec.Struct, frozen=True):
    """A delivery that is due at once."""

    id: str
    state: Literal["queued"] = "queued"


async def list_deliveries(request: web.Request) -> web.Response:
    """Handle `GET /admin/webhooks`: queued and dead deliveries, as JSON or CSV."""
    query = answers.read_query(request, DeliveryQuery)
    state = None if query.state is None else DeliveryState(query.state)
    found = await request.app[STORE].deliveries(
        team=query.team, state=state, after=query.cursor or "", limit=query.limit + 1
    )
    shown = [rows.row_of(each) for each in found[: query.limit]]
    url = answers.next_url(request, shown[-1].id if len(found) > query.limit else None)
    if not answers.wants_csv(request):
        return json_body.answer(DeliveryPage(shown, url))
    return answers.csv_answer(rows.COLUMNS, map(msgspec.structs.astuple, shown), url)


async def redeliver(request: web.Request) -> web.Response:
    """Handle `POST /admin/webhooks/<id>/redeliver`: queue a delivery at once and reset its attempts."""
    delivery_id = request.match_info["id"]
    store, now = request.app[STORE], request.app[CLOCK].now()
    if not await store.redeliver(now, delivery_id, actor=answers.actor_of(request)):
        raise NotFound("There is no such delivery, or it is being sent.")
    return json_body.answer(Redelivered(delivery_id))


def add_routes(app: web.Application) -> None:
    """Register the routes."""
    app.router.add_get("/admin/webhooks", list_deliveries)
    app.router.add_post("/admin/webhooks/{id}/redeliver", redeliver)
