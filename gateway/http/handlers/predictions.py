"""Predictions and trainings: shown, listed, cancelled. All from the gateway's own records.

A key with the scope `account` sees what upstream sees: ids that the gateway does not know, and upstream's own lists.
"""

from urllib.parse import urlencode

from aiohttp import web

from gateway.domain import cursors, documents, times
from gateway.domain.cursors import Cursor
from gateway.domain.documents import Family
from gateway.domain.records import Kind, Page, PredictionView
from gateway.domain.scopes import Scope
from gateway.errors import BadRequest, NotFound
from gateway.http import base_url
from gateway.http.handlers import passthrough
from gateway.http.handlers.creates import JSON
from gateway.http.keys import ABOUT, CALLER, OVERHEAD, PREDICTIONS

_KINDS: dict[Family, Kind | None] = {"predictions": None, "trainings": Kind.TRAINING}
_FILTERS = ("created_after", "created_before")


async def get_prediction(request: web.Request) -> web.Response:
    """`GET /predictions/{id}`; a training's id works too (docs/replicate-api.md, Routes)."""
    return await _get(request, "predictions")


async def get_training(request: web.Request) -> web.Response:
    """`GET /trainings/{id}`."""
    return await _get(request, "trainings")


async def cancel_prediction(request: web.Request) -> web.Response:
    """`POST /predictions/{id}/cancel`."""
    return await _cancel(request, "predictions")


async def cancel_training(request: web.Request) -> web.Response:
    """`POST /trainings/{id}/cancel`."""
    return await _cancel(request, "trainings")


async def list_predictions(request: web.Request) -> web.Response:
    """`GET /predictions`, newest first, 100 a page."""
    return await _list(request, "predictions", Kind.PREDICTION)


async def list_trainings(request: web.Request) -> web.Response:
    """`GET /trainings`, newest first, 100 a page."""
    return await _list(request, "trainings", Kind.TRAINING)


async def _get(request: web.Request, family: Family) -> web.Response:
    try:
        view = await request.app[PREDICTIONS].get(request[CALLER], request.match_info["id"], _KINDS[family])
    except NotFound:
        if not request[CALLER].may(Scope.ACCOUNT):
            raise
        return await passthrough.unknown_prediction(request, family)
    request[OVERHEAD] = "poll"
    return _show(request, view, family)


async def _cancel(request: web.Request, family: Family) -> web.Response:
    try:
        view = await request.app[PREDICTIONS].cancel(request[CALLER], request.match_info["id"], _KINDS[family])
    except NotFound:
        if not request[CALLER].may(Scope.ACCOUNT):
            raise
        return await passthrough.unknown_prediction(request, family, cancel=True)
    return _show(request, view, family)


def _show(request: web.Request, view: PredictionView, family: Family) -> web.Response:
    request[ABOUT] = view
    body = request.app[PREDICTIONS].show(view, base_url.base_of(request), family)
    return web.Response(body=body, content_type=JSON)


async def _list(request: web.Request, family: Family, kind: Kind) -> web.Response:
    if request[CALLER].may(Scope.ACCOUNT):
        return await passthrough.account_list(request, family)
    service, base = request.app[PREDICTIONS], base_url.base_of(request)
    times_given = {name: _time(request, name) for name in _FILTERS}
    position = cursor_of(request)
    if request.query.get("source", "web") != "web":
        raise BadRequest("source must be 'web' when it is given")
    if "source" in request.query:
        # Predictions made on the web site are the account's, never a team's.
        page = Page([], has_newer=False, has_older=False)
    else:
        page = await service.list(request[CALLER], kind, position=position, **times_given)
    views = [item for item in page.items if isinstance(item, PredictionView)]
    results = [service.show(view, base, family) for view in views]
    keep = {name: request.query[name] for name in _FILTERS if name in request.query}
    ends = [Cursor(view.prediction.created_at, view.prediction.id) for view in views]
    next_url, previous_url = page_links(f"{base}/{family}", keep, page, ends, position)
    return web.Response(body=documents.page(results, next_url, previous_url), content_type=JSON)


def cursor_of(request: web.Request) -> Cursor | None:
    """Read where a page begins. Raise `BadRequest` for what is no cursor of ours."""
    if "cursor" not in request.query:
        return None
    try:
        return cursors.decode(request.query["cursor"])
    except ValueError as exc:
        raise BadRequest("Invalid cursor") from exc


def page_links(
    url: str, keep: dict[str, str], page: Page, ends: list[Cursor], position: Cursor | None
) -> tuple[str | None, str | None]:
    """Return the links `next` and `previous` of a page whose items stand at `ends`."""

    def link(at: Cursor, *, backward: bool) -> str:
        cursor = cursors.encode(Cursor(at.at, at.id, backward))
        return f"{url}?{urlencode(keep | {'cursor': cursor})}"

    if not ends:
        # Beyond the last item there is only the way back.
        if position is None:
            return None, None
        back = link(position, backward=not position.backward)
        return (back, None) if position.backward else (None, back)
    return (
        link(ends[-1], backward=False) if page.has_older else None,
        link(ends[0], backward=True) if page.has_newer else None,
    )


def _time(request: web.Request, name: str) -> float | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        # In a query `+` means a space, and people write +00:00.
        return times.parse(text.replace(" ", "+") if "T" in text else text)
    except ValueError as exc:
        raise BadRequest(f"{name} is not valid: {exc}") from exc
