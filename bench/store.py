"""Speed of the SQLite store: rows/s, p50 and p99 of its main operations, compared with a bare `sqlite3` loop.

    python -m bench.store [--operations 4000] [--rounds 3] [--stored 100000] [--folder DIR]

The bare loop runs the same statements on the same schema, one transaction each, with the same `synchronous` setting
(FULL for durable operations, else NORMAL), without threads or an event loop. `ratio` is the store's rate divided by the
bare loop's. Rounds alternate, and medians are reported. The last line is a JSON object.
"""

import argparse
import asyncio
import json
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from gateway.domain import quota
from gateway.domain.ledger import Reservation
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import ReservationRequest, RunLimits
from gateway.domain.records import Kind, Prediction, Run, RunState, Source, Status
from gateway.predictions.ports.predictions import Progressed
from gateway.predictions.ports.sharing import FinishedRuns, Hit, Joined, OpenRuns, ShareRequest, Started
from gateway.store.sql.hits import find_entry
from gateway.store.sql.ledger_entries import NewHit, enter_hits
from gateway.store.sql.reservations import reserve
from gateway.store.sql.rows import PREDICTIONS, RUNS, Row, view
from gateway.store.sqlite import SQLiteStore
from gateway.store.sqlite.database import SQLiteDatabase
from gateway.store.sqlite.dialect import SQL

CONCURRENCY = (1, 16, 64)
PAGE = 20
AT = 1_764_000_000.0
DOCUMENT = b'{"id":"x","status":"processing","input":{"prompt":"p"},"logs":"' + b"l" * 900 + b'"}'
TEAMS = [f"team{n}" for n in range(10)]
FAR = {"low_at": float("-inf"), "low_id": "", "high_at": float("inf"), "high_id": ""}


def records(name: str, n: int) -> tuple[Run, Prediction]:
    run_id, at = f"{name}run{n:012}", AT + n / 10
    run = Run(
        id=run_id,
        kind=Kind.PREDICTION,
        team=TEAMS[n % 10],
        key_id="key",
        target="acme/toy",
        path="/predictions",
        request=DOCUMENT[:500],
        state=RunState.LIVE,
        upstream_id=f"{name}up{n:012}",
        document=DOCUMENT,
        intended_at=at,
        live_at=at + 0.2,
    )
    return run, Prediction(
        id=f"{name}p{n:012}",
        run_id=run_id,
        kind=Kind.PREDICTION,
        team=run.team,
        key_id="key",
        source=Source.MISS,
        created_at=at,
        ticket="",
        ticket_expires_at=at + 3600,
    )


def news(name: str, n: int) -> dict[str, object]:
    document = DOCUMENT[:-10] + f"{n:010}".encode()
    return {"id": f"{name}run{n:012}", "status": "processing", "rank": 1, "document": document, "stream_url": None}


class Wish(NamedTuple):
    """A prediction that is asked for, and the intent that is recorded if it starts a run."""

    request: ShareRequest
    run: Run
    reservation: ReservationRequest


def wish(name: str, operation: str, n: int) -> Wish:
    """Return the arguments of a create that hits or joins an existing run, or starts a new one."""
    run, prediction = records(f"{name}{operation}", n)
    fingerprint = f"{operation}{n}" if operation == "start" else operation
    intent = replace(run, state=RunState.INTENDED, upstream_id=None, document=b"", fingerprint=fingerprint)
    limits = tuple(
        RunLimits(of=of, scope=quota.scope(of, name), microusd_per_day=10**12)
        for of, name in ((SubjectKind.TEAM, run.team), (SubjectKind.KEY, run.key_id))
    )
    request = ShareRequest(
        prediction=prediction, now=AT, may_hit=FinishedRuns(fingerprint), may_join=OpenRuns(fingerprint)
    )
    return Wish(request, intent, ReservationRequest(5, 5, limits))


def shared() -> list[tuple[Run, Prediction]]:
    """Return a finished run to hit, and a run in progress to join."""
    (hit, first), (join, second) = records("hit", 0), records("join", 0)
    ended = {"state": RunState.ENDED, "status": Status.SUCCEEDED, "ended_at": AT, "cache_until": AT + 1e9}
    return [(replace(hit, fingerprint="hit", **ended), first), (replace(join, fingerprint="join"), second)]


