"""The page and its parts as HTML. Every value is escaped by the templates; charts alone are put in as they are."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from gateway.dashboard import charts
from gateway.dashboard.assets import PAGE
from gateway.dashboard.charts import Series
from gateway.domain import money, times, windows
from gateway.domain.ledger import Usage
from gateway.operations.rules import dashboard_view as boards
from gateway.operations.rules.dashboard_view import Board, DayUsage

_BOARD, _SIGN_IN = "board.html", "sign_in.html"
_TEMPLATES = ("base.html", _BOARD, _SIGN_IN)
_RANKED = 10
_MOST_KEPT = 64
_OTHERS = "others"


class Renderer:
    """Draws boards."""

    def __init__(self) -> None:
        folder = resources.files(PAGE) / "templates"
        loader = jinja2.DictLoader({name: (folder / name).read_text("utf-8") for name in _TEMPLATES})
        environment = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters |= {"usd": usd, "percent": percent, "time": moment, "day": windows.text_of}
        environment.globals |= {"predictions": boards.predictions, "most_rows": boards.MOST_ROWS}
        self._board = environment.get_template(_BOARD)
        self._sign_in = environment.get_template(_SIGN_IN)
        # Many look at one board, and it is drawn once.
        self.sections = lru_cache(maxsize=_MOST_KEPT)(self._sections)

    def page(self, board: Board, *, can_sign_out: bool) -> str:
        """Draw the whole page."""
        return self._board.render(self._context(board) | {"can_sign_out": can_sign_out})

    def sign_in(self, trouble: str | None = None) -> str:
        """Draw the form that asks who looks."""
        return self._sign_in.render(trouble=trouble)

    def _sections(self, board: Board) -> Mapping[str, str]:
        """Draw each part that changes, by the id of the element that it stands in."""
        context = self._board.new_context(self._context(board))
        return {
            name.removeprefix("live_").replace("_", "-"): "".join(block(context)).strip()
            for name, block in self._board.blocks.items()
            if name.startswith("live_")
        }

    def _context(self, board: Board) -> dict[str, Any]:
        total = board.total
        asked = boards.predictions(total)
        return {
            "board": board,
            "asked": asked,
            "hit_share": boards.share(total.hits, asked),
            "joined_share": boards.share(total.joined, asked),
            "spend_chart": Markup(_spend(board)),  # noqa: S704 - of our own making, cleaned in charts.py
            "sources_chart": Markup(_sources(board.days)),  # noqa: S704 - as above
            "targets_chart": Markup(_targets(board.targets)),  # noqa: S704 - as above
        }


def usd(microusd: int) -> str:
    """Write an amount exactly, without zeros that say nothing: `$0.25`, `$0.000123`, `-$1.50`."""
    whole, _, places = money.usd(abs(microusd)).partition(".")
    return f"{'-' if microusd < 0 else ''}${int(whole):,}.{places[:2]}{places[2:].rstrip('0')}"


def percent(fraction: float | None) -> str:
    """Write a share; a dash for one of nothing."""
    return "–" if fraction is None else f"{fraction * 100:.1f} %"


def moment(at: float) -> str:
    """Write a time for people, by UTC."""
    return times.render(at)[:19].replace("T", " ")


def _dollars(amount: float) -> str:
    return usd(round(amount * money.MICROUSD_PER_USD))


def _count(amount: float) -> str:
    return f"{amount:,.0f}" if amount == int(amount) else ""


def _labels(days: Sequence[DayUsage]) -> tuple[str, ...]:
    """Name days by their numbers: the month is told beside the chart."""
    return tuple(windows.text_of(day.day)[8:].lstrip("0") for day in days)


def _spend(board: Board) -> str:
    """Draw what each day cost, by team where there are several."""
    names = [row.team for row in board.teams if row.microusd > 0]
    shown, rest = names[: charts.MOST_SERIES - 1], names[charts.MOST_SERIES - 1 :]
    by_team = [{team: max(0, microusd) for team, microusd in day.spent} for day in board.days]
    series: list[Series] = [
        (team, tuple(spent.get(team, 0) / money.MICROUSD_PER_USD for spent in by_team)) for team in shown
    ]
    if rest:
        together = tuple(sum(spent.get(team, 0) for team in rest) / money.MICROUSD_PER_USD for spent in by_team)
        series.append((_OTHERS, together))
    words = f"Spend a day, {usd(board.total.microusd)} in all. The table below has the figures."
    return charts.stacked(_labels(board.days), tuple(series), words, _dollars)


def _sources(days: Sequence[DayUsage]) -> str:
    series: tuple[Series, ...] = (
        ("run", tuple(float(day.sums.runs) for day in days)),
        ("joined", tuple(float(day.sums.joined) for day in days)),
        ("hit", tuple(float(day.sums.hits) for day in days)),
    )
    words = "Predictions a day, by how they were answered. The table below has the figures."
    return charts.stacked(_labels(days), series, words, _count)


def _targets(rows: Sequence[Usage]) -> str:
    """Draw the targets that were asked for most."""
    busiest = sorted(rows, key=boards.predictions, reverse=True)[:_RANKED]
    teams = {row.team for row in rows}
    labels = tuple(f"{row.what or '–'}" + (f" · {row.team}" if len(teams) > 1 else "") for row in busiest)
    series: tuple[Series, ...] = (
        ("run", tuple(float(row.runs) for row in busiest)),
        ("joined", tuple(float(row.joined) for row in busiest)),
        ("hit", tuple(float(row.hits) for row in busiest)),
    )
    words = "Predictions by target, by how they were answered. The table below has the figures."
    return charts.ranked(labels, series, words, _count)
