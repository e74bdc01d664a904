"""`gateway usage`: three output formats and corrections, with and without a running gateway."""

import asyncio
import csv
import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.domain import windows
from gateway.domain.ledger import Settlement
from gateway.domain.quota import ReservationRequest
from gateway.domain.records import Key, Kind, Prediction, Run, Source, Status
from gateway.predictions.ports.sharing import ShareRequest
from gateway.store.urls import open_store
from tests.support.audit import BY_TEST
from tests.support.records import make_store

CONFIG = """
[tags]
keys = ["project", "feature"]
[[teams]]
name = "acme"
[[teams]]
name = "blue"
"""
NOW = time.time()
TODAY = windows.text_of(windows.day_of(NOW))

pytestmark = pytest.mark.usefixtures("folder")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)
    make_store(tmp_path)
    return tmp_path


def ask(*arguments: str) -> Result:
    environ = {"REPLICATE_API_TOKEN": None, "GATEWAY_CONFIG": None}
    return CliRunner().invoke(main, ["usage", *arguments], env=environ, prog_name="gateway")


def reported(*arguments: str) -> Any:
    result = ask("--format", "json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


async def _issue(key_id: str, name: str) -> None:
    store = open_store("sqlite:///gateway.db")
    await store.open()
    await store.add_key(Key(id=key_id, team="acme", name=name, sha256="ab" * 32, created_at=NOW), actor=BY_TEST)
    await store.close()


async def _run(
    number: int, team: str, target: str, user: str | None, *, at: float, microusd: int, key_id: str | None = None,
    tags: str = "",
) -> None:  # fmt: skip
    store = open_store("sqlite:///gateway.db")
    await store.open()
    run = Run(
        id=f"run{number}", kind=Kind.PREDICTION, team=team, key_id=key_id or f"{team}/web", target=target,
        path="/predictions", request=b"{}", intended_at=at,
    )  # fmt: skip
    made = Prediction(
        id=f"p{number}", run_id=run.id, kind=Kind.PREDICTION, team=team, key_id=run.key_id, user=user,
        source=Source.MISS, created_at=at, ticket=f"t{number}", ticket_expires_at=at + 60, tags=tags,
    )  # fmt: skip
    await store.start(ShareRequest(prediction=made, now=at), run, reservation=ReservationRequest(1, 1))
    settlement = Settlement(at=at, microusd=microusd, milliseconds=1500, target=target)
    await store.advance(run.id, status=Status.SUCCEEDED, document=b"", stream_url=None, at=at, settlement=settlement)
    await store.close()


@pytest.fixture
def runs(folder: Path) -> None:
    """Two runs of acme today, one of blue today, and an old one of acme."""
    for number, (team, target, user, age, microusd) in enumerate(
        [
            ("acme", "acme/toy", "ann", 0, 1_000_000),
            ("acme", "acme/big", "=cmd()", 0, 500_001),
            ("blue", "acme/toy", None, 0, 250_000),
            ("acme", "acme/toy", None, 70 * 86_400, 70_000),
        ]
    ):
        asyncio.run(_run(number, team, target, user, at=NOW - age, microusd=microusd))


@pytest.mark.usefixtures("runs")
class TestShown:
    def test_month_is_shown_by_team(self):
        """The plain command answers the first question: who spent how much this month?"""
        result = ask()
        assert result.exit_code == 0, result.output
        assert [line.split() for line in result.stdout.splitlines()] == [
            ["team", "run", "joined", "hit", "seconds", "spend_usd", "saved_usd"],
            ["acme", "2", "0", "0", "3.000", "1.500001", "0.000000"],
            ["blue", "1", "0", "0", "1.500", "0.250000", "0.000000"],
            ["total", "3", "0", "0", "4.500", "1.750001", "0.000000"],
        ]

    def test_values_of_a_tag_are_shown_with_what_has_none(self):
        """An operator allocates the month's cost to projects; the rows add up to the total."""
        asyncio.run(_run(9, "acme", "acme/toy", None, at=NOW, microusd=7, tags='{"project":"apollo"}'))
        found = reported("--by", "tag:project", "--team", "acme")
        assert found["by"] == "tag:project"
        assert [(row["value"], row["spend_microusd"]) for row in found["rows"]] == [("apollo", 7), (None, 1_500_001)]
        assert found["total"]["spend_microusd"] == 1_500_008
        lines = ask("--by", "tag:project", "--format", "csv", "--team", "acme").stdout.splitlines()
        assert lines[0].startswith("team,project,run,")
        assert lines[1].startswith("acme,apollo,1,")
        assert lines[2].startswith("acme,,2,")

    @pytest.mark.parametrize(
        ("by", "reason"), [("tag:projects", "the tags are project, feature"), ("tag", "tag:KEY"), ("x", "team, day")]
    )
    def test_unknown_grouping_is_named(self, by: str, reason: str):
        result = ask("--by", by)
        assert result.exit_code == 2
        assert reason in result.output

    def test_json_has_the_shape_of_the_api(self):
        found = reported("--by", "model", "--team", "acme")
        assert found["from"] == TODAY[:8] + "01"
        assert (found["to"], found["by"]) == (TODAY, "model")
        assert found["rows"][0] == {
            "team": "acme",
            "model": "acme/toy",
            "predictions": {"run": 1, "joined": 0, "hit": 0},
            "seconds": 1.5,
            "spend_usd": "1.000000",
            "spend_microusd": 1_000_000,
            "saved_usd": "0.000000",
            "saved_microusd": 0,
        }
        assert found["total"]["spend_microusd"] == 1_500_001

    @pytest.mark.parametrize(
        ("by", "names"),
        [
            ("team", [None]),
            ("key", ["acme/web"]),
            ("model", ["acme/toy", "acme/big"]),
            ("day", [TODAY]),
            ("user", ["ann", "=cmd()"]),
        ],
    )
    def test_by_selects_the_rows(self, by: str, names: list[str | None]):
        rows = reported("--by", by, "--team", "acme")["rows"]
        assert [row.get(by) if by != "team" else None for row in rows] == names

    def test_keys_are_named(self):
        """Nobody knows a key by its id. An issued key has a name in the store, one of the config in its id."""
        asyncio.run(_issue("k1", "=nightly"))
        asyncio.run(_run(9, "acme", "acme/toy", None, at=NOW, microusd=10, key_id="k1"))
        asyncio.run(_run(10, "acme", "acme/toy", None, at=NOW, microusd=5, key_id="gone"))
        rows = reported("--by", "key", "--team", "acme")["rows"]
        assert [(row["key"], row["key_name"]) for row in rows] == [
            ("acme/web", "web"), ("k1", "=nightly"), ("gone", None)
        ]  # fmt: skip
        result = ask("--by", "key", "--team", "acme")
        assert [line.split()[:3] for line in result.stdout.splitlines()] == [
            ["team", "key", "key_name"],
            ["acme", "acme/web", "web"],
            ["acme", "k1", "=nightly"],
            ["acme", "gone", "-"],
            ["total", "4", "0"],
        ]
        table = list(csv.reader(ask("--format", "csv", "--by", "key", "--team", "acme").stdout.splitlines()))
        assert [row[:3] for row in table] == [
            ["team", "key", "key_name"], ["acme", "acme/web", "web"], ["acme", "k1", "'=nightly"], ["acme", "gone", ""]
        ]  # fmt: skip

    def test_csv_cells_are_not_formulas(self):
        """A user named =cmd() is a name."""
        result = ask("--format", "csv", "--by", "user", "--team", "acme")
        table = list(csv.reader(result.stdout.splitlines()))
        assert table == [
            ["team", "user", "run", "joined", "hit", "seconds", "spend_usd", "saved_usd"],
            ["acme", "ann", "1", "0", "0", "1.500", "1.000000", "0.000000"],
            ["acme", "'=cmd()", "1", "0", "0", "1.500", "0.500001", "0.000000"],
        ]

    @pytest.mark.parametrize("since", ["90d", windows.text_of(windows.day_of(NOW) - 90)])
    def test_since_is_a_day_or_an_age(self, since: str):
        assert reported("--since", since, "--team", "acme")["total"]["spend_microusd"] == 1_570_001
        old = windows.text_of(windows.day_of(NOW) - 60)
        assert reported("--since", since, "--until", old)["total"]["spend_microusd"] == 70_000


@pytest.mark.usefixtures("runs")
def test_focus_lists_every_charge_of_the_days():
    """The columns are tested with the rule; the rows add up to the usage of the same days."""
    asyncio.run(_run(9, "acme", "acme/toy", None, at=NOW, microusd=7, tags='{"project":"apollo"}'))
    ask("adjust", "blue", "-0.25", "--reason", "a refund")
    result = ask("--format", "focus")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = list(csv.DictReader(result.stdout.splitlines()))
    assert [(row["SubAccountId"], row["SkuId"], row["BilledCost"], row["Tags"]) for row in rows] == [
        ("acme", "acme/big", "0.500001", ""),
        ("acme", "acme/toy", "1.000000", ""),
        ("acme", "acme/toy", "0.000007", '{"project":"apollo"}'),
        ("blue", "", "-0.250000", ""),
        ("blue", "acme/toy", "0.250000", ""),
    ]
    assert len(list(csv.DictReader(ask("--format", "focus", "--team", "blue").stdout.splitlines()))) == 2
    assert ask("--format", "focus", "--by", "day").exit_code == 2


@pytest.mark.usefixtures("runs")
def test_focus_says_what_it_cannot_list(folder: Path):
    """Entries expire, sums stay: a report that is not complete says so."""
    with sqlite3.connect(folder / "gateway.db") as db:
        db.execute("DELETE FROM ledger WHERE team = 'blue'")
    db.close()
    result = ask("--format", "focus")
    assert "Charges of $0.250000 are not listed" in result.stderr
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "expected a day"),
        (["--since", "2026-13-01"], "expected a day"),
        (["--since", "2026-02-02", "--until", "2026-02-01"], "must not be before --since"),
        (["--by", "hour"], "'hour' is not one of"),
        (["--team", "green"], "no team 'green' in the config"),
        (["adjust", "green", "1", "--reason", "x"], "no team 'green'"),
        (["adjust", "acme", "1"], "Missing option '--reason'"),
        (["adjust", "acme", "one", "--reason", "x"], "expected dollars"),
        (["adjust", "acme", "nan", "--reason", "x"], "expected"),
        (["adjust", "acme", "0", "--reason", "x"], "other than 0"),
        (["adjust", "acme", "0.0000001", "--reason", "x"], "at most 6 decimal places"),
        (["adjust", "acme", "1", "--reason", "  "], "printable characters"),
        (["adjust", "acme", "1", "--reason", "\x07bell"], "printable characters"),
    ],
)
def test_invalid_arguments_are_reported(arguments: list[str], said: str):
    result = ask(*arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output


def test_no_usage_is_reported_as_such():
    assert "No usage from" in ask().stdout
    assert reported()["rows"] == []


@pytest.mark.usefixtures("runs")
def test_corrections_are_separate_entries():
    """A refund and a fee are in the ledger, and the sums include them."""
    assert "Team acme: spend reduced by $2.500000." in ask("adjust", "acme", "-2.50", "--reason", "a refund").stdout
    assert "Team acme: spend raised by $1.000000." in ask("adjust", "acme", "$1", "--reason", "a fee").stdout
    assert reported("--team", "acme")["total"]["spend_microusd"] == 1_500_001 - 1_500_000
    assert [row["key"] for row in reported("--team", "acme", "--by", "key")["rows"]] == ["acme/web", None]
    assert reported("--team", "acme", "--by", "key")["rows"][1]["spend_usd"] == "-1.500000"


def test_correction_with_a_known_id_changes_nothing():
    """It is repeated after an error that left open whether it was recorded."""
    for said in ("spend raised by $1.000000.", "There is a correction with the ID june. Nothing was changed."):
        assert said in ask("adjust", "acme", "1", "--reason", "a fee", "--id", "june").stdout
    assert reported("--team", "acme")["total"]["spend_microusd"] == 1_000_000


def test_correction_in_doubt_says_how_to_repeat_it(folder: Path):
    """The repeat has the id of the first attempt, so it is the same correction."""
    with sqlite3.connect(folder / "gateway.db") as db:
        db.execute("CREATE TRIGGER failing BEFORE INSERT ON ledger BEGIN SELECT RAISE(ABORT, 'no'); END")
    db.close()
    said = ask("adjust", "acme", "1", "--reason", "a fee")
    assert said.exit_code == 1
    assert re.search(r"may be recorded. To make sure, repeat it with --id [0-9a-f]{16}\.", said.output)


def test_command_is_in_the_help():
    assert "usage" in CliRunner().invoke(main, ["--help"]).output
    assert "adjust" in ask("--help").output