class Bare:
    """Runs the same statements directly."""

    def __init__(self, path: Path, name: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA cache_size = -16384")
        self.db.execute("PRAGMA secure_delete = ON")
        self.steps = SQLiteDatabase(self.db)
        self.name = name

    def start(self, n: int) -> None:
        request, run, demand = wish(self.name, "start", n)
        self.db.execute("BEGIN IMMEDIATE")
        find_entry(self.steps, request.may_hit, request.now)
        self.look("run_to_join", request)
        scopes = demand.scopes(run.team, run.key_id, None)
        held = Reservation(
            run_id=run.id, team=run.team, key_id=run.key_id, user=None, scopes=scopes, milliseconds=5, microusd=5, at=AT
        )
        assert reserve(self.steps, held, demand) is None
        self.db.execute(SQL["add_run"], RUNS.row(replace(run, leader_id=request.prediction.id)))
        self.db.execute(SQL["add_prediction"], PREDICTIONS.row(request.prediction))
        self.db.execute("COMMIT")

    def join(self, n: int) -> None:
        request = wish(self.name, "join", n).request
        self.db.execute("BEGIN IMMEDIATE")
        find_entry(self.steps, request.may_hit, request.now)
        run = RUNS.record(self.look("run_to_join", request))
        prediction = replace(request.prediction, run_id=run.id, source=Source.JOINED)
        self.db.execute(SQL["add_prediction"], PREDICTIONS.row(prediction))
        self.db.execute("COMMIT")

    def hit(self, n: int) -> None:
        request = wish(self.name, "hit", n).request
        self.db.execute("BEGIN IMMEDIATE")
        entry = find_entry(self.steps, request.may_hit, request.now)
        assert entry is not None
        prediction = replace(request.prediction, run_id=entry.run.id, source=Source.HIT)
        self.db.execute(SQL["add_prediction"], PREDICTIONS.row(prediction))
        enter_hits(self.steps, [NewHit(prediction, entry.run, AT, entry.microusd, entry.settled_as)])
        self.db.execute("COMMIT")

    def look(self, query: str, request: ShareRequest) -> Row:
        assert request.may_hit is not None
        wanted = request.may_hit
        found: Row = self.db.execute(SQL[query], {"fingerprint": wanted.fingerprint}).fetchone()
        return found

    def record_created(self, n: int) -> None:
        run, prediction = records(self.name, n)
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute(SQL["run_of_prediction"], {"id": prediction.id}).fetchone()
        self.db.execute(SQL["known_run"], {"id": run.id}).fetchone()
        foreign = {"upstream_id": run.upstream_id, "kind": "prediction", "id": run.id}
        self.db.execute(SQL["other_run_of_upstream_id"], foreign).fetchone()
        self.db.execute(SQL["add_run"], RUNS.row(run))
        self.db.execute(SQL["add_prediction"], PREDICTIONS.row(prediction))
        self.db.execute("COMMIT")

    def advance(self, n: int) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        RUNS.record(self.db.execute(SQL["progress"], news(self.name, n)).fetchall()[0])
        self.db.execute("COMMIT")

    def prediction(self, n: int) -> None:
        view(self.db.execute(SQL["shown_prediction"], {"id": f"{self.name}p{n:012}"}).fetchone())

    def list(self, n: int) -> None:
        scope = {"team": TEAMS[n % 10], "kind": "prediction", "limit": PAGE + 1}
        rows = self.db.execute(SQL["predictions_of_team_older"], scope | FAR).fetchall()
        _ = [view(row) for row in rows[:PAGE]]


class Ours:
    """Runs the operations of the store."""

    def __init__(self, store: SQLiteStore, name: str) -> None:
        self.store = store
        self.name = name

    async def start(self, n: int) -> None:
        request, run, reservation = wish(self.name, "start", n)
        assert isinstance(await self.store.start(request, run, reservation=reservation), Started)

    async def join(self, n: int) -> None:
        assert isinstance(await self.store.share(wish(self.name, "join", n).request), Joined)

    async def hit(self, n: int) -> None:
        assert isinstance(await self.store.share(wish(self.name, "hit", n).request), Hit)

    async def record_created(self, n: int) -> None:
        await self.store.record_created(*records(self.name, n))

    async def advance(self, n: int) -> None:
        given = news(self.name, n)
        outcome = await self.store.advance(
            str(given["id"]), status=Status.PROCESSING, document=bytes(given["document"]), stream_url=None, at=0.0
        )
        assert isinstance(outcome, Progressed)

    async def prediction(self, n: int) -> None:
        assert await self.store.prediction(f"{self.name}p{n:012}") is not None

    async def list(self, n: int) -> None:
        await self.store.predictions(team=TEAMS[n % 10], kind=Kind.PREDICTION, limit=PAGE)


OPERATIONS = {
    "start": "FULL",
    "join": "NORMAL",
    "hit": "NORMAL",
    "record_created": "FULL",
    "advance": "NORMAL",
    "prediction": "NORMAL",
    "list": "NORMAL",
}


def figures(seconds: float, times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {
        "per_s": round(len(times) / seconds),
        "p50_ms": round(statistics.median(times) * 1000, 4),
        "p99_ms": round(cuts[98] * 1000, 4),
    }


def run_bare(call: Callable[[int], None], count: int) -> dict[str, float]:
    times = []
    begun = time.perf_counter()
    for n in range(count):
        before = time.perf_counter()
        call(n)
        times.append(time.perf_counter() - before)
    return figures(time.perf_counter() - begun, times)


async def run_ours(call: Callable[[int], Awaitable[None]], count: int, concurrency: int) -> dict[str, float]:
    times: list[float] = []
    numbers = iter(range(count))

    async def caller() -> None:
        for n in numbers:
            before = time.perf_counter()
            await call(n)
            times.append(time.perf_counter() - before)

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return figures(time.perf_counter() - begun, times)


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


async def compare(folder: Path, operations: int, rounds: int) -> dict[str, object]:
    """Run each operation at each concurrency, and bare, in alternating rounds with separate files."""
    seen: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in OPERATIONS}
    for round_ in range(rounds):
        for concurrency in CONCURRENCY:
            store = SQLiteStore(folder / f"store{round_}-{concurrency}.sqlite")
            await store.open()
            ours = Ours(store, "s")
            for each in shared():
                await store.record_created(*each)
            for name in OPERATIONS:
                count = operations // 4 if name == "list" else operations
                result = await run_ours(getattr(ours, name), count, concurrency)
                seen[name].setdefault(f"c{concurrency}", []).append(result)
            await store.close()
        path = folder / f"bare{round_}.sqlite"
        empty = SQLiteStore(path)
        await empty.open()
        for each in shared():
            await empty.record_created(*each)
        await empty.close()
        bare = Bare(path, "b")
        for name, synchronous in OPERATIONS.items():
            bare.db.execute(f"PRAGMA synchronous = {synchronous}")
            count = operations // 4 if name == "list" else operations
            seen[name].setdefault("bare", []).append(run_bare(getattr(bare, name), count))
        bare.db.close()
    results: dict[str, object] = {}
    for name, by_way in seen.items():
        ways = {way: median(each) for way, each in by_way.items()}
        for way, each in ways.items():
            each["ratio"] = round(each["per_s"] / ways["bare"]["per_s"], 2)
            print(f"{name:16} {way:5} {each}")
        results[name] = ways
    return results


async def at_size(folder: Path, stored: int) -> dict[str, object]:
    """Fill a store, then read single records, spread over all of them."""
    store = SQLiteStore(folder / "large.sqlite")
    await store.open()
    ours = Ours(store, "l")
    filling = await run_ours(ours.record_created, stored, 64)
    stride = max(1, stored // 2000)
    result: dict[str, object] = {"stored": stored, "filled_per_s": filling["per_s"]}
    for each in shared():
        await store.record_created(*each)
    for name in ("prediction", "list", "hit", "join"):
        call = getattr(ours, name)
        result[name] = await run_ours(lambda n, call=call: call(n * stride % stored), min(2000, stored), 1)
        print(f"{name:16} with {stored} stored: {result[name]}")
    await store.close()
    result["file_bytes"] = (folder / "large.sqlite").stat().st_size
    return result


async def main(arguments: argparse.Namespace, folder: Path) -> None:
    results = await compare(folder, arguments.operations, arguments.rounds)
    results["large"] = await at_size(folder, arguments.stored)
    print(json.dumps({"bench": "store", "sqlite": sqlite3.sqlite_version, **results}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--operations", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stored", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        try:
            import uvloop
        except ImportError:
            asyncio.run(main(given, Path(name)))
        else:
            uvloop.run(main(given, Path(name)))
