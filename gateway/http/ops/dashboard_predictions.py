"""The pages of the console that show predictions and their outputs. See docs/dashboard.md."""

import asyncio
from typing import Annotated, Final

import msgspec
from aiohttp import web

from gateway.dashboard import prediction_view
from gateway.domain import cursors
from gateway.domain.records import Copy, Source, Status
from gateway.errors import NotFound, Unprocessable
from gateway.http.handlers.outputs import send_copy
from gateway.http.keys import OUTPUTS, PREDICTION_LOG, SETTINGS
from gateway.http.ops import answers
from gateway.http.ops.dashboard_access import PATH, Visit, for_visitors
from gateway.outputs.downloads import Found
from gateway.outputs.rules import outputs
from gateway.predictions.ports.search import Wanted

_PAGE: Final = 50
_GALLERY: Final = 24
_PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/avif"})
"""Types that browsers show without running anything: SVG is not among them."""


class PredictionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the filter form. Empty ones select everything."""

    team: str = ""
    key: str = ""
    user: str = ""
    target: Annotated[str, msgspec.Meta(pattern=r"^[^\[\]]*$")] = ""
    status: Status | None = None
    source: Source | None = None
    tag: Annotated[str, msgspec.Meta(pattern=r"^([a-z][a-z0-9_-]{0,31}:[A-Za-z0-9._~:/@+-]{1,100})?$")] = ""
    since: str = ""
    until: str = ""
    cursor: str = ""


def add_routes(app: web.Application) -> None:
    """Register the pages."""
    app.router.add_get(f"{PATH}/predictions", list_predictions)
    app.router.add_get(f"{PATH}/predictions/{{id}}", show_prediction)
    app.router.add_get(f"{PATH}/predictions/{{id}}/files/{{place}}", show_file)
    app.router.add_get(f"{PATH}/outputs", show_gallery)


@for_visitors
async def list_predictions(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/predictions`: a page of predictions, the newest first, with filters."""
    asked = _filter_of(visit.request)
    page = await visit.request.app[PREDICTION_LOG].search(
        _wanted(asked, visit.team), limit=_PAGE, position=_position(asked.cursor)
    )
    return await visit.page(
        "predictions",
        asked=asked,
        page=page,
        next_url=_next_url(visit.request, page.next),
        statuses=list(Status),
        sources=list(Source),
        is_filtered=msgspec.structs.replace(asked, cursor="") != PredictionFilter(),
    )


@for_visitors
async def show_prediction(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/predictions/<id>`: what it was asked, its result, and how it was handled."""
    request, prediction_id = visit.request, visit.request.match_info["id"]
    log = request.app[PREDICTION_LOG]
    base = f"{request.app[SETTINGS].value.public_url or ''}/v1"
    detail = await log.detail(prediction_id, base, visit.caller)
    _, copies = await log.files(prediction_id, visit.caller)
    return await visit.page(
        "prediction",
        entry="predictions",
        row=detail.prediction,
        explanation=detail.explanation,
        # Indenting takes time.
        data=await asyncio.to_thread(prediction_view.texts_of, detail.data),
        data_state=detail.data_state,
        sharers=await log.sharers(prediction_id, visit.caller),
        files=[_file(prediction_id, copy) for copy in copies],
    )


@for_visitors
async def show_gallery(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/outputs`: the stored pictures of the newest predictions."""
    asked = _filter_of(visit.request)
    log = visit.request.app[PREDICTION_LOG]
    wanted = msgspec.structs.replace(_wanted(asked, visit.team), status=Status.SUCCEEDED)
    page = await log.search(wanted, limit=_GALLERY, position=_position(asked.cursor))
    shown = []
    for row in page.results:
        _, copies = await log.files(row.id, visit.caller)
        pictures = [each for each in (_file(row.id, copy) for copy in copies) if each["is_picture"]]
        if pictures:
            shown.append((row, pictures))
    return await visit.page(
        "outputs", shown=shown, next_url=_next_url(visit.request, page.next), stores=OUTPUTS in visit.request.app
    )


@for_visitors
async def show_file(visit: Visit) -> web.StreamResponse:
    """Handle `GET /dashboard/predictions/<id>/files/<place>`: a stored copy of an output file."""
    request = visit.request
    service, place = request.app.get(OUTPUTS), request.match_info["place"]
    view, copies = await request.app[PREDICTION_LOG].files(request.match_info["id"], visit.caller)
    copy = next((each for each in copies if str(each.place) == place), None)
    if service is None or copy is None:
        raise NotFound
    found = Found(copy, view)
    if service.seconds_left(found) <= 0:
        raise NotFound
    is_picture = copy.content_type in _PICTURES
    headers = {
        "Content-Type": copy.content_type if is_picture else "application/octet-stream",
        "Content-Disposition": outputs.disposition(copy.url, "inline" if is_picture else "attachment"),
        # A model made the bytes: they must not run as a page of this origin.
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
    response = web.StreamResponse(headers=headers)
    response.content_length = copy.size
    return await send_copy(request, response, service, found, 0, copy.size)


def _file(prediction_id: str, copy: Copy) -> dict[str, object]:
    return {
        "url": f"{PATH}/predictions/{prediction_id}/files/{copy.place}",
        "name": outputs.filename_of(copy.url),
        "size": copy.size,
        "content_type": copy.content_type,
        "is_picture": copy.content_type in _PICTURES,
    }


def _filter_of(request: web.Request) -> PredictionFilter:
    given = {name: value.strip() for name, value in request.query.items() if value.strip()}
    try:
        return msgspec.convert(given, PredictionFilter, strict=False)
    except msgspec.ValidationError as exc:
        raise Unprocessable.field(answers.field_of(exc), str(exc)) from exc


def _wanted(asked: PredictionFilter, team: str | None) -> Wanted:
    key, _, value = asked.tag.partition(":")
    return Wanted(
        team=team or asked.team or None,
        key_id=asked.key or None,
        user=asked.user or None,
        target=asked.target or None,
        status=asked.status,
        source=asked.source,
        tag=(key, value) if asked.tag else None,
        since=answers.read_time("since", asked.since or None),
        until=answers.read_time("until", asked.until or None),
    )


def _position(cursor: str) -> cursors.Cursor | None:
    try:
        return cursors.decode(cursor) if cursor else None
    except ValueError:
        raise Unprocessable.field("cursor", "cursor must be the next of an earlier page") from None


def _next_url(request: web.Request, cursor: str | None) -> str | None:
    return None if cursor is None else str(request.rel_url.update_query(cursor=cursor))
