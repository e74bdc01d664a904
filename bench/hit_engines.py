"""CPU of a hit in the store: PostgreSQL compared with SQLite, in one run.

    python -m bench.hit_engines [--hits 6000] [--rounds 3] [--folder DIR]

Sets of 1, 50 and 200 hits on 20 results of ten teams, one after the other. Microseconds of CPU for each hit: `gateway`
is this process (event loop, thread of the store, and with SQLite the engine), `server` are the processes of
PostgreSQL, whose time is counted in steps of 10 ms. `ratio` is SQLite's CPU divided by that of `gateway` with
PostgreSQL. The server is a private one that syncs nothing, on this machine. Rounds alternate, and medians are reported.
The last line is a JSON object.
"""

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from bench.hit_batches import RESULTS, finished, request
from bench.store import records
from gateway.store.interface import Store
from gateway.store.postgres import PostgresStore
from gateway.store.sqlite import SQLiteStore
from tests.support.postgres import Server, new_database, server

SIZES = (1, 50, 200)


def server_seconds(of: Server) -> float:
    """Return the CPU time of a server's processes, those that have ended included."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if of.process.pid in (int(stat.parent.name), int(fields[1])):
            ticks += sum(map(int, fields[11:15] if int(stat.parent.name) == of.process.pid else fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


async def measured(store: Store, hits: int, size: int, of: Server) -> dict[str, float]:
    """Record so many hits in sets of this size."""
    sets = [[request() for _ in range(size)] for _ in range(hits // size)]
    began, cpu, of_server = time.perf_counter(), time.process_time(), server_seconds(of)
    for each in sets:
        assert None not in await store.record_hits(each)
    count = len(sets) * size
    return {
        "gateway_us": round((time.process_time() - cpu) / count * 1e6, 1),
        "server_us": round((server_seconds(of) - of_server) / count * 1e6, 1),
        "per_s": round(count / (time.perf_counter() - began)),
    }


async def compare(folder: Path, hits: int, rounds: int) -> dict[str, dict[str, object]]:
    """Measure both engines with each size, in alternating rounds."""
    of = server()
    stores: dict[str, Store] = {
        "sqlite": SQLiteStore(folder / "store.sqlite"),
        "postgres": PostgresStore(new_database()),
    }
    for store in stores.values():
        await store.open()
        for n in range(RESULTS):
            await store.record_created(finished(n), records("hit", n)[1])
        await measured(store, hits, 100, of)
    seen: dict[int, dict[str, list[dict[str, float]]]] = {size: {} for size in SIZES}
    for _ in range(rounds):
        for size in SIZES:
            for name, store in stores.items():
                result = await measured(store, hits // 6 if size == 1 else hits, size, of)
                seen[size].setdefault(name, []).append(result)
    for store in stores.values():
        await store.close()
    table: dict[str, dict[str, object]] = {}
    for size, by_engine in seen.items():
        medians = {
            name: {key: statistics.median(each[key] for each in results) for key in results[0]}
            for name, results in by_engine.items()
        }
        ratio = medians["sqlite"]["gateway_us"] / medians["postgres"]["gateway_us"]
        table[f"set of {size}"] = {**medians, "ratio": round(ratio, 2)}
    return table


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        found = asyncio.run(compare(Path(name), options.hits, options.rounds))
    for size, figures in found.items():
        print(size, figures)
    print(json.dumps({"bench": "hit_engines", "sqlite": sqlite3.sqlite_version, "table_of_sizes": found}))


if __name__ == "__main__":
    main()
