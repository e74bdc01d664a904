"""Every statement of the store runs on both engines and says the same. So does the schema: tables, columns, indexes.

A statement that PostgreSQL accepts can still mean something else there: `user` is a function, a sum of whole numbers is
a decimal, a text is compared by the rules of a language.
"""

import asyncio
import itertools
import json
import math
import random
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.domain.ledger import Entry, EntryKind, Reservation
from gateway.errors import StoreUnavailable
from gateway.store.interface import Store
from gateway.store.postgres.dialect import READING_SQL
from gateway.store.postgres.dialect import SQL as OF_POSTGRES
from gateway.store.sql.rows import DELIVERIES, ENTRIES, FILES, KEYS, PREDICTIONS, RESERVATIONS, RUNS
from gateway.store.sqlite.dialect import SQL
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind, message_id
from tests.support.audit import BY_TEST
from tests.support.filled_store import DAY, fill
from tests.support.records import NOW, file, intent, key, live, prediction
from tests.support.stores import BACKENDS

ENOUGH, MOST = 12, 100
TEXTS: dict[str, list[Any]] = {
    "id": ["run1", "run2", "run3", "up1", "pj", "f1", "k1", "d1", message_id("phook"), message_id("p3hook"), "none"],
    "run_id": ["run1", "run2", "run3", "none"],
    "prediction_id": ["p2", "phook", "none"],
    "to_id": ["new"],
    "from_id": ["p2", message_id("p3hook"), "none"],
    "leader_id": ["up1"],
    "fingerprint": ["F", "G", None],
    "provisional": ["P", "Q", None],
    "team": ["red", "blue", "none"],
    "user": ["ann", "none"],
    "owner": ["user:ann", "none"],
    "path": ["/predictions", "none"],
    "other": ["other"],
    "other_values": ["(other)"],
    "tag": ["project", "none"],
    "value": ["apollo", "new"],
    "kind": ["prediction", "training"],
    "target": ["acme/*", "acme/toy", "a?me/t_y", "*%"],
    "state": ["queued", "dead", None],
    "status": ["processing", "succeeded"],
    "final_status": ["aborted"],
    "stream_url": ["https://stream.example.com/1", None],
    "ticket": ["ticket-up1", "none"],
    "upstream_id": ["uprun1", "f1", "none"],
    "sha256": ["sha-f1", "a" * 64, "b" * 64],
    "scope": ["team/red", "none"],
    "key": ["key", "none"],
    "key_id": ["k1"],
    "created_by": ["key:k1", "none"],
    "name": ["name-k1", "webhooks", "team"],
    "version": ["v1", "none"],
    "model": ["acme/other"],
    "reason": ["unseeded"],
    "error": ["refused"],
    "body_digest": ["digest"],
    "copies": ["[]"],
    "ids": [json.dumps(["k1", "run1"]), json.dumps(["f1", "run3", "run2", "none"]), "[]"],
    "receivers": [json.dumps(["hooks.example.com"]), "[]"],
    "teams": [json.dumps(["blue"]), "[]"],
    "low_id": ["", "up1"],
    "high_id": ["", "up1"],
    "after_text": ["", "m"],
    "only_team": ["red", "red", None],
    "only_key": ["k1", None],
    "only_user": ["ann", None, None],
    "only_owner": ["user:ann"],
    "only_target": ["acme/*", None],
    "only_versions": ["acme/toy:*"],
    "only_status": ["succeeded", None, None],
    "only_tag": ['*"project":"apollo"*', None, None],
    "only_source": ["miss", None, None],
    "actor": [BY_TEST, "none", None],
    "action": ["key.created", "config.loaded", None],
    "subject": ["k1", None],
    "older_key": ["", "k1"],
    "scopes": [None],
    "models": ['["acme/*"]'],
    "origins": [None],
    "allowance": [None],
    "expires_at": [None],
    "before_values": ["{}", None],
    "after_values": ["{}"],
    "operation": [None, "purge"],
}
BLOBS = {"document": [b"news", b"\0\xff"], "body": [b"body"], "part": [b"part"], "secret": [b"new"], "proposal": [b"p"]}
NUMBERS: dict[str, list[Any]] = {
    "limit": [100, 1],
    "day": [DAY],
    "first": [0, 5],
    "last": [10**6],
    "kept_from": [0],
    "percent": [50],
    "rank": [1],
    "skipped": [0, 1],
    "searched": [1, 100],
    "most": [1],
    "takes": [True, False],
    "size": [3],
    "smallest": [1],
    "largest": [9],
    "seconds": [3600],
    "node": [0, 7],
    "older_id": [2**62],
    "used_at": [NOW],
    "older_at": [float("inf"), NOW],
    "owned_by": [0],
    "low_at": [float("-inf"), NOW],
    "high_at": [float("inf"), NOW],
    **{name: [1] for name in ("runs", "joined", "hits", "milliseconds", "microusd", "saved_microusd", "open")},
}


