"""Exports of the ledger, from a real store: every line once, exact amounts, a page in memory at a time."""

import csv
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.domain import windows
from gateway.domain.ledger import By
from gateway.money.exports import PAGE, Exporter
from gateway.store.sqlite import SQLiteStore
from tests.support.audit import BY_TEST
from tests.support.money import settlement
from tests.support.records import NOW, finish, go, join, start

DAY = windows.day_of(NOW)
A = '{"project":"a"}'


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(tmp_path / "gateway.db")
    await made.open()
    await go(made, "1", fingerprint="F", prediction_={"user": "=ann"})
    await join(made, "j", prediction_={"tags": A, "team": "blue"})
    await finish(made, "1", settlement=settlement(70), cache_until=NOW + 10**6)
    await start(made, "h", fingerprint="F", now=NOW + 86_400, prediction_={"tags": A})
    await made.adjust("red", -5, "-refund", NOW, actor=BY_TEST, adjustment_id="x")
    yield made
    await made.close()


async def text_of(pieces: AsyncIterator[str]) -> str:
    return "".join([each async for each in pieces])


async def test_every_line_of_the_days_is_exported_with_its_amounts(store: SQLiteStore) -> None:
    """JSON for programs: numbers are numbers, tags an object, what does not apply null."""
    text = await text_of(Exporter(store).lines_as_json(DAY, DAY + 1))
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["kind"], line["team"], line["microusd"], line["usd"], line["tags"]) for line in lines] == [
        ("spend", "red", 70, "0.000070", {}),
        ("saved_joined", "blue", 70, "0.000070", {"project": "a"}),
        ("adjustment", "red", -5, "-0.000005", {}),
        ("saved_hit", "red", 70, "0.000070", {"project": "a"}),
    ]
    assert (lines[0]["run"], lines[0]["user"], lines[0]["adjustment"]) == ("run1", None, None)
    assert (lines[2]["key"], lines[2]["target"], lines[2]["adjustment"]) == (None, None, "x")
    assert await text_of(Exporter(store).lines_as_json(DAY + 2, DAY + 9)) == ""


async def test_csv_has_the_same_lines_and_no_formulas(store: SQLiteStore) -> None:
    text = await text_of(Exporter(store).lines_as_csv(DAY, DAY + 1, team="red"))
    rows = list(csv.DictReader(text.splitlines()))
    assert [(row["kind"], row["usd"], row["tags"], row["reason"]) for row in rows] == [
        ("spend", "0.000070", "", ""),
        ("adjustment", "-0.000005", "", "'-refund"),
        ("saved_hit", "0.000070", A, ""),
    ]


async def test_lines_come_in_pages(store: SQLiteStore) -> None:
    """A ledger of any size is exported in the memory of a page; no line is left out or told twice."""
    requests = PAGE + 5
    for n in range(requests):
        await store.adjust("blue", 1, f"{n}", NOW + 3 * 86_400, actor=BY_TEST)
    pieces = [each async for each in Exporter(store).lines_as_json(DAY + 3, DAY + 3)]
    assert [piece.count("\n") for piece in pieces] == [PAGE, 5]
    assert [json.loads(line)["reason"] for piece in pieces for line in piece.splitlines()] == [
        str(n) for n in range(requests)
    ]


async def test_charges_add_up_to_the_usage_of_the_days(store: SQLiteStore) -> None:
    """What joined predictions and hits saved is no charge. Entries that were deleted are reported."""
    missing: list[int] = []
    charges = Exporter(store).charges_as_focus(DAY, DAY + 1, on_missing=missing.append)
    rows = list(csv.DictReader((await text_of(charges)).splitlines()))
    (usage, *_) = await store.usage(By.TEAM, since=DAY, until=DAY + 1, team="red")
    assert sum(Decimal(row["BilledCost"]) for row in rows) * 10**6 == usage.microusd == 65
    assert missing == []
    await store.prune_ledger(lines_before=DAY + 1, spent_before=0, now=NOW, limit=50)
    assert (await text_of(Exporter(store).charges_as_focus(DAY, DAY + 1, on_missing=missing.append))).count("\n") == 1
    assert missing == [65]
