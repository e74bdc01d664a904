"""A process that writes as fast as it can and prints what was acknowledged, until it is killed.

python -m tests.support.write_load FILE PREFIX
"""

import asyncio
import os
import sys
from typing import Any

from gateway.domain.records import Status
from gateway.predictions.ports.sharing import Hit, Idempotency, Joined, Nothing, ShareOutcome, Started, StartOutcome
from gateway.store.sqlite import SQLiteStore
from tests.support.audit import BY_TEST
from tests.support.records import NOW, key, live, prediction, wish


async def worker(store: SQLiteStore, prefix: str, name: str) -> None:
    for n in range(100_000):
        run_id, prediction_id = f"{name}r{n}", f"{name}p{n}"
        # All workers ask for the same at about the same time, and each asks twice.
        wished = wish(
            f"{name}{n}",
            fingerprint=f"{prefix}F{n // 2}",
            idempotency=Idempotency(prediction_id, "body", NOW + 86400),
            run={"id": run_id},
            prediction_={"prediction_id": prediction_id, "run_id": run_id},
        )
        outcome: ShareOutcome | StartOutcome = await wished.share(store)
        if isinstance(outcome, Nothing):
            outcome = await wished.start(store)
        match outcome:
            case Hit(view):
                say("hit", f"{prediction_id} {view.run.id}")
                await hit_together(store, prefix, n, prediction_id)
            case Joined(view):
                say("joined", f"{prediction_id} {view.run.id}")
                if n % 7 == 0:
                    say("parting", prediction_id)
                    await store.detach(prediction_id)
            case Started():
                say("started", f"{prediction_id} {run_id}")
                await lead(store, n, run_id, prediction_id)
            case other:
                raise AssertionError(other)
        if n % 10 == 0:
            await store.add_key(key(f"{name}k{n}"), actor=BY_TEST)
            say("key", f"{name}k{n}")


async def hit_together(store: SQLiteStore, prefix: str, n: int, prediction_id: str) -> None:
    asked = [
        wish(fingerprint=f"{prefix}F{n // 2}", prediction_={"prediction_id": f"{prediction_id}h{m}"}).request
        for m in range(5)
    ]
    for hit in await store.record_hits(asked):
        if hit is not None:
            say("gathered", f"{hit.view.prediction.id} {hit.view.run.id}")


async def lead(store: SQLiteStore, n: int, run_id: str, prediction_id: str) -> None:
    if n % 5 == 4:
        say("discarding", run_id)
        await store.discard_intent(run_id)
        return
    leader_id = f"{prediction_id}up"
    await store.record_created(live(run_id), prediction(leader_id, run_id))
    say("created", f"{leader_id} {run_id}")
    if n % 3 == 0:
        await store.cancel(leader_id, NOW + n)
        say("canceled", f"{leader_id} {run_id}")
    if n % 3 == 1:
        news: dict[str, Any] = {"document": b"x" * n, "stream_url": None}
        await store.advance(run_id, status=Status.PROCESSING, at=NOW, **news)
        await store.advance(run_id, status=Status.SUCCEEDED, at=NOW + n, cache_until=NOW + 10 * n + 99, **news)
        say("ended", f"{leader_id} {run_id}")


def say(what: str, which: str) -> None:
    os.write(1, f"{what} {which}\n".encode())


async def main(path: str, prefix: str) -> None:
    store = SQLiteStore(path)
    await store.open()
    await asyncio.gather(*(worker(store, prefix, f"{prefix}w{n}") for n in range(8)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
