"""What the store promises beyond SQLite: it survives kill -9, commits in groups, and syncs what involves money."""

import asyncio
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.limits import SubjectKind
from gateway.domain.quota import ReservationRequest, RunLimits
from gateway.domain.records import PredictionView, RunState, Status
from gateway.domain.windows import day_of
from gateway.predictions.ports.sharing import Idempotency, Pending, Replayed, ShareRequest
from gateway.store.sqlite import SQLiteStore
from gateway.store.sqlite.database import SQLiteDatabase
from tests.support.audit import BY_TEST, PURGE
from tests.support.polling import attempts
from tests.support.records import NOW, ended, file, key, lead, live, prediction, share, start, wish

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(tmp_path / "gateway.sqlite")
    await made.open()
    yield made
    await made.close()


async def trace(store: SQLiteStore) -> list[str]:
    """Note every statement that reaches SQLite from here on."""
    statements: list[str] = []
    await store._write(lambda db: db.connection.set_trace_callback(statements.append))
    await store.ping()
    statements.clear()
    return statements


async def killed_under_load(path: Path, prefix: str, after_lines: int) -> list[tuple[str, list[str]]]:
    """Start the load, kill it with SIGKILL after some acknowledgements, return all that it got out."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.write_load", str(path), prefix, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(after_lines)]
    process.kill()
    rest = await process.stdout.read()
    await process.wait()
    whole = (b"".join(lines) + rest).decode().splitlines(keepends=True)
    return [(what, words) for what, *words in (line.split() for line in whole if line.endswith("\n"))]


async def test_acknowledged_writes_survive_kill_9(tmp_path: Path) -> None:
    """The process is killed while it writes, repeatedly: every response that a caller got still holds."""
    path = tmp_path / "gateway.sqlite"
    acknowledged: list[tuple[str, list[str]]] = []
    for round_, after_lines in enumerate((1, 60, 333, 1500)):
        acknowledged += await killed_under_load(path, f"round{round_}", after_lines)
    given_up = {words[0] for what, words in acknowledged if what in ("discarding", "parting")}
    store = SQLiteStore(path)
    await store.open()
    try:
        for what, words in acknowledged:
            if what == "key":
                assert await store.key(words[0]) is not None, words
            elif what == "gathered":
                view = await store.prediction(words[0])
                assert view is not None, words
                assert view.run.id == words[1]
            elif what not in ("discarding", "parting") and not given_up.intersection(words):
                await check(store, what, *words)
        open_runs = [run async for run in all_open_runs(store)]
    finally:
        await store.close()
    assert len(acknowledged) > 1800
    assert {"started", "joined", "hit", "gathered", "created", "canceled", "ended"} <= {
        what for what, _ in acknowledged
    }
    shared = Counter(run.fingerprint for run in open_runs if run.cancel_asked_at is None)
    assert max(shared.values()) == 1
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for left_over in LEFT_OVERS:
            assert db.execute(left_over).fetchall() == []


LEFT_OVERS = (
    "SELECT key FROM idempotency WHERE prediction_id NOT IN (SELECT id FROM predictions)",
    "SELECT id FROM predictions WHERE run_id NOT IN (SELECT id FROM runs)",
    "SELECT id FROM runs WHERE id NOT IN (SELECT run_id FROM predictions)",
    "SELECT id FROM runs WHERE leader_id NOT IN (SELECT id FROM predictions)",
    "SELECT id FROM runs WHERE cache_until IS NOT NULL AND id NOT IN (SELECT run_id FROM entries)",
    "SELECT run_id FROM entries WHERE run_id NOT IN (SELECT id FROM runs WHERE cache_until IS NOT NULL)",
    "SELECT id FROM predictions WHERE source = 'hit' EXCEPT SELECT prediction_id FROM ledger WHERE kind = 'saved_hit'",
    "SELECT count(*) FROM ledger WHERE kind = 'saved_hit' EXCEPT SELECT sum(hits) FROM usage_days",
)


async def check(store: SQLiteStore, what: str, prediction_id: str, run_id: str) -> None:
    """Assert that what was acknowledged of a prediction is still true, and that its idempotency key leads to it."""
    known = {each.id: each for each in await store.predictions_of(run_id)}
    run = await store.run(run_id)
    assert run is not None, (what, prediction_id)
    if what == "started":
        # Its leader has upstream's id if an unacknowledged step recorded it.
        assert run.leader_id in (prediction_id, f"{prediction_id}up")
        prediction_id = run.leader_id
    assert prediction_id in known
    if run.state is not RunState.INTENDED:
        assert await store.prediction(prediction_id) is not None
    assert what not in ("created", "canceled", "ended") or run.upstream_id is not None
    assert what != "canceled" or known[prediction_id].canceled_at is not None
    assert what not in ("ended", "hit") or (run.state, run.status) == (RunState.ENDED, Status.SUCCEEDED)
    key_ = Idempotency(prediction_id.removesuffix("up"), "body", NOW + 86400)
    outcome = await store.share(ShareRequest(prediction=prediction("x", "x"), now=NOW, idempotency=key_))
    if run.state is RunState.INTENDED:
        assert isinstance(outcome, Pending)
    else:
        assert outcome == Replayed(PredictionView(known[prediction_id], run))


async def all_open_runs(store: SQLiteStore) -> AsyncIterator[Any]:
    after = ""
    while runs := await store.open_runs(after=after):
        for run in runs:
            yield run
        after = runs[-1].id


async def test_concurrent_writes_share_a_commit(store: SQLiteStore) -> None:
    """Five hundred callers at once: a handful of commits, and so a handful of syncs."""
    statements = await trace(store)
    before = store.commits
    await asyncio.gather(*(store.record_created(live(f"r{n}"), prediction(f"p{n}", f"r{n}")) for n in range(500)))
    commits = statements.count("COMMIT")
    assert commits == store.commits - before
    assert commits <= 10


@pytest.mark.parametrize(
    ("name", "count"),
    # A hit: lookup, last use, prediction, ledger line, two sums. A join: two lookups, prediction. A start: two lookups,
    # run, leader; limits add reads of reservations and spend of team and key, then the reservation.
    [("hit", 6), ("join", 3), ("start", 4), ("start within limits", 11)],
)
async def test_create_takes_few_statements(store: SQLiteStore, name: str, count: int) -> None:
    """It is the most frequent path: a hit is one step, and does not write a document again."""
    await store.record_created(
        ended("r1", fingerprint="hit", cache_until=NOW + 99, document=b"x" * 100_000), prediction("up1", "r1")
    )
    await lead(store, "2", fingerprint="join")
    statements = await trace(store)
    limits = [
        RunLimits(of=SubjectKind.TEAM, scope="team/red", concurrent=1),
        RunLimits(of=SubjectKind.KEY, scope="key/k1", concurrent=1),
    ]
    demand = ReservationRequest(5, 7, tuple(limits)) if "limits" in name else None
    ask = start if name.startswith("start") else share
    await ask(store, "3", fingerprint=name, now=NOW + 10, reservation=demand)
    assert len([each for each in statements if each.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE")]) == count
    written = [each for each in statements if not each.startswith("SELECT")]
    assert not any("x" * 1000 in each for each in written)


async def test_set_of_hits_reads_each_run_once_and_changes_each_sum_once(store: SQLiteStore) -> None:
    """A hundred hits at once: besides a row of their own, as many statements as one."""
    await store.record_created(ended("r1", fingerprint="hit", cache_until=NOW + 99), prediction("up1", "r1"))
    statements = await trace(store)
    requests = [wish(f"h{n}", fingerprint="hit", now=NOW + 10).request for n in range(100)]
    assert len(await store.record_hits(requests)) == 100
    kinds = Counter(re.match(r"\w+( INTO \w+)?", each)[0] for each in statements)  # type: ignore[index]
    assert kinds == {
        "BEGIN": 1,
        "SELECT": 1,
        "INSERT INTO predictions": 100,
        "INSERT INTO ledger": 100,
        "INSERT INTO usage_days": 1,
        "INSERT INTO usage_users": 1,
        "UPDATE": 1,
        "COMMIT": 1,
    }


Call = Callable[[SQLiteStore], Awaitable[Any]]
DURABLE: dict[str, Call] = {
    "start": lambda store: start(store, "2", fingerprint="F"),
    "record_created": lambda store: store.record_created(live("r3"), prediction("p3", "r3")),
    "advance to the end": lambda store: store.advance(
        "r1", status=Status.FAILED, document=b"", stream_url=None, at=NOW
    ),
    "add_key": lambda store: store.add_key(key("k2"), actor=BY_TEST),
    "revoke_key": lambda store: store.revoke_key("k1", NOW, actor=BY_TEST),
    "rotate_key": lambda store: store.rotate_key("k1", key("k2"), NOW, actor=BY_TEST),
    "secret": lambda store: store.secret("tickets", b"x"),
}
KEPT: dict[str, Call] = {
    "advance": lambda store: store.advance("r1", status=Status.PROCESSING, document=b"", stream_url=None, at=NOW),
    "cancel": lambda store: store.cancel("p1", NOW),
    "share": lambda store: share(store, "2", fingerprint="C"),
    "record_hits": lambda store: store.record_hits([wish("2", fingerprint="C").request]),
    "discard_intent": lambda store: store.discard_intent("run0"),
    "mark_uncertain": lambda store: store.mark_uncertain("run0", NOW),
    "settle_identity": lambda store: store.settle_identity("run0", "F", None),
    "part": lambda store: store.detach("p9"),
    "purge_cache": lambda store: store.purge_cache(PURGE),
    "evict_cache": lambda store: store.evict_cache(0, NOW),
    "delete_expired_idempotency": lambda store: store.delete_expired_idempotency(NOW, 10),
    "add_file": lambda store: store.add_file(file()),
    "learn_version": lambda store: store.learn_version("5" * 64, "acme/toy"),
    "ping": lambda store: store.ping(),
}


async def mode_at_commit(store: SQLiteStore, call: Call) -> str:
    """Return how the last commit was synced, as SQLite reports it."""
    await lead(store, "0", provisional="P")
    await store.record_created(ended("r9", fingerprint="C", cache_until=NOW + 99), prediction("p9", "r9"))
    await store.record_created(live("r1"), prediction("p1", "r1"))
    await store.add_key(key("k1"), actor=BY_TEST)
    await store.learn_version("0" * 64, "acme/toy")
    statements = await trace(store)
    mode = await store._write(lambda db: db.connection.execute("PRAGMA synchronous").fetchone()[0])
    assert mode == 1
    statements.clear()
    await call(store)
    assert statements.count("COMMIT") == 1
    reported = [each for each in statements if each.startswith("PRAGMA synchronous")]
    assert all(statements.index(each) < statements.index("BEGIN IMMEDIATE") for each in reported)
    return reported[-1].rpartition(" ")[2] if reported else "NORMAL"


@pytest.mark.parametrize("call", DURABLE.values(), ids=DURABLE)
async def test_writes_of_money_or_trust_are_synced(store: SQLiteStore, call: Call) -> None:
    """If the power fails right after the response, the run, its end, the key and the secret are on the disk."""
    assert await mode_at_commit(store, call) == "FULL"


@pytest.mark.parametrize("call", KEPT.values(), ids=KEPT)
async def test_other_writes_do_not_wait_for_the_disk(store: SQLiteStore, call: Call) -> None:
    assert await mode_at_commit(store, call) == "NORMAL"


async def test_one_durable_write_makes_its_batch_durable(store: SQLiteStore) -> None:
    statements = await trace(store)
    calls = [store.learn_version(f"{n:064}", "acme/toy") for n in range(20)]
    await asyncio.gather(*calls, store.secret("tickets", b"x"))
    full = statements.index("PRAGMA synchronous = FULL")
    propose = next(n for n, each in enumerate(statements) if each.startswith("INSERT INTO secrets"))
    commit = statements.index("COMMIT", propose)
    assert full < propose < commit
    assert "PRAGMA synchronous = NORMAL" not in statements[full:commit]


async def test_failed_write_is_rolled_back_alone(store: SQLiteStore) -> None:
    """It breaks after its first statement: only that write is undone, others of its batch are done once."""

    def breaks(db: SQLiteDatabase) -> None:
        db.connection.execute("INSERT INTO versions VALUES ('broken', 'x')")
        raise KeyError("half way")

    await store.ping()
    outcomes = await asyncio.gather(
        store.learn_version("a", "acme/toy"),
        store._write(breaks),
        store._write(lambda db: db.connection.execute("UPDATE pings SET count = count + 100")),
        store.learn_version("b", "acme/toy"),
        return_exceptions=True,
    )
    assert [type(each) for each in outcomes[::2]] == [type(None), sqlite3.Cursor]
    assert isinstance(outcomes[1], KeyError)
    assert [await store.model_of(each) for each in ("a", "broken", "b")] == ["acme/toy", None, "acme/toy"]
    assert await store._read(lambda db: db.connection.execute("SELECT count FROM pings").fetchone()) == (101,)


async def test_deleted_content_leaves_no_bytes_on_disk(store: SQLiteStore, tmp_path: Path) -> None:
    """Soon after, no file of the store contains a trace, and the space is freed."""
    marker = b"a-secret-prompt-"
    for n in range(60):
        made = ended(f"r{n}", NOW, request=marker * 3000, document=marker * (10 + n * 100))
        await store.record_created(made, prediction(f"p{n}", f"r{n}", user=marker.decode()))
    day = day_of(NOW)
    while await store.prune_ledger(lines_before=day + 1, spent_before=day + 1, now=NOW, limit=50):
        pass
    await store.record_created(live("r99"), prediction("p99", "r99", created_at=NOW + 5))
    for n in range(30):
        await store.clear_data(f"r{n}", b"removed")

    async def has_traces() -> bool:
        # Not read by this process: closing a file would drop the locks that SQLite holds on it.
        search = await asyncio.create_subprocess_exec("grep", "-rqaF", marker.decode(), str(tmp_path))
        return await search.wait() == 0

    assert await has_traces()
    assert await store.delete_records(NOW + 1, 100) == 60
    async for _ in attempts():
        if not await has_traces() and (tmp_path / "gateway.sqlite").stat().st_size < 400_000:
            break
    assert not await has_traces()
    assert (tmp_path / "gateway.sqlite").stat().st_size < 400_000
    assert await store.prediction("p99") is not None
    await store.ping()
