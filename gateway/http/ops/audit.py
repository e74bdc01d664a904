"""`GET /admin/audit`: who changed what, and when."""

from typing import Annotated

import msgspec
from aiohttp import web

from gateway.domain import times
from gateway.domain.audit import AuditFilter, AuditPlace
from gateway.errors import Unprocessable
from gateway.http.json_body import answer, read_cursor, read_query, write_cursor
from gateway.http.keys import STORE
from gateway.operations.rules.audit_rows import page_of


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
    """Handle `GET /admin/audit`: a page of entries, newest first."""
    query = read_query(request, AuditQuery)
    which = AuditFilter(
        team=query.team,
        actor=query.actor,
        action=query.action,
        subject=query.subject,
        since=_time("since", query.since),
        until=_time("until", query.until),
    )
    found = await request.app[STORE].audit_entries(which, limit=query.limit, older_than=_place(query.cursor))
    last = found.entries[-1] if found.has_more else None
    return answer(page_of(found, write_cursor(None if last is None else (last.at, str(last.id)))))


def _place(cursor: str | None) -> AuditPlace | None:
    place = read_cursor(cursor)
    if place is None:
        return None
    if not (place[1].isascii() and place[1].isdecimal() and len(place[1]) < 19):
        raise Unprocessable.field("cursor", "cursor must be the `next` of an earlier page")
    return place[0], int(place[1])


def _time(name: str, text: str | None) -> float | None:
    try:
        return None if text is None else times.parse(text)
    except (ValueError, OverflowError):
        message = f"{name} must be a time (for example: 2026-01-31T12:00:00Z) or a UTC day (2026-01-31)"
        raise Unprocessable.field(name, message) from None


def add_routes(app: web.Application) -> None:
    """Register the route."""
    app.router.add_get("/admin/audit", list_entries)
