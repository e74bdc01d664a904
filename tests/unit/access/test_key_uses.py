"""When keys were last used is recorded twice a minute."""

import asyncio

from gateway.access.key_uses import KeyUses
from tests.support.clock import START, ManualClock, settle
from tests.support.fakes import AWAY, FakeStore
from tests.support.polling import until


async def test_uses_are_recorded_together(store: FakeStore, clock: ManualClock):
    """A busy key costs one row in each round, an idle one none."""
    uses = KeyUses(store, clock)
    task = asyncio.create_task(uses.run())
    await settle()
    for _ in range(100):
        uses.note("k1")
    uses.note("k2")
    await clock.advance(30)
    await until(lambda: store.uses == {"k1": START, "k2": START})
    uses.note("k1")
    await clock.advance(30)
    await until(lambda: store.uses["k1"] == START + 30)
    await clock.advance(60)
    assert store.calls.count("use_keys") == 2
    task.cancel()


async def test_uses_are_kept_while_the_store_is_away(store: FakeStore, clock: ManualClock):
    uses = KeyUses(store, clock)
    task = asyncio.create_task(uses.run())
    await settle()
    uses.note("k1")
    store.trouble = AWAY
    await clock.advance(30)
    assert store.uses == {}
    store.trouble = None
    await clock.advance(30)
    await until(lambda: store.uses == {"k1": START})
    task.cancel()
