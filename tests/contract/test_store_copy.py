"""`gateway store copy`: a running installation moves to the other engine, with all its data or not at all."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from click.testing import CliRunner, Result

from gateway.access.rules.audit_text import clean_text
from gateway.cli import main
from gateway.commands.common import actor
from gateway.domain.audit import Action, Actor
from gateway.errors import StoreUnavailable
from gateway.predictions.ports.sharing import MOST_HITS
from gateway.store.copying import Columns, CopySource, Row, copy
from gateway.store.interface import Store
from gateway.store.postgres.bulk import PostgresTables, locked_database
from gateway.store.postgres.connection import Address
from gateway.store.sqlite.bulk import locked_file
from gateway.store.urls import open_store, shown
from tests.support.filled_store import fill
from tests.support.postgres import emptied_database
from tests.support.records import NOW, key, wish
from tests.support.rounds import amounts

T = TypeVar("T")
COPIED = Action.STORE_COPIED.value
OWN = {"schema_version", "pings", "sqlite_sequence"}
OF_NODES = {"nodes", "leases", "create_outcomes", "commits", "rates", "rate_shares", "config_reloads"}
"""Tables of PostgreSQL alone, about the processes that serve."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with something in every table."""
    path = tmp_path / "gateway.db"
    on(of_file(path), fill)
    return path


@pytest.fixture
def url() -> str:
    return emptied_database()


def of_file(path: Path) -> str:
    return f"sqlite:///{path}"


def on(url: str, work: Callable[[Any], Awaitable[T]]) -> T:
    """Do something with a store."""

    async def opened() -> T:
        store = open_store(url)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["store", *arguments], prog_name="gateway")


def contents(url: str) -> dict[str, list[Any]]:
    """Return every row of every table that both engines have, in the same form."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {name: rows(db, name) for name in names if name not in OWN}
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        return {str(name): rows(connection, str(name)) for (name,) in found if name not in OWN | OF_NODES}


def without_copies(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out what the audit log says of the copy itself."""
    return found | {"audit": [each for each in found["audit"] if each["action"] != COPIED]}


