"""`GET /admin/audit`: who changed what, and when."""

from typing import Annotated

import msgspec
from aiohttp import web

from gateway.domain.audit import AuditFilter, AuditPlace
from gateway.errors import Unprocessable
from gateway.http import json_body
from gateway.http.keys import STORE
from gateway.http.ops import answers
from gateway.operations.rules import audit_rows


class AuditQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of the list."""

    team: str | None = None
    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: str | None = None
    """A time, or a day (UTC), inclusive."""
    until: str | None = None
    """A time, or a day (UTC), exclusive."""
    cursor: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


async def list_entries(request: web.Request) -> web.Response:
    """Handle `GET /admin/audit`: a page of entries, newest first, as JSON or CSV."""
    query = answers.read_query(request, AuditQuery)
    which = AuditFilter(
        team=query.team,
        actor=query.actor,
        action=query.action,
        subject=query.subject,
        since=answers.read_time("since", query.since),
        until=answers.read_time("until", query.until),
    )
    found = await request.app[STORE].audit_entries(which, limit=query.limit, older_than=place_of(query.cursor))
    last = found.entries[-1] if found.has_more else None
    cursor = json_body.write_cursor(None if last is None else (last.at, str(last.id)))
    url = answers.next_url(request, cursor)
    if not answers.wants_csv(request):
        return json_body.answer(audit_rows.page_of(found, url))
    rows = map(audit_rows.row_of, found.entries)
    return answers.csv_answer(audit_rows.COLUMNS, map(audit_rows.cells_of, rows), url)


def place_of(cursor: str | None) -> AuditPlace | None:
    """Return the place of a cursor of this list. Raise `Unprocessable` for any other text."""
    place = json_body.read_cursor(cursor)
    if place is None:
        return None
    if not (place[1].isascii() and place[1].isdecimal() and len(place[1]) < 19):
        raise Unprocessable.field("cursor", "cursor must be the `next` of an earlier page")
    return place[0], int(place[1])


def add_routes(app: web.Application) -> None:
    """Register the route."""
    app.router.add_get("/admin/audit", list_entries)
