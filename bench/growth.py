"""What stored predictions cost: latency, memory and start time with few and with many of them in one SQLite file.

    python -m bench.growth [--stored 10000 100000 1000000] [--rounds 5] [--seconds 2] [--folder DIR]

The predictions are of one team and of the last 29 days, and are inserted in bulk with the store's own encoders: those
of the last day are cached with their data, the others are without data, as after `retain_data_seconds`. Then a gateway
for each number serves from its file, all at the same time, and rounds alternate between them: hits, polls of stored
predictions, first pages of the list, and creates, with one connection. Polls are of as many predictions as the smallest
store has, spread over all, so that the gateways find equally many of them in memory.

The reference of each row is the smallest number. The last line is a JSON object.
"""

import asyncio
import json
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from bench import miss
from bench.installed import BODY, CREATE, HEADERS, POST, finished, gateway, hit_bytes, stub
from bench.load import Journey, http_request, same
from bench.processes import Server, memory_kib
from bench.rounds import Contender, Row, Sample, alternate, options, report, row, run
from bench.stub import MODEL
from gateway.domain.documents import without_data
from gateway.domain.records import Kind, Prediction, Run, RunState, Source, Status
from gateway.store.sql.rows import PREDICTIONS, RUNS
from gateway.store.sqlite import SQLiteStore
from gateway.store.sqlite.dialect import SQL

_DAYS = 29
_DAY = 86_400.0
_TEAM, _KEY_ID = "bench", "bench/bench"
_BATCH = 20_000


def prediction_id(number: int) -> str:
    """Return the id of a stored prediction."""
    return f"g{number:025d}"


def document(run_id: str, at: float) -> bytes:
    """Return the final document of a run."""
    shown = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at))
    base = f"https://api.replicate.com/v1/predictions/{run_id}"
    return json.dumps(
        {
            "id": run_id,
            "model": MODEL,
            "version": "hidden",
            "input": {"prompt": "a bench in the park", "seed": 1},
            "logs": "",
            "output": "A llama looks over the fence. " * 20,
            "data_removed": False,
            "error": None,
            "source": "api",
            "status": "succeeded",
            "created_at": shown,
            "started_at": shown,
            "completed_at": shown,
            "metrics": {"predict_time": 0.02, "total_time": 0.03},
            "urls": {"cancel": f"{base}/cancel", "get": base},
        }
    ).encode()


def stored(count: int, now: float) -> Iterator[tuple[Run, Prediction]]:
    """Yield finished runs, oldest first, and the prediction of each."""
    for number in range(count):
        run_id = prediction_id(number)
        age = (count - number) / count * _DAYS * _DAY
        at, body = now - age, document(run_id, now - age)
        cached = age < _DAY
        done = Run(
            id=f"run{number:012d}",
            kind=Kind.PREDICTION,
            team=_TEAM,
            key_id=_KEY_ID,
            target=MODEL,
            path=CREATE.removeprefix("/v1"),
            request=b"",
            state=RunState.ENDED,
            upstream_id=run_id,
            status=Status.SUCCEEDED,
            document=body if cached else without_data(body),
            intended_at=at,
            live_at=at + 0.1,
            ended_at=at + 1,
            data_removed=not cached,
            leader_id=run_id,
            fingerprint=f"{number:064d}",
            cache_until=at + _DAY if cached else None,
        )
        yield (
            done,
            Prediction(
                id=run_id,
                run_id=done.id,
                kind=Kind.PREDICTION,
                team=_TEAM,
                key_id=_KEY_ID,
                source=Source.MISS,
                created_at=at,
                ticket=f"{random.getrandbits(256):064x}",
                ticket_expires_at=at + _DAY,
                reason="seed",
            ),
        )


async def fill(path: Path, count: int) -> float:
    """Create a store and insert predictions; return how many were inserted in a second."""
    store = SQLiteStore(path)
    await store.open()
    await store.close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -200000")
    began, all_of_them = time.perf_counter(), stored(count, time.time())
    while batch := list(islice(all_of_them, _BATCH)):
        db.execute("BEGIN")
        db.executemany(SQL["add_run"], [RUNS.row(done) for done, _ in batch])
        db.executemany(SQL["add_prediction"], [PREDICTIONS.row(shown) for _, shown in batch])
        db.executemany(SQL["keep_entry"], [{"run_id": done.id} for done, _ in batch if done.cache_until is not None])
        db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return count / (time.perf_counter() - began)


