"""The console in a real Chromium: correct, self-contained and accessible."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.dashboard.formats import usd
from gateway.dashboard.frame import OF_MANAGERS, OF_OPERATORS, PAGES
from gateway.simulator import Simulator
from tests.support.month_of_usage import write_month
from tests.support.node import run_script
from tests.support.stack import Stack, start_gateway
from tests.support.tools import clean_environment, require_tool
from tests.support.upstream import version_of

pytestmark = [pytest.mark.chromium, pytest.mark.node, pytest.mark.timeout(90)]

ROOT = Path(__file__).parents[2]
TEAMS = {"alpha": {"budget_usd_per_month": 15}, "beta": {"budget_usd_per_month": 2}}
Page = Callable[..., Awaitable[Any]]


@pytest.fixture
def ops() -> dict[str, Any]:
    """The config of the ops listener."""
    return {}


@pytest.fixture(scope="session")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store with a month of usage, written once."""
    folder = tmp_path_factory.mktemp("month")
    asyncio.run(write_month(folder / "gateway.db", time.time()))
    return folder


@pytest.fixture
async def gateway(
    month: Path, upstream: Simulator, tmp_path: Path, a_quiet_gateway: None, ops: dict[str, Any]
) -> AsyncIterator[Stack]:
    """A gateway with a month of usage."""
    shutil.copytree(month, tmp_path, dirs_exist_ok=True)
    async with start_gateway(upstream, tmp_path, teams=TEAMS, ops=ops) as stack:
        yield stack


@pytest.fixture
def page(clients: Path, gateway: Stack, tmp_path: Path) -> Page:
    """Play a scenario with the page: `await page("look", scheme="dark")`."""
    chromium = require_tool("chromium")

    async def open_page(scenario: str, complaints: Sequence[str] = (), **more: Any) -> Any:
        done = await run_script(
            "dashboard.mjs",
            scenario,
            base_url=gateway.base_url,
            key=gateway.keys["alpha"],
            executable=chromium,
            profile=str(tmp_path / "profile"),
            address=f"{gateway.ops_url}/dashboard",
            **more,
        )
        assert done.error is None, done.error
        seen = done.result
        assert seen["complaints"] == list(complaints)
        # Browsers draw the icon of a date field from a data URI.
        asked = [each for each in seen["requests"] if not each.startswith("GET data:image/svg+xml;")]
        strangers = [each for each in asked if f" {gateway.ops_url}/dashboard" not in each]
        assert strangers == []
        return seen

    return open_page


def told_by_the_command_line(stack: Stack, *options: str) -> Any:
    """Run `gateway usage` while the gateway is running."""
    config = stack.database.parent / "config.toml"
    if not config.exists():
        teams = "\n".join(f'[[teams]]\nname = "{team}"' for team in ("alpha", "beta", "operator"))
        config.write_text(f'[store]\nurl = "sqlite:///{stack.database}"\n{teams}\n')
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "usage", "--config", str(config), "--format", "json", *options],
        cwd=ROOT,
        env=clean_environment(REPLICATE_API_TOKEN="r8_" + "a" * 37, PYTHONPATH=str(ROOT)),
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def row_of(sums: Any) -> list[str]:
    counts = [str(sums["predictions"][word]) for word in ("run", "joined", "hit")]
    return [*counts, f"{sums['seconds']:,.3f}", usd(sums["spend_microusd"]), usd(sums["saved_microusd"])]


async def test_the_page_equals_gateway_usage(page: Page, gateway: Stack):
    """Every row and total, to the micro-dollar."""
    seen = await page("look")
    by_team = told_by_the_command_line(gateway, "--by", "team")
    by_model = told_by_the_command_line(gateway, "--by", "model")
    by_day = told_by_the_command_line(gateway, "--by", "day")
    total = by_team["total"]
    assert total["spend_microusd"] > 0
    assert total["saved_microusd"] > 0
    tiles, tables = seen["tiles"], seen["tables"]
    counted = total["predictions"]
    asked = sum(counted.values())
    assert tiles["Spent"] == usd(total["spend_microusd"])
    assert tiles["Saved by sharing"] == usd(total["saved_microusd"])
    assert tiles["Predictions"] == f"{asked:,}"
    assert tiles["Hits"] == f"{counted['hit'] / asked * 100:.1f} %"
    assert tiles["Joined"] == f"{counted['joined'] / asked * 100:.1f} %"
    assert sorted(tables["teams"]) == sorted([row["team"], *row_of(row)] for row in by_team["rows"])
    assert sorted(tables["targets"]) == sorted([row["model"], row["team"], *row_of(row)] for row in by_model["rows"])
    spent: dict[str, list[int]] = {}
    for row in by_day["rows"]:
        sums = spent.setdefault(row["day"], [0, 0])
        sums[0] += row["spend_microusd"]
        sums[1] += row["saved_microusd"]
    shown = {day: cells for day, *cells, _ in tables["spend-days"]}
    assert {day: [usd(each) for each in sums] for day, sums in spent.items()} == {day: shown[day] for day in spent}
    budgets = {row[0]: row for row in tables["budgets"]}
    of_team = {row["team"]: row for row in by_team["rows"]}
    assert budgets["alpha"][2].startswith(f"{usd(of_team['alpha']['spend_microusd'])} of $15.00")


async def test_an_open_page_is_updated(page: Page, upstream: Simulator):
    """A new prediction appears within seconds, an open table stays open, and pausing stops updates."""
    body = {"version": version_of(upstream, "acme/storyteller"), "input": {"prompt": "hi", "max_tokens": 2}}
    seen = await page("watch", body=body)
    before, after, paused = (int(seen[when]["Predictions"].replace(",", "")) for when in ("before", "after", "paused"))
    assert (after, paused) == (before + 1, before + 1)
    assert seen["stillOpen"] is True


async def test_the_keyboard_reaches_everything(page: Page):
    """First the skip link, then the pages, every button, table and chart, each with a visible focus."""
    shown = [each.title for each in (*PAGES, *OF_MANAGERS, *OF_OPERATORS)]
    stops = (await page("tab", steps=12 + len(shown)))["stops"]
    assert stops[0]["text"] == "Skip to content"
    assert [stop["text"] for stop in stops[1 : 1 + len(shown)]] == shown
    assert stops[1 + len(shown)]["text"] == "Pause updates"
    assert {"SUMMARY", "DIV"} <= {stop["tag"] for stop in stops}
    assert all(stop["outlineStyle"] != "none" for stop in stops)


class TestWithAToken:
    """With a token on the ops listener."""

    @pytest.fixture
    def ops(self) -> dict[str, Any]:
        """Use the stack's operator key as the operators' token."""
        return {"token_env": "KEY_OPERATOR"}

    async def test_a_team_key_shows_its_team_only(self, page: Page, gateway: Stack):
        """The data of beta and no other team. The form passes axe too."""
        seen = await page("look", secret=gateway.keys["beta"])
        assert seen["violations"] == []
        assert seen["cookie"] == ""
        assert seen["heading"] == "Overview of team beta"
        (sums,) = told_by_the_command_line(gateway, "--team", "beta", "--by", "team")["rows"]
        assert seen["tiles"]["Spent"] == usd(sums["spend_microusd"])
        assert "teams" not in seen["tables"]
        assert {row[1] for row in seen["tables"]["targets"]} == {"beta"}
        assert [row[0] for row in seen["tables"]["budgets"]] == ["beta"]