def counted(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Leave out the counts of nothing, which are not copied."""
    return found | {"delivery_counts": [each for each in found["delivery_counts"] if each["taken"] or each["dead"]]}


def rows(db: Any, table: str) -> list[Any]:
    found = db.execute(f'SELECT * FROM "{table}"')
    names = [each[0] for each in found.description]
    named = [dict(sorted(zip(names, map(plain, row), strict=True))) for row in found]
    return sorted(named, key=repr)


def plain(value: Any) -> Any:
    return float(value) if isinstance(value, int) else value


async def add_hits(store: Store, count: int) -> None:
    for first in range(0, count, MOST_HITS):
        names = [f"copied{n}" for n in range(first, min(count, first + MOST_HITS))]
        found = await store.record_hits([wish(name, fingerprint="F", now=NOW + 30).request for name in names])
        assert None not in found


@pytest.mark.parametrize("predictions", amounts(3000, 100_000))
def test_everything_moves_to_the_other_engine_and_back(file: Path, url: str, tmp_path: Path, predictions: int) -> None:
    """Every row of every table is the same there, and the same again in a file; sums are compared on the way."""
    on(of_file(file), lambda store: add_hits(store, predictions))
    before = contents(of_file(file))
    assert all(before.values()), [name for name, found in before.items() if not found]
    assert len(before["delivery_counts"]) - len(counted(before)["delivery_counts"]) == 2
    there = ask("copy", of_file(file), url)
    assert there.exit_code == 0, there.output
    assert without_copies(contents(url)) == counted(before)
    assert contents(of_file(file)) == before
    assert f"{len(before['predictions']):,}" in there.stdout
    assert "equal on both sides" in there.stdout
    assert "predictions: 1,000 of" in there.stderr
    back = ask("copy", url, of_file(tmp_path / "back.db"))
    assert back.exit_code == 0, back.output
    returned = contents(of_file(tmp_path / "back.db"))
    assert without_copies(returned) == counted(before)
    assert back.stdout == there.stdout.replace(*(f"{'audit':16} {len(before['audit']) + n:>12,}" for n in (0, 1)))
    entries = sorted((each for each in returned["audit"] if each["action"] == COPIED), key=lambda each: each["id"])
    numbers = [each["id"] for each in before["audit"]]
    assert [each["id"] for each in entries] == [max(numbers) + 1, max(numbers) + 2]
    assert [each["actor"] for each in entries] == [actor()] * 2
    told = [json.loads(each["after_values"]) for each in entries]
    assert [each["source"] for each in told] == [of_file(file), clean_text(shown(url))]
    assert told[0]["records"] == sum(told[0]["rows"].values()) == told[1]["records"] - 1
    assert told[0]["rows"]["predictions"] == len(before["predictions"])


def test_counts_that_came_back_to_zero_do_not_refuse_the_copy(tmp_path: Path, url: str) -> None:
    """The triggers of the source, here PostgreSQL, leave a row of zeros when the last delivery of a team is gone."""
    source, target = url, of_file(tmp_path / "gateway.db")
    on(source, fill)
    zeros = [each for each in contents(source)["delivery_counts"] if not each["taken"] and not each["dead"]]
    assert [(each["team"], each["is_public"]) for each in zeros] == [("green", 0), ("blue", 1)]
    done = ask("copy", source, target)
    assert done.exit_code == 0, done.output
    assert without_copies(contents(target)) == counted(contents(source))


class Miscounting(PostgresTables):
    """Forgets that a delivery is dead."""

    def write(self, table: str, columns: Columns, rows: list[Row]) -> None:
        super().write(table, columns, rows)
        if table == "deliveries":
            self._db.execute(b"UPDATE delivery_counts SET dead = 0")


def test_counts_that_differ_are_not_committed(file: Path, url: str) -> None:
    """Only rows of zeros are left out of the comparison."""
    with (
        pytest.raises(StoreUnavailable, match=r"would differ: delivery_counts, "),
        locked_file(file, create=False) as source,
        locked_database(Address(url), create=True) as target,
    ):
        copy(source, Miscounting(target._db), lambda *_: None, CopySource(Actor("cli:root"), NOW, "sqlite:///x.db"))


def test_store_goes_on_after_the_move(file: Path, url: str) -> None:
    """New ledger lines get numbers above the old ones; keys, results and secrets are what they were."""
    before = contents(of_file(file))
    assert ask("copy", of_file(file), url).exit_code == 0

    async def go_on(store: Store) -> None:
        await add_hits(store, 3)
        view = await store.prediction("pcopied0")
        assert view is not None
        assert view.run.id == "run1"
        assert (await store.key("k1")) == key("k1", created_by="key:k1")
        assert await store.secret("webhooks", b"another") == b"two"

    on(url, go_on)
    newest = max(each["id"] for each in before["ledger"])
    assert sorted(each["id"] for each in contents(url)["ledger"])[-3:] == [newest + 1, newest + 2, newest + 3]


def test_copy_to_a_store_with_records_is_refused(file: Path, url: str) -> None:
    on(url, lambda store: store.learn_version("v", "acme/toy"))
    before = contents(url)
    refused = ask("copy", of_file(file), url)
    assert refused.exit_code == 1
    assert "The target is not empty: versions" in refused.stderr
    assert contents(url) == before


@pytest.mark.parametrize("from_file", [True, False])
def test_copy_of_a_store_that_a_process_serves_from_is_refused(file: Path, url: str, *, from_file: bool) -> None:
    """Otherwise what it records meanwhile would be lost, and afterwards two would follow the same runs."""
    other = file.with_name("other.db")
    if not from_file:
        assert ask("copy", of_file(file), url).exit_code == 0
    source, target = (of_file(file), url) if from_file else (url, of_file(other))

    async def while_it_serves(store: Store) -> Result:
        await store.claim()
        if store.nodes is None:
            return await asyncio.to_thread(ask, "copy", source, target)
        number = await store.nodes.join("a node", 60)
        result = await asyncio.to_thread(ask, "copy", source, target)
        await store.nodes.leave(number)
        return result

    refused = on(source, while_it_serves)
    assert refused.exit_code == 1
    assert "serves from" in refused.stderr
    assert ask("copy", source, target).exit_code == 0


@pytest.mark.parametrize("from_file", [True, False])
def test_nobody_writes_to_the_source_meanwhile(file: Path, url: str, *, from_file: bool) -> None:
    """A key that is created during the copy would be missing in it."""
    if from_file:
        with locked_file(file, create=False), pytest.raises(sqlite3.OperationalError, match="locked"):
            sqlite3.connect(file, timeout=0).execute("BEGIN IMMEDIATE")
        return
    on(url, fill)
    with locked_database(Address(url), create=False), psycopg.connect(url) as other:
        other.execute("SET lock_timeout = 10")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute("DELETE FROM keys")


def test_nul_characters_are_replaced_and_counted(file: Path, url: str) -> None:
    """PostgreSQL does not store them. The record is not lost."""
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE predictions SET user = 'a' || char(0) || 'b' WHERE id = 'pj'")
    done = ask("copy", of_file(file), url)
    assert done.exit_code == 0, done.output
    assert "1 records had NUL characters" in done.stderr
    view = on(url, lambda store: store.prediction("pj"))
    assert view.prediction.user == "a?b"


class Lossy(PostgresTables):
    """Forgets ledger lines."""

    def write(self, table: str, columns: Columns, rows: list[Row]) -> None:
        super().write(table, columns, rows[1:] if table == "ledger" else rows)


def test_copy_that_differs_is_not_committed(file: Path, url: str) -> None:
    """The sums are compared before anything can be used."""
    with (
        pytest.raises(StoreUnavailable, match=r"would differ: ledger, rows: \d+ in the source, \d+ in"),
        locked_file(file, create=False) as source,
        locked_database(Address(url), create=True) as target,
    ):
        copy(source, Lossy(target._db), lambda *_: None, CopySource(Actor("cli:root"), NOW, "sqlite:///gateway.db"))
    assert not any(contents(url).values())


def test_source_of_an_older_version_is_migrated_first_by_a_command(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy does not change its source, so an older gateway could still use that."""
    file = tmp_path / "gateway.db"
    folder = resources.files("gateway.store.sqlite").joinpath("migrations")
    *older, _ = sorted(folder.iterdir(), key=lambda each: each.name)
    with closing(sqlite3.connect(file)) as db:
        for each in older:
            db.executescript(each.read_text())
        db.execute(f"PRAGMA user_version = {len(older)}")
    refused = ask("copy", of_file(file), url)
    assert refused.exit_code == 1
    assert "run `gateway store migrate` first" in refused.stderr
    monkeypatch.chdir(file.parent)
    file.with_name("config.toml").write_text('[store]\nurl = "sqlite:///gateway.db"\n[[teams]]\nname = "red"\n')
    migrated = ask("migrate")
    assert (migrated.exit_code, migrated.stdout) == (
        0,
        f"Migrated the schema from version {len(older)} to {len(older) + 1}.\n",
    )
    assert ask("migrate").stdout == "The schema is up to date.\n"
    assert ask("copy", of_file(file), url).exit_code == 0
    entries = [(each["action"], each["actor"], each["before_values"]) for each in contents(url)["audit"]]
    migration = ("store.migrated", actor(), f'{{"schema_version":{len(older)}}}')
    assert sorted(entries) == [(COPIED, actor(), None), migration]


def test_database_of_an_older_version_is_migrated_with_an_entry(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the transaction of the migration."""
    folder = resources.files("gateway.store.postgres").joinpath("migrations")
    *older, _ = sorted(folder.iterdir(), key=lambda each: each.name)
    if not older:
        pytest.skip("there is no migration after the baseline")
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("DROP SCHEMA public CASCADE")
        db.execute("CREATE SCHEMA public")
        for number, each in enumerate(older, 1):
            db.execute(each.read_text().encode())
            db.execute("INSERT INTO schema_version (version, at, oldest_reader) VALUES (%s, 0, 1)", [number])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(f'[store]\nurl = "{url}"\n[[teams]]\nname = "red"\n')
    migrated = ask("migrate")
    assert migrated.stdout == f"Migrated the schema from version {len(older)} to {len(older) + 1}.\n", migrated.output
    (entry,) = contents(url)["audit"]
    assert (entry["action"], entry["actor"]) == ("store.migrated", actor())
    assert entry["after_values"] == f'{{"schema_version":{len(older) + 1}}}'


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("sqlite:////data/gateway.db", "sqlite:////data/gateway.db"),
        ("postgresql://u:secret@h:5432/d?password=secret", "postgresql://u@h:5432/d"),
        ("postgresql://h/d?host=/tmp#secret", "postgresql://h/d"),
        ("postgresql://u:se?cret@h/d", "postgresql://u@h/d"),
        ("postgresql://u:se#cret@h?host=/secret", "postgresql://u@h"),
    ],
)
def test_address_in_the_audit_log_has_no_secrets(address: str, text: str) -> None:
    """Whatever the address that a library accepts has."""
    assert shown(address) == text


def test_new_store_has_no_entry(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was migrated, and a copy needs an empty target."""
    monkeypatch.chdir(tmp_path)
    for address in ("sqlite:///gateway.db", url):
        (tmp_path / "config.toml").write_text(f'[store]\nurl = "{address}"\n[[teams]]\nname = "red"\n')
        created = ask("migrate")
        assert (created.exit_code, created.stdout) == (0, "The schema is up to date.\n"), created.output
        assert contents(address if address == url else of_file(tmp_path / "gateway.db"))["audit"] == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["sqlite:///gateway.db", "sqlite:///other.db"], "one of the two must be sqlite:///path"),
        (["sqlite:///none.db", "postgresql://u@h/d"], "There is no store at"),
        (["sqlite:///gateway.db", "postgresql://u:secret@h/d"], "without its password"),
        (["sqlite:///gateway.db", "mysql://h/d"], "expected sqlite:///"),
        (["sqlite:///gateway.db", "postgresql://u@h/d", "--password-env", "NO_SUCH"], "NO_SUCH is not set"),
    ],
)
def test_mistakes_are_reported_in_a_sentence(
    file: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(file.parent)
    refused = ask("copy", *arguments)
    assert refused.exit_code in (1, 2)
    assert told in refused.stderr
    assert "secret" not in refused.output
