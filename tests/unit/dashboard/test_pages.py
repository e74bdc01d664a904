"""Rendering of the console: nothing inline, external or unescaped."""

import builtins
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from gateway.dashboard import assets
from gateway.dashboard.formats import amount, cents, duration, moment, percent, usd
from gateway.dashboard.frame import Frame
from gateway.dashboard.loading import load_renderer
from gateway.dashboard.render import Renderer
from gateway.domain import windows
from gateway.domain.ledger import Usage
from gateway.operations.rules import dashboard_view as boards
from gateway.operations.rules.dashboard_view import ActiveRun, Board, Budget, Live, RecentError, Refusal

EVIL = """<script>alert("1")</script>'"><img src=x onerror=alert(2)>"""
TODAY = windows.parse_day("2026-06-12")
SINCE = windows.parse_day("2026-06-01")


def row(team: str = "alpha", what: str | int | None = None, **sums: int) -> Usage:
    return Usage(team=team, what=what, **({"runs": 3, "hits": 2, "joined": 1, "microusd": 1_250_000} | sums))


def board(**fields: Any) -> Board:
    days = boards.by_days([row("alpha", TODAY), row("beta", TODAY - 3)], SINCE, TODAY)
    given = {
        "whose": None,
        "at": 1_781_280_000.5,
        "since": SINCE,
        "until": TODAY,
        "total": row(""),
        "days": days,
        "teams": (row("alpha"), row("beta")),
        "targets": (row("alpha", "acme/toy"), row("beta", "acme/toy")),
        "budgets": (),
        "live": Live(requests=1, runs=1, streams=0, waiting=0),
        "runs": (),
        "recent_errors": (),
        "refusals": (),
    }
    return Board(**given | fields)


def frame(page: str = "board", team: str | None = None, *, can_sign_out: bool = False) -> Frame:
    return Frame(page=page, team=team, can_sign_out=can_sign_out, form_token="token")