OF_DAYS = re.compile(r"\bday (?:<|BETWEEN|>=)|day < :end")
OF_LINES = re.compile(r"FROM ledger")
PARTLY_ORDERED = {"old_users", "old_copies", "files_of_content"}
NUMBERED = {"audit_entries", "audit_entries_of_team"}
"""The first column is a number that a table gives, in which PostgreSQL leaves gaps."""
ROWS: dict[str, tuple[Any, ...]] = {
    "add_run": RUNS.row(intent("new")),
    "save_run": (*RUNS.row(live("run1", fingerprint="F")), "run1"),
    "add_prediction": PREDICTIONS.row(prediction("new")),
    "save_starter": (*PREDICTIONS.row(prediction("new", user="bob")), "up1", "run1"),
    "add_key": KEYS.row(key("new")),
    "add_file": FILES.row(file("new")),
    "add_delivery": (
        *DELIVERIES.row(
            Delivery(id="new", kind=DeliveryKind.ANNOUNCEMENT, team="red", url="u", receiver="r", created_at=NOW)
        ),
        b"body",
    ),
    "add_reservation": RESERVATIONS.row(
        Reservation(
            run_id="new", team="red", key_id="k", user=None, scopes=("team/red",), milliseconds=1, microusd=2, at=NOW
        )
    ),
    "enter_hits": (DAY, NOW, "red", "k1", "ann", "acme/toy", "run1", "new", 7, '{"project":"a"}'),
    "insert_entry": (
        DAY,
        *ENTRIES.row(Entry(at=NOW, team="red", kind=EntryKind.SPEND, run_id="new", microusd=7, scopes=("team/red",))),
    ),
}


def values(name: str, statement: str) -> list[Any]:
    if name in ("since", "until", "before", "first", "end") and OF_DAYS.search(statement):
        return [DAY + 1] if name in ("until", "before", "end") else [0]
    if name == "after":
        return [0] if OF_LINES.search(statement) else TEXTS["after_text"]
    for known in (TEXTS, BLOBS, NUMBERS):
        if name in known:
            return known[name]
    return [NOW + 500, NOW - 500, NOW + 10**7]


def parameters(name: str) -> Iterator[Any]:
    """Yield some combinations of values for the parameters of a statement, the same each time."""
    if name in ROWS:
        yield ROWS[name]
        return
    names = list(dict.fromkeys(re.findall(r":(\w+)", re.sub(r"^\s*--.*\n", "", SQL[name], flags=re.MULTILINE))))
    choices = [values(each, SQL[name]) for each in names]
    if math.prod(len(each) for each in choices) <= MOST:
        combined: Iterator[tuple[Any, ...]] = itertools.product(*choices)
    else:
        dice = random.Random(name)
        combined = (tuple(map(dice.choice, choices)) for _ in range(MOST))
    for chosen in combined:
        yield {"limit": 100} | dict(zip(names, chosen, strict=True))


class Undone(Exception):
    """Carries what a statement said out of its transaction, which is rolled back."""


