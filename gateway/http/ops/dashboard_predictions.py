"""The pages of the console that show predictions and their outputs. See docs/dashboard.md."""

import asyncio
from typing import Final

import msgspec
from aiohttp import web

from gateway.dashboard import prediction_view
from gateway.domain.records import Copy, Source, Status
from gateway.errors import NotFound, Unprocessable
from gateway.http.handlers.outputs import send_copy
from gateway.http.keys import OUTPUTS, PREDICTION_LOG, SETTINGS
from gateway.http.ops import answers
from gateway.http.ops.dashboard_access import PATH, Visit, for_visitors, next_page
from gateway.http.ops.predictions import PredictionQuery, position_of, wanted_of
from gateway.outputs.downloads import Found
from gateway.outputs.rules import outputs
from gateway.predictions.ports.search import Wanted

_PAGE: Final = 50
_GALLERY: Final = 24
_PICTURES: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "image/avif"})
"""Types that browsers show without running anything: SVG is not among them."""
_FIELDS: Final = frozenset(PredictionQuery.__struct_fields__) - {"kind", "limit"}
"""The fields of the filter form."""


def add_routes(app: web.Application) -> None:
    """Register the pages."""
    app.router.add_get(f"{PATH}/predictions", list_predictions)
    app.router.add_get(f"{PATH}/predictions/{{id}}", show_prediction)
    app.router.add_get(f"{PATH}/predictions/{{id}}/files/{{place}}", show_file)
    app.router.add_get(f"{PATH}/outputs", show_gallery)


@for_visitors
async def list_predictions(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/predictions`: a page of predictions, the newest first, with filters."""
    asked = _query_of(visit.request)
    page = await visit.request.app[PREDICTION_LOG].search(
        _wanted(asked, visit.team), limit=_PAGE, position=position_of(asked.cursor)
    )
    return await visit.page(
        "predictions",
        asked=asked,
        page=page,
        next_url=next_page(visit.request, page.next),
        statuses=list(Status),
        sources=list(Source),
        is_filtered=msgspec.structs.replace(asked, cursor=None) != PredictionQuery(),
    )


@for_visitors
async def show_prediction(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/predictions/<id>`: what it was asked, its result, and how it was handled."""
    request, prediction_id = visit.request, visit.request.match_info["id"]
    log = request.app[PREDICTION_LOG]
    base = f"{request.app[SETTINGS].value.public_url or ''}/v1"
    view = await log.view(prediction_id, visit.caller)
    detail = await log.detail(view, base, visit.caller)
    return await visit.page(
        "prediction",
        entry="predictions",
        row=detail.prediction,
        explanation=detail.explanation,
        # Indenting takes time.
        data=await asyncio.to_thread(prediction_view.texts_of, detail.data),
        data_state=detail.data_state,
        sharers=await log.sharers(view, visit.caller),
        files=[_file(prediction_id, copy) for copy in log.files(view)],
    )


@for_visitors
async def show_gallery(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/outputs`: the stored pictures of the newest predictions."""
    asked = _query_of(visit.request)
    log = visit.request.app[PREDICTION_LOG]
    wanted = msgspec.structs.replace(_wanted(asked, visit.team), status=Status.SUCCEEDED)
    page = await log.search(wanted, limit=_GALLERY, position=position_of(asked.cursor))
    shown = []
    for row in page.results:
        copies = log.files(await log.view(row.id, visit.caller))
        pictures = [each for each in (_file(row.id, copy) for copy in copies) if each["is_picture"]]
        if pictures:
            shown.append((row, pictures))
    return await visit.page(
        "outputs", shown=shown, next_url=next_page(visit.request, page.next), stores=OUTPUTS in visit.request.app
    )


@for_visitors
async def show_file(visit: Visit) -> web.StreamResponse:
    """Handle `GET /dashboard/predictions/<id>/files/<place>`: a stored copy of an output file."""
    request = visit.request
    service, place = request.app.get(OUTPUTS), request.match_info["place"]
    log = request.app[PREDICTION_LOG]
    view = await log.view(request.match_info["id"], visit.caller)
    copy = next((each for each in log.files(view) if str(each.place) == place), None)
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


def _query_of(request: web.Request) -> PredictionQuery:
    """Return what the filter form asks for. Its empty fields select everything."""
    given = {name: value.strip() for name, value in request.query.items() if name in _FIELDS and value.strip()}
    try:
        return msgspec.convert(given, PredictionQuery, strict=False)
    except msgspec.ValidationError as exc:
        raise Unprocessable.field(answers.field_of(exc), str(exc)) from exc


def _wanted(asked: PredictionQuery, team: str | None) -> Wanted:
    """Return what is searched for: whatever the form says, a team's members see their team only."""
    wanted = wanted_of(asked)
    return wanted if team is None else msgspec.structs.replace(wanted, team=team)
