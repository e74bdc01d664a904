"""The pages of the console that show usage. See docs/dashboard.md."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from aiohttp import web

from gateway.dashboard import usage_view
from gateway.domain import windows
from gateway.domain.ledger import By, Grouping
from gateway.domain.windows import Window
from gateway.errors import NotFound, Unprocessable
from gateway.http.keys import CLOCK, KEY_SERVICE, SETTINGS, STORE, TEAMS, USAGE
from gateway.http.ops import answers, nodes
from gateway.http.ops.dashboard_access import PATH, Visit, for_visitors, next_page, read_form, redirect
from gateway.money.rules import usage_table
from gateway.operations.teams import LimitedKey
from gateway.webhooks.rules import rows as delivery_rows
from gateway.webhooks.rules.deliveries import DeliveryState

_STATES: Final = ("queued", "dead")
_MONTH: Final = re.compile(r"\d{4}-\d\d", re.ASCII)
MOST_ROWS: Final = 200
"""Rows of a table. The file has all."""
_MONTHS: Final = 24
"""How many months the page offers. Totals are kept for good, and `gateway usage` reports any window."""


def add_routes(app: web.Application) -> None:
    """Register the pages."""
    app.router.add_get(f"{PATH}/usage", show_usage)
    app.router.add_get(f"{PATH}/usage.csv", download_usage)
    app.router.add_get(f"{PATH}/limits", show_limits)
    app.router.add_get(f"{PATH}/webhooks", list_webhooks)
    app.router.add_post(f"{PATH}/webhooks/redeliver", redeliver)
    app.router.add_get(f"{PATH}/nodes", show_nodes)


@for_visitors
async def show_usage(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/usage?month=2026-01&by=model`."""
    asked = _asked_usage(visit)
    service = visit.request.app[USAGE]
    days: Mapping[str, Any] = await service.usage(visit.team, By.DAY, asked.since, asked.until)
    report = days if asked.by.by is By.DAY else await service.usage(visit.team, asked.by, asked.since, asked.until)
    rows = usage_view.rows(report, asked.by.by)
    return await visit.page(
        "usage",
        report=report,
        rows=rows[:MOST_ROWS],
        left_out=len(rows[MOST_ROWS:]),
        days=usage_view.spent_by_day(days, asked.since, asked.until),
        by=str(asked.by),
        since=asked.since,
        months=_months(asked.today),
        groups=_groups(visit),
    )


@for_visitors
async def download_usage(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/usage.csv`: all rows of the page Usage."""
    asked = _asked_usage(visit)
    report = await visit.request.app[USAGE].usage(visit.team, asked.by, asked.since, asked.until)
    return answers.csv_text_answer(usage_table.csv(report, str(asked.by)))


class _AskedUsage(msgspec.Struct, frozen=True):
    """What the page Usage is asked for."""

    since: int
    until: int
    by: Grouping
    today: int


def _asked_usage(visit: Visit) -> _AskedUsage:
    """Read the query of the page Usage. Raise `Unprocessable`."""
    query, today = visit.request.query, windows.day_of(visit.request.app[CLOCK].now())
    since = _month(query.get("month", ""), today)
    by = query.get("by", By.MODEL if visit.team else By.TEAM)
    groups = _groups(visit)
    if by not in groups:
        raise Unprocessable.field("by", f"expected one of: {', '.join(groups)}")
    return _AskedUsage(since, min(today, windows.last_day(Window.MONTH, since)), Grouping.parse(by), today)


@for_visitors
async def show_limits(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/limits`: the limits of teams, as used."""
    app = visit.request.app
    listed = (await app[TEAMS].list()).results
    teams = [msgspec.to_builtins(each) for each in listed if visit.team in (None, each.name)]
    keys = [
        LimitedKey(id=key.id, name=key.name, team=key.team, allowance=allowance)
        for key, allowance in await app[KEY_SERVICE].with_limits(visit.team, MOST_ROWS)
    ]
    further = await app[TEAMS].further_limits(keys)
    for team in teams:
        team["limits"] += further.get(team["name"], [])
        for limit in team["limits"]:
            limit["remaining_is_nothing"] = float(limit.get("remaining", 1)) <= 0
    return await visit.page("limits", teams=teams)


@for_visitors
async def list_webhooks(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/webhooks?state=`: deliveries that were not accepted."""
    request = visit.request
    text = request.query.get("state", "")
    if text and text not in _STATES:
        raise Unprocessable.field("state", f"expected one of: {', '.join(_STATES)}")
    found = await request.app[STORE].deliveries(
        team=visit.team,
        state=DeliveryState(text) if text else None,
        after=request.query.get("after", ""),
        limit=MOST_ROWS + 1,
    )
    last = found[MOST_ROWS - 1].id if len(found) > MOST_ROWS else None
    return await visit.page(
        "webhooks",
        rows=[delivery_rows.row_of(each) for each in found[:MOST_ROWS]],
        state=text,
        states=_STATES,
        next_url=next_page(request, last, "after"),
        may_redeliver=visit.may_manage,
    )


@for_visitors
async def redeliver(visit: Visit) -> web.Response:
    """Handle `POST /dashboard/webhooks/redeliver`: queue a delivery at once and reset its attempts."""
    request = visit.request
    fields = await read_form(request)
    visit.require_manager()
    delivery_id = "".join(fields.get("id", []))
    now = request.app[CLOCK].now()
    if not await request.app[STORE].redeliver(now, delivery_id, actor=visit.actor, team=visit.team):
        raise NotFound("There is no such delivery, or it is being sent.")
    return redirect(f"{PATH}/webhooks")


@for_visitors
async def show_nodes(visit: Visit) -> web.Response:
    """Handle `GET /dashboard/nodes`, for operators."""
    if visit.team is not None:
        raise NotFound
    found = await nodes.listed(visit.request.app)
    return await visit.page("nodes", this_node=found["this_node"], nodes=found["results"])


def _groups(visit: Visit) -> list[str]:
    """Return what usage can be grouped by. A team's usage has one team."""
    tags = visit.request.app[SETTINGS].value.tag_keys
    names = [str(each) for each in By if each is not By.TAG and (each is not By.TEAM or visit.team is None)]
    return names + [str(Grouping(By.TAG, key)) for key in tags]


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