class Seen(HTMLParser):
    """The tags of a document."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="session")
def renderer() -> Renderer:
    return Renderer()


def assert_strict(text: str) -> None:
    """Check that a document satisfies the Content-Security-Policy and loads from its own origin only."""
    for tag, attributes in Seen(text).tags:
        assert tag not in ("style", "iframe", "object", "embed", "base", "img"), tag
        assert "style" not in attributes, (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        if tag == "script":
            assert attributes["src"] == "/dashboard/files/page.js"
        for name in ("href", "src", "action", "xlink:href"):
            assert (attributes.get(name) or "/").startswith(("/dashboard", "#", "/")), attributes
            assert not (attributes.get(name) or "/").startswith("//"), attributes
    assert "<script>" not in text


def test_pages_have_no_inline_and_no_external_content(renderer: Renderer):
    assert_strict(renderer.overview(board(), frame(can_sign_out=True)))
    assert_strict(renderer.overview(board(whose="alpha", days=(), teams=(), targets=()), frame(team="alpha")))
    assert_strict(renderer.sign_in())
    assert_strict(renderer.sign_in(EVIL, [(EVIL, "/dashboard/sign-in/start?issuer=id")], EVIL))
    assert_strict(renderer.signed_in("/dashboard"))
    assert_strict(assets.load()[assets.MISSING].body.decode())


def test_text_from_callers_is_escaped(renderer: Renderer):
    """Targets and errors come from callers and upstream."""
    shown = board(
        whose=None,
        teams=(row(EVIL),),
        targets=(row(EVIL, EVIL),),
        days=boards.by_days([row(EVIL, TODAY)], SINCE, TODAY),
        budgets=(Budget(team=EVIL, day_spent=1, day_limit=2, month_spent=1, month_limit=2, held=0, projected=9),),
        runs=(ActiveRun(team=EVIL, prediction=EVIL, target=EVIL, status="starting", since=0.0),),
        recent_errors=(RecentError(at=0.0, team=EVIL, what=EVIL, detail=EVIL, prediction=EVIL),),
        refusals=(Refusal(team=EVIL, reason=EVIL, count=1),),
    )
    text = renderer.overview(shown, frame())
    assert_strict(text)
    for html in renderer.sections(shown).values():
        assert_strict(html)
    assert "onerror" in text
    assert "above the budget" in text


def test_every_live_section_has_an_element(renderer: Renderer):
    """The event stream replaces the content of elements by id."""
    shown = board()
    ids = {attributes.get("id") for _, attributes in Seen(renderer.overview(shown, frame())).tags}
    sections = renderer.sections(shown)
    assert set(sections) <= ids
    assert {"now", "month", "budgets", "spend-chart", "targets", "runs", "recent-errors", "refusals"} <= set(sections)
    for html in sections.values():
        # Sections contain no ids, which would be duplicates in the page.
        assert not [attributes for _, attributes in Seen(html).tags if "id" in attributes]


def test_every_chart_has_a_description_and_a_table(renderer: Renderer):
    text = renderer.overview(board(), frame())
    charts = [attributes for tag, attributes in Seen(text).tags if tag == "svg"]
    assert len(charts) == 3
    assert all(each["role"] == "img" and "table below" in (each["aria-label"] or "") for each in charts)
    assert len(re.findall(r"as a table</summary>", text)) == 3


def test_a_board_is_rendered_once_for_all_viewers(renderer: Renderer):
    assert renderer.sections(board(at=5.0)) is renderer.sections(board(at=5.0))


def test_many_teams_are_combined_in_charts_and_limited_in_tables(renderer: Renderer):
    names = [f"team{number:03}" for number in range(60)]
    shown = board(
        teams=tuple(row(name) for name in names),
        targets=tuple(row(name, "acme/toy") for name in names),
        days=boards.by_days([row(name, TODAY) for name in names], SINCE, TODAY),
    )
    sections = renderer.sections(shown)
    assert ">others<" in sections["spend-chart"]
    assert sections["teams"].count("<tr ") == boards.MOST_ROWS
    assert "10 more teams" in sections["teams-more"]
    assert "10 more" in sections["targets-more"]


@pytest.mark.parametrize(
    ("microusd", "text"),
    [
        (0, "$0.00"),
        (250_000, "$0.25"),
        (123, "$0.000123"),
        (1_234_567_890_100, "$1,234,567.8901"),
        (-1_500_000, "-$1.50"),
    ],
)
def test_amounts_are_exact(microusd: int, text: str):
    assert usd(microusd) == text


@pytest.mark.parametrize(
    ("microusd", "text"),
    [
        (0, "$0.00"),
        (1, "<$0.01"),
        (-9_999, "-<$0.01"),
        (10_000, "$0.01"),
        (14_999, "$0.01"),
        (15_000, "$0.02"),
        (25_000, "$0.02"),
        (25_001, "$0.03"),
        (1_234_567_890_100, "$1,234,567.89"),
        (-1_500_000, "-$1.50"),
    ],
)
def test_amounts_are_shown_to_the_cent(microusd: int, text: str):
    assert cents(microusd) == text


def test_exact_amount_is_the_title_of_each():
    assert amount(123) == '<data value="0.000123" title="$0.000123">&lt;$0.01</data>'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.42, "0.42 s"),
        (45.4, "45 s"),
        (60.0, "1 min"),
        (11_520.0, "3 h 12 min"),
        (90_000.0, "1 d 1 h"),
    ],
)
def test_durations_have_two_units(seconds: float, text: str):
    assert duration(seconds) == text


def test_fractions_and_times_are_formatted():
    assert percent(None) == "–"
    assert percent(0.125) == "12.5 %"
    assert moment(1_781_280_000.5) == "2026-06-12 16:00:00"


def test_without_the_extra_there_is_no_renderer(monkeypatch: pytest.MonkeyPatch):
    """The core installs and starts without the libraries of the page."""
    real = builtins.__import__

    def without(name: str, *more: Any, **others: Any) -> Any:
        if name == "gateway.dashboard.render":
            raise ModuleNotFoundError("No module named 'pygal'", name="pygal")
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    assert load_renderer() is None


def test_the_chart_library_leaves_no_import_hook():
    """Later imports are neither slower nor cause warnings."""
    assert all(hasattr(finder, "find_spec") for finder in sys.meta_path)
