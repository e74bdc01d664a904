"""Growth of the ledger: usage queries, budget check, audit, and memory.

    python -m bench.ledger [--runs 1000000] [--small 1000] [--folder DIR]

The code that settles runs writes a month of ten teams, once with few and once with many runs. `ratio` is the time with
many runs divided by the time with few. The last line is a JSON object.
"""

import argparse
import asyncio
import json
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gateway.domain import quota, windows
from gateway.domain.ledger import By, Entry, EntryKind
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import ReservationRequest, RunLimits
from gateway.domain.windows import Window
from gateway.money.rules.audit import Tally
from gateway.store.sql.ledger_entries import insert_entry
from gateway.store.sqlite import SQLiteStore
from tests.support.records import start

NOW = 1_766_966_400.0
"""The 29th day of a month."""
DAY = windows.day_of(NOW)
FIRST = windows.first_day(Window.MONTH, DAY)
TEAMS, KEYS, MODELS, USERS = 10, 5, 20, 400
_BATCH = 2000
_ASKED = 50


def entry(n: int, runs: int, chaos: random.Random) -> Entry:
    team = f"team{n % TEAMS}"
    key_id, user = f"{team}/key{chaos.randrange(KEYS)}", f"user{chaos.randrange(USERS)}"
    at = FIRST * 86_400 + n / runs * (NOW - FIRST * 86_400)
    return Entry(
        at=at,
        team=team,
        key_id=key_id,
        user=user,
        target=f"acme/model{chaos.randrange(MODELS)}",
        run_id=f"run{n}",
        prediction_id=f"p{n}",
        kind=EntryKind.SPEND,
        milliseconds=2500,
        microusd=2437,
        reason="succeeded",
        scopes=quota.scopes_of(team, key_id, user),
    )


async def fill(store: SQLiteStore, runs: int) -> float:
    chaos, began = random.Random(1), time.perf_counter()
    for first in range(0, runs, _BATCH):
        lines = [entry(n, runs, chaos) for n in range(first, min(first + _BATCH, runs))]
        await store._write(lambda db, lines=lines: sum(insert_entry(db, line) for line in lines))  # noqa: SLF001
    return runs / (time.perf_counter() - began)


async def median_ms(ask: Callable[[], Awaitable[object]], times: int = _ASKED) -> float:
    seen = []
    for _ in range(times):
        began = time.perf_counter()
        await ask()
        seen.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(seen), 3)


async def audit(store: SQLiteStore) -> float:
    """Audit a whole month; return the seconds it took."""
    began = time.perf_counter()
    for day in range(FIRST, DAY + 1):
        tally, after, kept = Tally(), 0, None
        while kept is None:
            audited = await store.audit_day(day, after, 10_000)
            tally.add(audited)
            after, kept = audited.last, audited.stored
        assert tally.drift(kept) == []
    return round(time.perf_counter() - began, 3)


async def measure(path: Path, runs: int) -> dict[str, float]:
    store = SQLiteStore(path)
    await store.open()
    found: dict[str, float] = {"entered_per_s": round(await fill(store, runs))}
    # Same state as after a restart: WAL checkpointed, caches empty.
    await store.close()
    store = SQLiteStore(path)
    await store.open()
    for by in By:
        found[f"usage_by_{by}_ms"] = await median_ms(
            lambda by=by: store.usage(by, since=FIRST, until=DAY, team="team1")
        )
    scopes = quota.scopes_of("team1", "team1/key1", "user1")
    found["meters_ms"] = await median_ms(lambda: store.meters(scopes, NOW))
    numbers = iter(range(10**6))
    limit = RunLimits(of=SubjectKind.TEAM, scope=quota.scope(SubjectKind.TEAM, "team1"), microusd_per_month=10**12)

    async def admit() -> None:
        n = str(next(numbers))
        await start(store, n, now=NOW, run={"team": "team1"}, reservation=ReservationRequest(5, 5, (limit,)))

    found["admit_ms"] = await median_ms(admit)
    found["audit_of_month_s"] = await audit(store)
    await store.close()
    found["file_bytes"] = path.stat().st_size  # noqa: ASYNC240 - nothing else runs
    found["rss_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    return found


async def main(arguments: argparse.Namespace, folder: Path) -> None:
    small = await measure(folder / "small.sqlite", arguments.small)
    print(f"{arguments.small} runs: {small}")
    large = await measure(folder / "large.sqlite", arguments.runs)
    print(f"{arguments.runs} runs: {large}")
    ratios = {name: round(large[name] / small[name], 2) for name in small if name.endswith("_ms") or "rss" in name}
    print(json.dumps({"bench": "ledger", "runs": [arguments.small, arguments.runs], "small": small, "large": large,
                      "ratio": ratios}))  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        asyncio.run(main(given, Path(name)))
