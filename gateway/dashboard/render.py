"""Render the console's pages as HTML. Templates escape every value; only charts are inserted unescaped."""

from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from gateway.dashboard import charts, formats, tables
from gateway.dashboard.assets import PAGE
from gateway.dashboard.charts import Series
from gateway.dashboard.formats import usd
from gateway.dashboard.frame import Frame
from gateway.domain import money, windows
from gateway.domain.ledger import Usage
from gateway.operations.rules import attention
from gateway.operations.rules import dashboard_view as boards
from gateway.operations.rules.dashboard_view import Board, DayUsage

_BOARD, _SIGN_IN, _SIGNED_IN, _TABLES = "board.html", "sign_in.html", "signed_in.html", "tables.html"
_SUFFIX = ".html"
_RANKED = 10
_MOST_KEPT = 64
_OTHERS = "others"


class Renderer:
    """Renders pages, and the live sections of the overview."""

    def __init__(self) -> None:
        self._environment = _environment()
        self._board = self._environment.get_template(_BOARD)
        self._sign_in = self._environment.get_template(_SIGN_IN)
        # All viewers of a board share one rendering.
        self.sections = lru_cache(maxsize=_MOST_KEPT)(self._sections)

    def overview(self, board: Board, frame: Frame) -> str:
        """Render the first page."""
        return self._board.render(self._context(board) | {"frame": frame})

    def page(self, frame: Frame, **content: Any) -> str:
        """Render the template that the frame's page is named for."""
        return self._environment.get_template(frame.page + _SUFFIX).render(frame=frame, **content)

    def sign_in(
        self,
        error: str | None = None,
        issuers: Sequence[tuple[str, str]] = (),
        next_page: str = "",
        *,
        is_secret_wrong: bool = True,
    ) -> str:
        """Render the sign-in form, with an error message if `error` is given, which can be about the secret.

        `issuers` are names and addresses of where else to sign in, `next_page` the page to open afterwards.
        """
        return self._sign_in.render(
            issuers=issuers, next=next_page, error=error, is_secret_wrong=error is not None and is_secret_wrong
        )

    def signed_in(self, next_page: str) -> str:
        """Render the page that leads on after a sign-in at an issuer."""
        return self._environment.get_template(_SIGNED_IN).render(next=next_page)

    def _sections(self, board: Board) -> Mapping[str, str]:
        """Render each live section, by the id of its element."""
        context = self._board.new_context(self._context(board))
        return {
            name.removeprefix("live_").replace("_", "-"): "".join(block(context)).strip()
            for name, block in self._board.blocks.items()
            if name.startswith("live_")
        }

    def _context(self, board: Board) -> dict[str, Any]:
        total = board.total
        count = boards.predictions(total)
        return {
            "board": board,
            "attention": attention.items(board.budgets, board.failed_webhooks, board.failed_checks, board.at),
            "prediction_count": count,
            "hit_share": boards.share(total.hits, count),
            "joined_share": boards.share(total.joined, count),
            "spend_chart": Markup(_spend(board)),  # noqa: S704 - generated and cleaned in charts.py
            "sources_chart": Markup(_sources(board.days)),  # noqa: S704 - as above
            "targets_chart": Markup(_targets(board.targets)),  # noqa: S704 - as above
        }


@cache
def _environment() -> jinja2.Environment:
    """Return the templates, compiled once for all gateways of a process: they are files of the package."""
    folder = resources.files(PAGE) / "templates"
    files = [each for each in folder.iterdir() if each.name.endswith(_SUFFIX)]
    loader = jinja2.DictLoader({each.name: each.read_text("utf-8") for each in files})
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "usd": formats.amount,
        "percent": formats.percent,
        "target": formats.target,
        "short_id": formats.short_id,
        "cut": formats.cut,
        "plain": formats.plain,
        "limit_value": formats.limit_value,
        "time": formats.moment,
        "shown_time": formats.shown_time,
        "day": windows.text_of,
        "month": formats.month,
        "duration": formats.duration,
        "error_title": formats.error_title,
        "event_title": formats.event_title,
        "name_title": formats.name_title,
        "labelled": tables.labelled,
    }
    environment.globals |= {
        "predictions": boards.predictions,
        "most_rows": boards.MOST_ROWS,
        "most_users": boards.MOST_USERS,
        "numbers": tables.NUMBERS,
        "overview": tables.OVERVIEW,
        "day_chart": _day_chart,
    }
    macros = environment.get_template(_TABLES).module
    environment.globals |= {name: getattr(macros, name) for name in ("table", "nothing")}
    return environment


def _dollars(amount: float) -> str:
    return usd(round(amount * money.MICROUSD_PER_USD))


def _count(amount: float) -> str:
    return f"{amount:,.0f}" if amount == int(amount) else ""


def _labels(days: Sequence[DayUsage]) -> tuple[str, ...]:
    """Return the days of the month as labels."""
    return tuple(windows.text_of(day.day)[8:].lstrip("0") for day in days)


def _spend(board: Board) -> str:
    """Render the spend per day, by team if there are several."""
    names = [row.team for row in board.teams if row.microusd > 0]
    shown, rest = names[: charts.MOST_SERIES - 1], names[charts.MOST_SERIES - 1 :]
    by_team = [{team: max(0, microusd) for team, microusd in day.spent} for day in board.days]
    series: list[Series] = [
        (team, tuple(spent.get(team, 0) / money.MICROUSD_PER_USD for spent in by_team)) for team in shown
    ]
    if rest:
        together = tuple(sum(spent.get(team, 0) for team in rest) / money.MICROUSD_PER_USD for spent in by_team)
        series.append((_OTHERS, together))
    description = f"Spend per day, {usd(board.total.microusd)} in total. The table below has the data."
    return charts.stacked(_labels(board.days), tuple(series), description, _dollars)


def _day_chart(days: Sequence[tuple[int, int]], description: str) -> Markup:
    """Render amounts by day."""
    labels = tuple(windows.text_of(day)[8:].lstrip("0") for day, _ in days)
    series: tuple[Series, ...] = (("spent", tuple(microusd / money.MICROUSD_PER_USD for _, microusd in days)),)
    return Markup(charts.stacked(labels, series, description, _dollars))  # noqa: S704 - cleaned in charts.py


def _sources(days: Sequence[DayUsage]) -> str:
    series: tuple[Series, ...] = (
        ("run", tuple(float(day.sums.runs) for day in days)),
        ("joined", tuple(float(day.sums.joined) for day in days)),
        ("hit", tuple(float(day.sums.hits) for day in days)),
    )
    description = "Predictions per day, by source. The table below has the data."
    return charts.stacked(_labels(days), series, description, _count)


def _targets(rows: Sequence[Usage]) -> str:
    """Render the targets with the most predictions."""
    used = [row for row in rows if boards.predictions(row)]
    busiest = sorted(used, key=boards.predictions, reverse=True)[:_RANKED]
    teams = {row.team for row in rows}
    labels = tuple(f"{row.what or 'corrections'}" + (f" · {row.team}" if len(teams) > 1 else "") for row in busiest)
    series: tuple[Series, ...] = (
        ("run", tuple(float(row.runs) for row in busiest)),
        ("joined", tuple(float(row.joined) for row in busiest)),
        ("hit", tuple(float(row.hits) for row in busiest)),
    )
    description = "Predictions by target, by source. The table below has the data."
    return charts.ranked(labels, series, description, _count)
