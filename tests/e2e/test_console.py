"""The pages of the console in a real Chromium: they fit a phone, and everything can be done with them."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.dashboard.formats import usd
from gateway.dashboard.frame import OF_MANAGERS, OF_OPERATORS, PAGES
from gateway.domain import windows
from gateway.domain.windows import Window
from gateway.simulator import Simulator
from tests.support.console_world import LAST_MONTH, LONG, Having, fill_worlds, world_config
from tests.support.node import run_script
from tests.support.stack import Stack, start_gateway
from tests.support.tools import require_tool
from tests.support.upstream import version_of

pytestmark = [pytest.mark.chromium, pytest.mark.node, pytest.mark.timeout(180), pytest.mark.usefixtures("clients")]

GROUPINGS = ("team", "day", "key", "model", "user", "tag:project")


@asynccontextmanager
async def opened(upstream: Simulator, folder: Path, **more: Any) -> AsyncIterator[tuple[Stack, tuple[Having, ...]]]:
    """Open a gateway with two teams that have something of everything. Operators sign in with a token."""
    config = world_config(folder, "alpha", "beta") | {"ops": {"token_env": "KEY_OPERATOR"}} | more
    async with start_gateway(upstream, folder, **config) as stack:
        yield stack, await fill_worlds(stack, "alpha", "beta")


async def played(stack: Stack, scenario: str, folder: Path, **more: Any) -> Any:
    """Play a scenario. Nothing may come from elsewhere, and the browser may complain of nothing unexpected."""
    done = await run_script(
        "dashboard.mjs",
        scenario,
        base_url=stack.base_url,
        key=stack.keys["alpha"],
        executable=require_tool("chromium"),
        profile=str(folder / "profile"),
        address=f"{stack.ops_url}/dashboard",
        **more,
    )
    assert done.error is None, done.error
    # Browsers draw the icon of a date field from a data URI.
    asked = [each for each in done.result["requests"] if not each.startswith("GET data:image/svg+xml;")]
    assert [each for each in asked if f" {stack.ops_url}/dashboard" not in each] == []
    return done.result


def _is_dark(page: Any) -> bool:
    return sum(int(each) for each in re.findall(r"\d+", page["ground"])[:3]) < 150


def found(rows: list[list[str]], index: int) -> list[str]:
    return [row[index] for row in rows]


@pytest.mark.parametrize(("scheme", "small"), [("light", False), ("dark", True)], ids=["desktop", "phone"])
async def test_every_page_is_accessible_and_fits(
    upstream: Simulator, tmp_path: Path, a_quiet_gateway: None, scheme: str, small: bool
):
    """With long names and large numbers, in light and dark: axe finds nothing, nothing is cut off, charts have colors.

    No table scrolls sideways, and on a phone nothing does, not even in a box of its own.
    """
    async with opened(upstream, tmp_path) as (stack, (alpha, _)):
        paths = [each.path.removeprefix("/dashboard") for each in (*PAGES, *OF_MANAGERS, *OF_OPERATORS)]
        month = windows.text_of(windows.month_before(windows.first_day(Window.MONTH, windows.day_of(time.time()))))[:7]
        paths += [f"/usage?by=user&month={month}", f"/predictions/{alpha.picture}"]
        how = {"paths": paths, "both": ["", "/keys"], "scheme": scheme, "small": small}
        seen = await played(stack, "visit", tmp_path, secret=stack.keys["operator"], **how)
    assert seen["complaints"] == []
    for path, page in seen["pages"].items():
        assert page["violations"] == [], path
        assert page["overflow"] <= 0, path
        assert page["heading"], path
        assert _is_dark(page) == (scheme == "dark"), path
        assert page["wideTables"] == [], path
        if small:
            assert page["wide"] == [], path
    for path in how["both"]:
        other = seen["pages"][path]["other"]
        assert other["violations"] == [], path
        assert _is_dark(other) == (scheme == "light"), path
    overview = seen["pages"][""]
    assert len(overview["charts"]) == 3
    for chart in (*overview["charts"], *overview["other"]["charts"]):
        assert chart["bars"] > 0
        # Colors come from the page's stylesheet and differ by series.
        assert len(chart["fills"]) >= 2
        assert "rgb(0, 0, 0)" not in chart["fills"]
        assert "table below" in chart["words"]
    assert any(LONG in cell for row in seen["pages"]["/keys"]["tables"]["keys"] for cell in row)


async def test_every_flow_of_operators_and_team_leads(upstream: Simulator, tmp_path: Path, a_quiet_gateway: None):
    """Sign-in, search, live list, pictures, usage and its file, limits, webhooks, keys, nodes, and a lead's end."""
    async with opened(upstream, tmp_path) as (stack, (alpha, beta)):
        today = windows.day_of(time.time())
        month = windows.text_of(windows.month_before(windows.first_day(Window.MONTH, today)))[:7]
        seen = await played(
            stack, "operate", tmp_path,
            secret=stack.keys["operator"],
            filters={"Team": "alpha", "Target": "acme/*", "User": alpha.user, "Tag": f"project:{alpha.tag}"},
            prediction=alpha.prediction, picture=alpha.picture, months=month, groupings=GROUPINGS,
            delivery=beta.delivery,
            create={
                "headers": {"Gateway-User": alpha.user, "Gateway-Tags": f"project={alpha.tag}", "Prefer": "wait"},
                "body": {"version": f"acme/storyteller:{version_of(upstream, 'acme/storyteller')}",
                         "input": {"prompt": alpha.prompt, "seed": 1}},
            },
        )  # fmt: skip
        refused = "Failed to load resource: the server responded with a status of 422 (Unprocessable Entity)"
        assert seen["complaints"] == [refused]
        assert seen["asked"].endswith("/dashboard/sign-in")
        assert {cookie["path"] for cookie in seen["cookies"]} == {"/dashboard", "/admin"}
        assert {(cookie["httpOnly"], cookie["sameSite"]) for cookie in seen["cookies"]} == {(True, "Strict")}
        assert {(row[0], row[1]) for row in seen["users"]} >= {(alpha.user, "alpha"), (beta.user, "beta")}
        assert alpha.prediction in found(seen["found"], 1)
        assert {(row[4], row[10]) for row in seen["found"]} == {("alpha", alpha.user)}
        assert found(seen["foundLater"], 1) == [seen["made"], *found(seen["found"], 1)]
        assert seen["made"] in found(seen["prediction"]["sharers"], 0)
        assert "created" in found(seen["prediction"]["timeline"], 1)
        assert seen["gallery"] == [32, 32]
        assert seen["picture"] == [32]
        for by, rows in seen["usage"].items():
            assert [row[-2] for row in rows] == [usd(LAST_MONTH)] * 2, by
        assert sorted(line.split(",")[0] for line in seen["csv"].splitlines()[1:]) == ["alpha", "beta"]
        assert "1234567.890123" in seen["csv"]
        for row in seen["usedUp"]:
            assert "budget_usd_per_day" in row["text"]
            assert "Used up." in row["text"]
            assert windows.text_of(today + 1) in row["text"]
            assert row["color"] == "rgb(179, 38, 30)"
        assert len(seen["usedUp"]) == 2
        assert found(seen["deliveries"], 1) == ["failed", "failed"]
        assert found(seen["deliveriesLater"], 1) != ["failed", "failed"]
        assert "limits.requests_per_minute: expected a number" in seen["problem"]
        assert seen["created"] != seen["rotated"]
        assert {seen[name][:4] for name in ("created", "rotated")} == {"rgw_"}
        assert seen["shownAgain"] == []
        made = [row for row in seen["before"] if row[0] == "from the console"]
        assert {(row[2], row[7]) for row in made} == {("valid", "console:operators")}
        assert "SQLite" in seen["nodes"][0][0]
        assert seen["afterwards"].endswith("/dashboard/sign-in")
        ends = await played(
            stack, "lead", tmp_path,
            secret=seen["rotated"], operator=stack.keys["operator"], name="from the console",
        )  # fmt: skip
    assert ends["complaints"] == ["Failed to load resource: the server responded with a status of 401 (Unauthorized)"]
    assert {cookie["path"] for cookie in ends["cookies"]} == {"/dashboard"}
    assert ends["links"] == [each.title for each in (*PAGES, *OF_MANAGERS)]
    assert ends["board"]["heading"] == "Overview of team alpha"
    assert {row[1] for row in ends["board"]["tables"]["users"]} == {"alpha"}
    lead = next(row[0] for row in ends["keys"] if row[0] == "by the lead")
    creators = {row[0]: row[6] for row in ends["keys"]}
    assert creators[lead].startswith("key:")
    assert creators[lead].endswith(" from the console")
    assert (ends["audit"][0][1], ends["audit"][0][2]) == (creators[lead], "key.created")
    assert "1 valid key was created with it, and still works" in " ".join(ends["revoked"].split())
    assert [(row[0], row[2]) for row in ends["left"]] == [("by the lead", "valid")]
    assert ends["refused"] == "That is neither the operators' token nor a valid key."


async def test_inputs_and_outputs_can_be_hidden(upstream: Simulator, tmp_path: Path, a_quiet_gateway: None):
    """With `[console] show_data` false, neither text nor pictures of a prediction are on its page."""
    async with opened(upstream, tmp_path, console={"show_data": False}) as (stack, (alpha, _)):
        path = f"/predictions/{alpha.picture}"
        seen = await played(stack, "visit", tmp_path, paths=[path], secret=stack.keys["operator"])
    assert "show_data" in seen["pages"][path]["text"]
    assert alpha.prompt not in seen["pages"][path]["text"]
    assert seen["pages"][path]["pictures"] == 0
