"""`GET /admin/usage`: runs, spend and savings of all teams or of one, in any window of days."""

from typing import Annotated, Any

import msgspec
from aiohttp import web

from gateway.domain import windows
from gateway.domain.ledger import Grouping
from gateway.domain.windows import Window
from gateway.errors import Unprocessable
from gateway.http import json_body
from gateway.http.handlers.gateway_api import read_day
from gateway.http.keys import CLOCK, USAGE
from gateway.http.ops import answers
from gateway.money.rules import usage_table


class UsageQuery(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    rename={"since": "from", "until": "to"},
):
    """The window, in UTC days, both included, and the grouping. Default: this month so far, by team."""

    team: str | None = None
    by: Annotated[str, msgspec.Meta(pattern=r"^(team|day|key|model|user|tag:[a-z][a-z0-9_-]{0,31})$")] = "team"
    since: str | None = None
    until: str | None = None


async def get_usage(request: web.Request) -> web.Response:
    """Handle `GET /admin/usage`, as JSON or CSV."""
    query = answers.read_query(request, UsageQuery)
    today = windows.day_of(request.app[CLOCK].now())
    since = read_day("from", query.since, windows.first_day(Window.MONTH, today))
    until = read_day("to", query.until, max(since, today))
    if until < since:
        raise Unprocessable.field("to", "to must not be before from")
    try:
        grouping = Grouping.parse(query.by)
    except ValueError:
        # The pattern, which is JSON Schema's, lets a line end pass at the end.
        raise Unprocessable.field("by", "by must be team, day, key, model, user or tag:<key>") from None
    report: dict[str, Any] = dict(await request.app[USAGE].usage(query.team, grouping, since, until))
    if not answers.wants_csv(request):
        return json_body.answer(report)
    return answers.csv_text_answer(usage_table.csv(report, query.by))


def add_routes(app: web.Application) -> None:
    """Register the route."""
    app.router.add_get("/admin/usage", get_usage)
