"""Get, list and cancel predictions and trainings, using the gateway's own records.

A key with the scope `account` also reaches predictions that the gateway has no record of, and gets upstream's lists.
"""

from collections.abc import Awaitable
from urllib.parse import urlencode

from aiohttp import web

from gateway.domain import cursors, documents, times
from gateway.domain.cursors import Cursor
from gateway.domain.documents import Family
from gateway.domain.records import Kind, Page, PredictionView
from gateway.domain.scopes import Scope
from gateway.errors import BadRequest, NotFound
from gateway.http import base_url, response, response_body
from gateway.http.handlers import passthrough
from gateway.http.handlers.creates import JSON
from gateway.http.keys import CALLER, OVERHEAD, PREDICTIONS, VIEW
from gateway.http.large_predictions import take_room

_KINDS: dict[Family, Kind | None] = {"predictions": None, "trainings": Kind.TRAINING}
_FILTERS = ("created_after", "created_before")


def get_prediction(request: web.Request) -> Awaitable[web.StreamResponse]:
    """Handle `GET /predictions/{id}`. The id of a training works too (docs/replicate-api.md, Routes)."""
    return _get(request, "predictions")


def get_training(request: web.Request) -> Awaitable[web.StreamResponse]:
    """Handle `GET /trainings/{id}`."""
    return _get(request, "trainings")


async def cancel_prediction(request: web.Request) -> web.StreamResponse:
    """Handle `POST /predictions/{id}/cancel`."""
    return await _cancel(request, "predictions")


async def cancel_training(request: web.Request) -> web.StreamResponse:
    """Handle `POST /trainings/{id}/cancel`."""
    return await _cancel(request, "trainings")


async def list_predictions(request: web.Request) -> web.StreamResponse:
    """Handle `GET /predictions`, newest first, 100 a page."""
    return await _list(request, "predictions", Kind.PREDICTION)


async def list_trainings(request: web.Request) -> web.StreamResponse:
    """Handle `GET /trainings`, newest first, 100 a page."""
    return await _list(request, "trainings", Kind.TRAINING)


async def _get(request: web.Request, family: Family) -> web.StreamResponse:
    try:
        found = [await request.app[PREDICTIONS].get(request[CALLER], request.match_info["id"], _KINDS[family])]
    except NotFound:
        if not request[CALLER].may(Scope.ACCOUNT):
            raise
        return await passthrough.unknown_prediction(request, family)
    request[OVERHEAD] = "poll"
    return _render(request, found, family) or await _render_large(request, found, family)


async def _cancel(request: web.Request, family: Family) -> web.StreamResponse:
    try:
        found = [await request.app[PREDICTIONS].cancel(request[CALLER], request.match_info["id"], _KINDS[family])]
    except NotFound:
        if not request[CALLER].may(Scope.ACCOUNT):
            raise
        return await passthrough.unknown_prediction(request, family, cancel=True)
    return _render(request, found, family) or await _render_large(request, found, family)


def _render(request: web.Request, found: list[PredictionView], family: Family) -> web.StreamResponse | None:
    """Return the response with the prediction in `found`; `None` if it is large."""
    (view,) = found
    if view.left_out or len(view.run.document) > response_body.IN_ONE_PIECE:
        return None
    request[VIEW] = view
    body = request.app[PREDICTIONS].show(view, base_url.base_of(request), family)
    return response.respond(request, body, response.JSON)


async def _render_large(request: web.Request, found: list[PredictionView], family: Family) -> web.StreamResponse:
    """Send a large prediction when there is room for it: its document and its response.

    It is taken out of `found`, so that nothing keeps it while it waits for room and for its client.
    """
    with response_body.room_of(request) as room:
        view = await take_room(request, room, found)
        request[VIEW] = view.without_document()
        body = await request.app[PREDICTIONS].show_large(view, base_url.base_of(request), family)
        del view
        room.resize(len(body))
        return await response_body.respond(request, [body], JSON)


async def _list(request: web.Request, family: Family, kind: Kind) -> web.StreamResponse:
    if request[CALLER].may(Scope.ACCOUNT):
        return await passthrough.account_list(request, family)
    service, base = request.app[PREDICTIONS], base_url.base_of(request)
    time_filters = {name: _read_time(request, name) for name in _FILTERS}
    position = cursor_of(request)
    source = request.query.get("source")
    if source not in (None, "", "web"):
        raise BadRequest("source must be 'web' when it is given")
    keep = {name: request.query[name] for name in _FILTERS if request.query.get(name)}
    async with response_body.page_room(request) as room:
        if source:
            # Predictions made on Replicate's web site belong to the account, not to a team.
            page = Page([], has_newer=False, has_older=False)
        else:
            page = await service.list(request[CALLER], kind, position=position, **time_filters)
        views = [item for item in page.items if isinstance(item, PredictionView)]
        if views and views[0].left_out:
            # The only one of its page, and larger than a page.
            room.resize(0)
            views = [await take_room(request, room, views)]
        results = [await service.show_large(view, base, family) for view in views]
        ends = [Cursor(view.prediction.created_at, view.prediction.id) for view in views]
        next_url, previous_url = page_links(f"{base}/{family}", keep, page, ends, position)
        pieces = documents.page(results, next_url, previous_url)
        del page, views, results
        room.resize(sum(map(len, pieces)))
        return await response_body.respond(request, pieces, JSON)


def cursor_of(request: web.Request) -> Cursor | None:
    """Read the `cursor` of a list; an empty one is the first page. Raise `NotFound` if the gateway did not issue it."""
    text = request.query.get("cursor")
    if not text:
        return None
    try:
        return cursors.decode(text)
    except ValueError as exc:
        # Replicate's lists respond 404 too (docs/replicate-api.md, Routes).
        raise NotFound("Invalid cursor") from exc


def page_links(
    url: str, keep: dict[str, str], page: Page, ends: list[Cursor], position: Cursor | None
) -> tuple[str | None, str | None]:
    """Return the links `next` and `previous` of a page. `ends` has the cursor of each item, in order."""

    def link(at: Cursor, *, backward: bool) -> str:
        cursor = cursors.encode(Cursor(at.at, at.id, backward))
        return f"{url}?{urlencode(keep | {'cursor': cursor})}"

    if not ends:
        # An empty page past either end links back only.
        if position is None:
            return None, None
        back = link(position, backward=not position.backward)
        return (back, None) if position.backward else (None, back)
    return (
        link(ends[-1], backward=False) if page.has_older else None,
        link(ends[0], backward=True) if page.has_newer else None,
    )


def _read_time(request: web.Request, name: str) -> float | None:
    text = request.query.get(name)
    if not text:
        return None
    try:
        # In a query `+` decodes to a space; times such as 12:00+00:00 are often sent unescaped.
        return times.parse(text.replace(" ", "+") if "T" in text else text)
    except ValueError as exc:
        raise BadRequest(f"{name} is not valid: {exc}") from exc
