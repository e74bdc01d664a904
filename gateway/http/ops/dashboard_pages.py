"""The pages of the console that show usage. See docs/dashboard.md."""

import re
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from gateway.dashboard import usage_view
from gateway.domain import windows
from gateway.domain.ledger import By
from gateway.domain.windows import Window
from gateway.errors import Unprocessable
from gateway.http.keys import CLOCK, USAGE
from gateway.http.ops.dashboard_access import PATH, Visit, for_visitors

_MONTH: Final = re.compile(r"\d{4}-\d\d", re.ASCII)
MOST_ROWS: Final = 200
"""Rows of a table. The file has all."""
_MONTHS: Final = 24
"""How many months the page offers. Totals are kept for good, and `gateway usage` reports any window."""


def add_routes(app: web.Application) -> None:
    """Register the pages."""
    app.router.add_get(f"{PATH}/usage", show_usage)


@for_visitors
async def show_usage(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/usage?month=2026-01&by=model`."""
    request, today = visit.request, windows.day_of(visit.request.app[CLOCK].now())
    since = _month(request.query.get("month", ""), today)
    until = min(today, windows.last_day(Window.MONTH, since))
    by = _by(request.query.get("by", "model" if visit.team else "team"), visit.team)
    service = request.app[USAGE]
    days: Mapping[str, Any] = await service.usage(visit.team, By.DAY, since, until)
    report = days if by is By.DAY else await service.usage(visit.team, by, since, until)
    rows = usage_view.rows(report, by)
    return await visit.page(
        "usage",
        report=report,
        rows=rows[:MOST_ROWS],
        left_out=len(rows[MOST_ROWS:]),
        days=usage_view.spent_by_day(days, since, until),
        by=by,
        since=since,
        months=_months(today),
        groups=_groups(visit.team),
    )


def _groups(team: str | None) -> list[By]:
    return [each for each in By if team is None or each is not By.TEAM]


def _by(text: str, team: str | None) -> By:
    if text not in _groups(team):
        raise Unprocessable.field("by", f"expected one of: {', '.join(_groups(team))}")
    return By(text)


def _months(today: int) -> list[int]:
    """Return the first days of the months that can be chosen, the current one first."""
    first = windows.first_day(Window.MONTH, today)
    found = [first]
    while len(found) < _MONTHS:
        found.append(windows.month_before(found[-1]))
    return found


def _month(text: str, today: int) -> int:
    """Return the first day of a month. Raise `Unprocessable` if it is none, or in the future."""
    if not text:
        return windows.first_day(Window.MONTH, today)
    try:
        day = windows.parse_day(f"{text}-01") if _MONTH.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None or day > today:
        raise Unprocessable.field("month", "expected a month that is not in the future (for example: 2026-01)")
    return day
