"""What the PostgreSQL store does when connections, locks or the server fail, and what it asks of a session."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

import psycopg
import pytest

from gateway.domain.records import Status
from gateway.errors import BadRequest, StoreUnavailable
from gateway.store.postgres import PostgresStore
from gateway.store.postgres.connection import Address
from gateway.store.sql.connections import Lane
from gateway.store.sql.locks import Lock
from gateway.store.urls import open_store
from tests.support.audit import BY_TEST
from tests.support.event_logs import append
from tests.support.polling import SECONDS
from tests.support.postgres import emptied_database, new_database, server
from tests.support.records import NOW, go, key, live, prediction, share, start
from tests.support.stores import answered

MIGRATIONS = sorted(
    resources.files("gateway.store.postgres").joinpath("migrations").iterdir(), key=lambda each: each.name
)
END_ALL = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'replicate-gateway'"


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(url, timeout_seconds=600.0, max_pending=20, decide=1, read=1)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
async def hasty(url: str) -> AsyncIterator[PostgresStore]:
    """A store whose callers wait for a second."""
    made = PostgresStore(url, timeout_seconds=1.0, max_pending=20, decide=1, read=1)
    await made.open()
    yield made
    await made.close()


def ask(url: str, *statements: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return [connection.execute(each).fetchall() for each in statements]


async def setting(store: PostgresStore, name: str, lane: Lane = Lane.DECIDE) -> str:
    return await store._write(lambda db: db.connection.execute(f"SHOW {name}").fetchone()[0], lane=lane)


async def test_sessions_have_deadlines_and_sync_what_counts(store: PostgresStore) -> None:
    assert await setting(store, "statement_timeout") == "10min"
    assert await setting(store, "lock_timeout") == "2s"
    assert await setting(store, "idle_in_transaction_session_timeout") == "20min"
    assert await setting(store, "jit") == "off"
    assert await setting(store, "transaction_isolation") == "read committed"
    assert await setting(store, "synchronous_commit") == "on"
    assert await setting(store, "synchronous_commit", Lane.PROGRESS) == "off"


async def test_only_progress_does_not_wait_for_the_disk(store: PostgresStore) -> None:
    """What makes an id visible, moves money or deletes is synced; parts of logs and the state of open runs are not."""
    lanes: list[Lane] = []
    write = store._write

    def noted(step: Any, **how: Any) -> Any:
        lanes.append(how.get("lane", Lane.DECIDE))
        return write(step, **how)

    noting = PostgresStore(store.address.url)
    noting._write = noted
    await start(noting, "1", fingerprint="F")
    await noting.record_created(live("run1"), prediction("up1", "run1"))
    await share(noting, "2", fingerprint="F")
    await noting.cancel("p2", NOW)
    assert set(lanes) == {Lane.DECIDE}
    lanes.clear()
    await noting.advance("run1", status=Status.PROCESSING, document=b"x", stream_url=None, at=NOW)
    await append(noting, "run1", 0, b"x", kept_from=0)
    assert set(lanes) == {Lane.PROGRESS}
    lanes.clear()
    await noting.advance("run1", status=Status.SUCCEEDED, document=b"x", stream_url=None, at=NOW)
    assert lanes == [Lane.DECIDE]


async def test_ended_connections_are_opened_again_unnoticed(store: PostgresStore, url: str) -> None:
    """A restart of the server, or a proxy that closes what is idle: the next step connects and is done."""
    for n in range(3):
        await go(store, str(n))
        ended = ask(url, END_ALL)
        assert ended[0]
        assert await store.prediction(f"up{n}") is not None
    assert len(await store.open_runs()) == 3


async def test_step_whose_connection_ends_is_done_once(store: PostgresStore) -> None:
    """Before the commit nothing was done, so it is done again on another connection."""
    attempted: list[int] = []

    def step(db: Any) -> int:
        db.execute("learn_version", {"version": f"v{len(attempted)}", "model": "acme/toy"})
        attempted.append(1)
        if len(attempted) == 1:
            ask(store.address.url, f"SELECT pg_terminate_backend({db.connection.info.backend_pid})")
        return int(db.execute("write_ping").fetchone()[0])

    assert await store._write(step) == 1
    assert len(attempted) == 2
    assert await store.model_of("v0") is None
    assert await store.model_of("v1") == "acme/toy"


async def test_outage_is_an_error_after_a_moment_and_heals_by_itself(
    store: PostgresStore, hasty: PostgresStore, url: str
) -> None:
    """While no connection is accepted, steps fail with a time to retry. Afterwards all works, without a restart."""
    await go(store)
    name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
    postgres = server().url("postgres")
    ask(postgres, f"SELECT 1 FROM pg_stat_activity WHERE datname = '{name}'")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailable) as reported:
                await hasty.prediction("up1")
            assert reported.value.retry_after
            with pytest.raises(StoreUnavailable):
                await hasty.learn_version("v", "acme/toy")
    finally:
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await answered(hasty)
    assert await store.prediction("up1") is not None
    assert await store.model_of("v") is None


async def test_two_steps_that_wait_for_each_other_are_both_done(url: str) -> None:
    """PostgreSQL ends one of them, which runs again. It can meet the other once more before that one has ended."""
    stores = [PostgresStore(url, timeout_seconds=600.0, decide=1, read=1) for _ in range(2)]
    for each in stores:
        await each.open()
    await stores[0].learn_version("a", "acme/toy")
    await stores[0].learn_version("b", "acme/toy")
    ready = [asyncio.Event(), asyncio.Event()]
    loop = asyncio.get_running_loop()
    runs: list[str] = []

    def crossing(first: str, second: str, number: int) -> Any:
        def step(db: Any) -> None:
            runs.append(first)
            update = "UPDATE versions SET model = model || '+' WHERE version = $1"
            db.connection.execute(update, [first])
            loop.call_soon_threadsafe(ready[number].set)
            asyncio.run_coroutine_threadsafe(ready[1 - number].wait(), loop).result(SECONDS)
            db.connection.execute(update, [second])

        return step

    await asyncio.gather(stores[0]._write(crossing("a", "b", 0)), stores[1]._write(crossing("b", "a", 1)))
    assert len(runs) >= 3
    assert [await stores[0].model_of(each) for each in ("a", "b")] == ["acme/toy++", "acme/toy++"]
    for each in stores:
        await each.close()


async def test_locked_row_fails_a_step_in_time(store: PostgresStore, hasty: PostgresStore, url: str) -> None:
    await go(store)
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM runs FOR UPDATE")
        with pytest.raises(StoreUnavailable) as reported:
            await hasty.cancel("up1", NOW)
        assert reported.value.retry_after == 1
        view = await store.prediction("up1")
        assert view is not None
    canceled = await store.cancel("up1", NOW)
    assert canceled is not None
    assert canceled.changed


async def test_locks_are_taken_in_order(store: PostgresStore) -> None:
    def step(db: Any) -> None:
        db.lock(Lock.TEAM, "red")
        db.lock(Lock.RUN, "run1")

    with pytest.raises(AssertionError, match="is taken after"):
        await store._write(step)
    await store.ping()


async def test_nul_in_a_text_is_refused_and_finds_nothing(store: PostgresStore) -> None:
    """PostgreSQL cannot store it. A caller that sends it gets 400, not an error of the store."""
    with pytest.raises(BadRequest, match="NUL"):
        await start(store, "1", prediction_={"user": "a\0b"})
    with pytest.raises(BadRequest, match="NUL"):
        await store.add_key(key("k1", name="\0"), actor=BY_TEST)
    assert await store.open_runs() == []
    assert await store.key("\0") is None
    assert await store.delete_file("\0") is False
    assert await store.files_among(["\0"]) == []
    assert store.recent_failure is None


async def test_empty_database_is_created_by_serve_only() -> None:
    url = new_database()
    assert await PostgresStore(url).inspect() is False
    with pytest.raises(StoreUnavailable, match="has no store in it"):
        await PostgresStore(url).open(create=False)
    assert ask(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [[(0,)]]
    stores = [PostgresStore(url) for _ in range(4)]
    made = await asyncio.gather(*(each.open() for each in stores))
    assert sorted(made) == [False, False, False, True]
    assert await PostgresStore(url).inspect() is True
    applied = [(number, 1) for number in range(1, len(MIGRATIONS) + 1)]
    assert ask(url, "SELECT version, oldest_reader FROM schema_version ORDER BY version") == [applied]
    for each in stores:
        await each.close()


async def test_creators_of_keys_are_found_in_the_audit_log() -> None:
    """As with SQLite: those of new keys and of the successors of rotated ones."""
    url = new_database()
    before = [each for each in MIGRATIONS if each.name < "0002_creators_of_keys"]
    with psycopg.connect(url, autocommit=True) as connection:
        for number, each in enumerate(before, 1):
            connection.execute(each.read_text().encode())
            connection.execute("INSERT INTO schema_version VALUES (%s, 0, 1)", [number])
        add = "INSERT INTO keys (id, team, name, sha256, created_at) VALUES (%s, 'red', %s, 'sha', 0)"
        for key_id in ("made", "next", "old"):
            connection.execute(add, [key_id, key_id])
        add = "INSERT INTO audit (at, actor, action, subject, team, after_values) VALUES (1, %s, %s, 'made', 'red', %s)"
        connection.execute(add, ["cli:ann", "key.created", '{"name":"ci"}'])
        connection.execute(add, ["key:lead", "key.rotated", '{"successor":"next"}'])
    store = PostgresStore(url)
    await store.open()
    creators = {each.id: each.created_by for each in await store.keys()}
    await store.close()
    assert creators == {"made": "cli:ann", "next": "key:lead", "old": None}


async def test_newer_schema_is_used_unless_it_shuts_out_this_version() -> None:
    url = new_database()
    store = PostgresStore(url)
    await store.open()
    await store.close()
    with psycopg.connect(url, autocommit=True) as connection:
        newest = len(MIGRATIONS)
        connection.execute("INSERT INTO schema_version VALUES (%s, 0, 1)", [newest + 1])
        assert await store.open() is False
        await store.ping()
        await store.close()
        connection.execute("INSERT INTO schema_version VALUES (%s, 0, %s)", [newest + 2, newest + 1])
    for opened in (store.open, store.inspect):
        with pytest.raises(StoreUnavailable, match="newer gateway"):
            await opened()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda url: re.sub(r"/contract\d+", "/none", url), "does not exist"),
        (lambda url: url.replace("gateway@", "nobody@"), 'role "nobody" does not exist'),
        (lambda url: url.replace("host=", "host=/nowhere"), "cannot be reached"),
    ],
)
async def test_start_says_what_is_wrong_but_not_the_password(url: str, change: Any, reason: str) -> None:
    for ask_for in ("open", "inspect"):
        store = open_store(change(url), "s3cret-pass")
        with pytest.raises(StoreUnavailable, match=reason) as reported:
            await getattr(store, ask_for)()
        assert "s3cret" not in f"{reported.value!r} {reported.value.detail} {reported.value.__cause__!r} {store!r}"


async def test_password_is_used_and_not_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    address = Address(url, "s3cret-pass")
    store = open_store(url, "s3cret-pass")
    await store.open()
    with await asyncio.to_thread(address.connect) as connection:
        assert connection.info.password == "s3cret-pass"
    await store.close()
    assert "s3cret" not in f"{address!r} {address!s} {caplog.text}"