def polls(origin: str, count: int, asked: int) -> Journey:
    """Poll stored predictions in random order: `asked` of them, spread over all."""
    chaos, stride = random.Random(1), count // asked

    def journey() -> Generator[bytes, bytes, None]:
        number = chaos.randrange(asked) * stride
        yield http_request(f"{origin}/v1/predictions/{prediction_id(number)}", HEADERS)

    return journey


def creates(origin: str) -> Journey:
    """Create predictions that were never asked for."""

    def journey() -> Generator[bytes, bytes, None]:
        yield miss.create(origin, POST)

    return journey


def paths(server: Server, count: int, asked: int) -> dict[str, Journey]:
    """Return what is measured."""
    return {
        "hit": same(http_request(server.origin + CREATE, POST, BODY)),
        "poll": polls(server.origin, count, asked),
        "list": same(http_request(f"{server.origin}/v1/predictions", HEADERS)),
        "create": creates(server.origin),
    }


def growth_rows(name: str, found: dict[int, list[Sample]]) -> list[Row]:
    """Return rows of the latency with each number of predictions, compared with the smallest."""
    smallest = min(found)
    figures = {"p50": lambda each: each.p50_ms, "p99": lambda each: each.p99_ms}
    return [
        row(
            f"{name} with {count:,} stored / {smallest:,}, {label}",
            "ms",
            [read(each) for each in found[count]],
            [read(each) for each in found[smallest]],
            goal="1.2" if label == "p99" else "",
        )
        for count in sorted(found)
        if count != smallest
        for label, read in figures.items()
    ]


def plain_rows(unit: str, label: str, values: dict[int, float], goal: str = "") -> list[Row]:
    """Return rows of single values, compared with the smallest number of predictions."""
    smallest = min(values)
    return [
        row(f"{label} with {count:,} stored / {smallest:,}", unit, [value], [values[smallest]], digits=2, goal=goal)
        for count, value in sorted(values.items())
        if count != smallest
    ]


def main() -> None:
    """Run the benchmark."""
    parser = options(__doc__, seconds=2.0)
    parser.set_defaults(connections=[1])
    parser.add_argument("--stored", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--folder", type=Path, help="where the stores are; by default a temporary folder")
    given = parser.parse_args()
    if len(set(given.stored)) < 2:
        raise SystemExit("--stored: give two numbers or more, to compare")
    table: list[Row] = []
    starts: dict[int, float] = {}
    sizes: dict[int, int] = {}
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=given.folder)))
        upstream = stack.enter_context(stub())
        servers: dict[int, Server] = {}
        for count in sorted(set(given.stored)):
            folder = root / str(count)
            folder.mkdir()
            speed = asyncio.run(fill(folder / "gateway.db", count))
            sizes[count] = (folder / "gateway.db").stat().st_size
            os.sync()
            began = time.perf_counter()
            servers[count] = stack.enter_context(gateway(upstream.origin, folder=folder))
            starts[count] = time.perf_counter() - began
            print(f"{count} stored, {speed:.0f} a second; started in {starts[count]:.2f} s", flush=True)
            finished(servers[count].origin)
            hit_bytes(servers[count].origin)
        journeys = {count: paths(server, count, min(servers)) for count, server in servers.items()}
        for name in next(iter(journeys.values())):
            contenders = {str(n): Contender(server, journeys[n][name]) for n, server in servers.items()}
            for connections in given.connections:
                print(name)
                found = alternate(contenders, rounds=given.rounds, seconds=given.seconds, connections=connections)
                table += growth_rows(name, {int(count): samples for count, samples in found.items()})
        memory = {count: memory_kib(server.pid)["rss"] / 1024 for count, server in servers.items()}
    table += plain_rows("MiB", "memory", memory) + plain_rows("s", "start", starts, "under 3 s")
    report("growth", table, file_bytes=sizes, start_seconds={n: round(value, 2) for n, value in starts.items()})


if __name__ == "__main__":
    run(main)
