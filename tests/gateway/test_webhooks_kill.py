"""`kill -9` with webhooks on their way: each arrives, under the id that it would have had.

See docs/architecture.md, Invariants 9.
"""

import asyncio
import signal
import time
from itertools import islice

import pytest
from standardwebhooks.webhooks import Webhook

from gateway.store.sqlite import SQLiteStore
from tests.support.audit import BY_TEST
from tests.support.installation import Installation
from tests.support.upstream import version_of
from tests.support.webhook_receiver import Receiver, answering, never, start_receiver

COUNT = 1000
WORKERS = 16


async def make(installed: Installation, receiver: Receiver, version: str, count: int) -> list[str]:
    """Create predictions that are answered from a finished run, each with a webhook; return their ids."""
    body = {
        "version": version,
        "input": {"prompt": "a llama", "seed": 7},
        "webhook": receiver.url,
        "webhook_events_filter": ["completed"],
    }
    numbers, made = iter(range(count)), []

    async def work() -> None:
        async with installed.caller("alpha") as session:
            for _ in islice(numbers, count):
                async with session.post("/v1/predictions", json=body, headers={"Prefer": "wait"}) as answer:
                    assert answer.status == 201, await answer.text()
                    made.append((await answer.json())["id"])

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    return made


@pytest.mark.timeout(60)
async def test_thousand_queued_webhooks_survive_kill_9(upstream, installation: Installation):
    """The process is killed while a thousand ends wait for a receiver that is down; every one is delivered."""
    path = installation.folder / "config.toml"
    path.write_text(path.read_text() + "\n[webhooks]\nallow_http = true\nallow_private_addresses = true\n")
    version = version_of(upstream, "acme/painter")
    async with start_receiver() as receiver:
        receiver.answer = answering(503)
        async with installation.serving() as process:
            made = await make(installation, receiver, version, 1)
            made += await make(installation, receiver, version, COUNT - 1)
            assert len(set(made)) == COUNT
            # Some have been tried, some are being tried, the rest waits.
            receiver.answer = never
            await receiver.until(lambda: len(receiver.messages) > 10)
            process.send_signal(signal.SIGKILL)
            await process.wait()
        expected = {f"msg_{each}" for each in made}
        tried = set(receiver.ids)
        assert tried < expected
        store = SQLiteStore(installation.folder / "gateway.db")
        await store.open()
        kept = [each async for each in _all(store)]
        await store.redeliver_all(time.time(), dead_only=False, actor=BY_TEST)
        await store.close()
        assert set(kept) == expected
        receiver.messages.clear()
        receiver.answer = answering(200)
        async with installation.serving():
            await receiver.until(lambda: set(receiver.ids) == expected)
            async with installation.caller("alpha") as session, session.get("/v1/webhooks/default/secret") as answer:
                secret = Webhook((await answer.json())["key"])
        for message in receiver.messages:
            reported = secret.verify(message.body, dict(message.headers))
            assert f"msg_{reported['id']}" == message.id
            assert reported["status"] == "succeeded"


async def _all(store: SQLiteStore):
    after = ""
    while page := await store.deliveries(after=after):
        for each in page:
            yield each.id
        after = page[-1].id
