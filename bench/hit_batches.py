"""CPU of a hit in the store: single steps compared with batches, in one run.

    python -m bench.hit_batches [--hits 6000] [--rounds 3] [--folder DIR]

So many callers at once ask for hits on 20 results of ten teams, through `share`, one step each, and through the
recorder of hits, which gathers them (`gateway/predictions/hits.py`). Microseconds of CPU of the whole process for each
hit: event loop, writing thread and SQLite. The store has 30,000 predictions before. Rounds alternate, and medians are
reported. The last line is a JSON object.
"""

import argparse
import asyncio
import itertools
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec.structs import replace

from bench.store import AT, records
from gateway.domain import ids
from gateway.domain.records import Run, RunState, Status
from gateway.predictions.events import PredictionEvents
from gateway.predictions.hits import HitRecorder
from gateway.predictions.ports.sharing import FinishedRuns, Hit, ShareRequest
from gateway.runtime.clock import SystemClock
from gateway.runtime.tasks import Tasks
from gateway.store.sqlite import SQLiteStore
from tests.support.observer import RecordingObserver

CALLERS = (1, 16, 64, 200)
RESULTS = 20
STORED = 30_000
_numbers = itertools.count()


class Silent(RecordingObserver):
    """Counts nothing."""

    def _note(self, *_: object) -> None:
        return


def finished(n: int) -> Run:
    """Return a run that answers requests."""
    run, _ = records("hit", n)
    ended = {"state": RunState.ENDED, "status": Status.SUCCEEDED, "ended_at": AT, "cache_until": AT + 1e9}
    return replace(run, request=b"", fingerprint=f"{n:064}", **ended)


def request() -> ShareRequest:
    """Return a request that one of the results answers."""
    n = next(_numbers)
    _, prediction = records("ask", n)
    now = AT + 100 + n / 1000
    prediction_id = ids.prediction_id(os.urandom(20), now)
    prediction = replace(prediction, id=prediction_id, ticket="", created_at=now, user="user")
    return ShareRequest(prediction=prediction, now=now, may_hit=FinishedRuns(f"{n % RESULTS:064}"))


async def measured(ask: Callable[[ShareRequest], Awaitable[Hit | None]], hits: int, callers: int) -> dict[str, float]:
    """Let callers ask, each for the next hit once it has one."""
    asked = iter([request() for _ in range(hits)])

    async def caller() -> None:
        for each in asked:
            assert await ask(each) is not None

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return {
        "cpu_us": round((time.process_time() - cpu) / hits * 1e6, 1),
        "per_s": round(hits / (time.perf_counter() - began)),
    }


async def compare(folder: Path, hits: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Measure both ways with each number of callers, in alternating rounds on one store."""
    store = SQLiteStore(folder / "store.sqlite")
    await store.open()
    for n in range(RESULTS):
        run, starter = finished(n), records("hit", n)[1]
        await store.record_created(run, starter)
    recorder = HitRecorder(store, PredictionEvents(SystemClock(), Silent()), Silent(), Silent())
    tasks = Tasks()

    async def single(each: ShareRequest) -> Hit | None:
        # As a create does it that is no expected hit.
        outcome = await tasks.run_to_completion(store.share(each), "create")
        return outcome if isinstance(outcome, Hit) else None

    await measured(recorder.record, STORED, 64)
    seen: dict[str, dict[str, list[dict[str, float]]]] = {}
    for _ in range(rounds):
        for callers in CALLERS:
            for name, ask in (("single", single), ("batches", recorder.record)):
                few = hits // 4 if callers == 1 else hits
                result = await measured(ask, few, callers)
                seen.setdefault(f"c{callers}", {}).setdefault(name, []).append(result)
    await store.close()
    return {
        callers: {
            name: {key: statistics.median(each[key] for each in results) for key in results[0]}
            for name, results in ways.items()
        }
        for callers, ways in seen.items()
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hits", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        found = asyncio.run(compare(Path(name), options.hits, options.rounds))
    for callers, ways in found.items():
        print(callers, *(f"{name} {each['cpu_us']} us, {each['per_s']}/s;" for name, each in ways.items()))
    print(json.dumps({"bench": "hit_batches", "sqlite": sqlite3.sqlite_version, **found}))


if __name__ == "__main__":
    main()