async def tried(store: Any, name: str, given: Any) -> tuple[int | None, list[tuple[Any, ...]]]:
    def step(db: Any) -> None:
        if name == "rebuild_days":
            db.execute("delete_usage_days", given)
        found = db.execute(name, given)
        if found.description is None:
            raise Undone(found.rowcount, [])
        raise Undone(None, [tuple(row) for row in found.fetchall()])

    try:
        await store._write(step)
    except Undone as said:
        count, rows = said.args
    except StoreUnavailable as refused:
        if not isinstance(refused.__cause__, sqlite3.IntegrityError | psycopg.IntegrityError):
            raise
        return None, [("refused",)]
    if name in NUMBERED:
        rows = [row[1:] for row in rows]
    if "ORDER BY" not in SQL[name] or name in PARTLY_ORDERED:
        # Which rows come first is open, so with a limit only their number is the same.
        rows = sorted(rows, key=repr) if name in ROWS or given["limit"] > 1 else [()] * len(rows)
    return count, rows


@pytest.fixture
def made(tmp_path: Path) -> list[Store]:
    return [maker(tmp_path)() for maker in BACKENDS.values()]


@pytest.fixture
async def both(made: list[Store]) -> AsyncIterator[list[Store]]:
    stores = made
    for store in stores:
        await store.open()
        await fill(store)
    yield stores
    for store in stores:
        await store.close()


async def test_every_statement_says_the_same_on_both_engines(both: list[Store]) -> None:
    """The same rows of the same values, for the same data."""
    rows_of: dict[str, int] = {}
    for name in SQL:
        for number, given in enumerate(parameters(name)):
            if number >= ENOUGH and rows_of.get(name):
                break
            (count, rows), other = await asyncio.gather(*(tried(store, name, given) for store in both))
            assert (count, rows) == other, (name, given)
            assert not {type(value) for row in other[1] for value in row} - {str, int, float, bool, bytes, type(None)}
            rows_of[name] = rows_of.get(name, 0) + len(rows) + max(0, count or 0)
    # They ran, and found nothing in this data.
    assert {name for name, count in rows_of.items() if count == 0} <= {
        "delete_events_before",
        "delete_object",
        "delete_run_without_predictions",
        "files_of_owner_older",
        "mark_if_unowned",
        "marked_for_deletion",
        "redeliver_queued",
        "runs_to_cancel",
        "runs_to_clear",
        "shorten_caching",
        "stuck_reservations",
    }


def test_every_statement_has_the_same_parameters_in_both_dialects() -> None:
    for name, statement in SQL.items():
        text = re.sub(r"^\s*--.*\n", "", statement, flags=re.MULTILINE)
        names = set(re.findall(r":(\w+)", text))
        assert names <= set(OF_POSTGRES[name].names) <= names | {"limit"}
        assert "{" not in text
        assert b"{" not in OF_POSTGRES[name].text
        assert b" FOR " not in READING_SQL[name].text


async def test_both_engines_have_the_same_tables_columns_and_indexes(both: list[Any]) -> None:
    """A migration of one engine has one for the other."""
    of_sqlite, of_postgres = both

    def described(db: Any) -> tuple[dict[str, set[str]], set[str]]:
        tables = [name for (name,) in db.connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = {
            table: {column for _, column, *_ in db.connection.execute(f"PRAGMA table_info({table})")}
            for table in tables
        }
        names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        return columns, {name for (name,) in db.connection.execute(names)}

    def described_too(db: Any) -> tuple[dict[str, set[str]], set[str]]:
        columns: dict[str, set[str]] = {}
        found = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        for table, column in db.connection.execute(found):
            columns.setdefault(table, set()).add(column)
        names = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname !~ '_pkey$'"
        return columns, {name for (name,) in db.connection.execute(names)}

    tables, indexes = await of_sqlite._read(described)
    tables_too, indexes_too = await of_postgres._read(described_too)
    # One process serves from a file, so it has no nodes. A file has no connection that can be lost.
    for of_postgres_only in (
        "schema_version", "nodes", "leases", "create_outcomes", "commits", "rates", "rate_shares", "config_reloads",
    ):  # fmt: skip
        assert tables_too.pop(of_postgres_only)
    assert tables_too == tables
    # The column of this index changes with every row, which PostgreSQL would pay for each time.
    assert indexes_too == indexes - {"meters_idle"}
