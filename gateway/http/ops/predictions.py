"""`GET /admin/predictions`: the predictions of all teams, as a list with filters, and each with its explanation."""

from typing import Annotated, Final

import msgspec
from aiohttp import web

from gateway.domain import cursors
from gateway.domain.cursors import Cursor
from gateway.domain.records import Kind, Source, Status
from gateway.errors import Unprocessable
from gateway.http import json_body
from gateway.http.keys import PREDICTION_LOG, SETTINGS
from gateway.http.ops import answers
from gateway.operations.prediction_log import MOST_ROWS
from gateway.operations.rules.prediction_rows import COLUMNS, cells_of
from gateway.predictions.ports.search import Wanted

_LIMIT: Final = 100


class PredictionQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of the list."""

    team: str | None = None
    key: str | None = None
    user: str | None = None
    kind: Kind | None = None
    target: Annotated[str, msgspec.Meta(pattern=r"^[^\[\]]*$")] | None = None
    """With or without its version, or a glob such as `acme/*`."""
    status: Status | None = None
    source: Source | None = None
    tag: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,31}:[A-Za-z0-9._~:/@+-]{1,100}$")] | None = None
    """A cost tag, as `project:apollo`."""
    since: str | None = None
    """A time or a day (UTC), inclusive."""
    until: str | None = None
    """A time or a day (UTC), exclusive."""
    cursor: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_ROWS)] = _LIMIT


async def list_predictions(request: web.Request) -> web.Response:
    """Handle `GET /admin/predictions`: a page, newest first, as JSON or CSV."""
    query = answers.read_query(request, PredictionQuery)
    page = await request.app[PREDICTION_LOG].search(
        wanted_of(query), limit=query.limit, position=position_of(query.cursor)
    )
    following = answers.next_url(request, page.next)
    if not answers.wants_csv(request):
        return json_body.answer(msgspec.structs.replace(page, next=following))
    return answers.csv_answer(COLUMNS, map(cells_of, page.results), following)


def wanted_of(query: PredictionQuery) -> Wanted:
    """Return what a query searches for. Raise `Unprocessable` for a time that is none."""
    tag_key, _, tag_value = (query.tag or "").partition(":")
    return Wanted(
        team=query.team,
        key_id=query.key,
        user=query.user,
        kind=query.kind,
        target=query.target,
        status=query.status,
        source=query.source,
        tag=(tag_key, tag_value) if query.tag else None,
        since=answers.read_time("since", query.since),
        until=answers.read_time("until", query.until),
    )


def position_of(cursor: str | None) -> Cursor | None:
    """Return where a page begins. Raise `Unprocessable` for a cursor that no page gave."""
    try:
        return None if cursor is None else cursors.decode(cursor)
    except ValueError:
        raise Unprocessable.field("cursor", "cursor must be the next of an earlier page") from None


async def show_prediction(request: web.Request) -> web.Response:
    """Handle `GET /admin/predictions/<id>`: a prediction or training of any team, explained."""
    base = f"{request.app[SETTINGS].value.public_url or ''}/v1"
    log = request.app[PREDICTION_LOG]
    return json_body.answer(await log.detail(await log.view(request.match_info["id"]), base))


def add_routes(app: web.Application) -> None:
    """Register the routes."""
    app.router.add_get("/admin/predictions", list_predictions)
    app.router.add_get("/admin/predictions/{id}", show_prediction)
