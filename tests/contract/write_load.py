"""A process that writes as fast as it can and prints what was acknowledged, until it is killed.

python -m tests.contract.write_load FILE PREFIX
"""

import asyncio
import os
import sys

from gateway.core.records import Status
from gateway.store.sqlite import SQLiteStore
from tests.contract.records import NOW, intent, key, live, prediction


async def worker(store: SQLiteStore, name: str) -> None:
    for n in range(100_000):
        run_id, prediction_id = f"{name}r{n}", f"{name}p{n}"
        await store.record_intent(intent(run_id))
        say("intent", run_id)
        await store.record_created(live(run_id), prediction(prediction_id, run_id))
        say("created", prediction_id)
        if n % 3 == 0:
            await store.cancel(prediction_id, NOW + n)
            say("canceled", prediction_id)
        if n % 3 == 1:
            await store.advance(run_id, status=Status.PROCESSING, document=b"x" * n, stream_url=None, at=NOW)
            await store.advance(run_id, status=Status.SUCCEEDED, document=b"x" * n, stream_url=None, at=NOW + n)
            say("ended", prediction_id)
        if n % 10 == 0:
            await store.add_key(key(f"{name}k{n}"))
            say("key", f"{name}k{n}")


def say(what: str, which: str) -> None:
    os.write(1, f"{what} {which}\n".encode())


async def main(path: str, prefix: str) -> None:
    store = SQLiteStore(path)
    await store.open()
    await asyncio.gather(*(worker(store, f"{prefix}w{n}") for n in range(8)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
