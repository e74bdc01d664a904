"""Versions, secrets, and opening and closing the store."""

import asyncio

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.interface import Store
from tests.support.polling import attempts
from tests.support.records import live, prediction


async def test_first_model_of_a_version_is_kept(store: Store) -> None:
    version = "5" * 64
    assert await store.model_of(version) is None
    await store.learn_version(version, "acme/toy")
    await store.learn_version(version, "evil/toy")
    assert await store.model_of(version) == "acme/toy"


async def test_concurrent_readers_get_the_same_secret(store: Store, another) -> None:
    """Two processes start at once: a signature of one is valid for the other."""
    second = another()
    await second.open()
    try:
        answers = await asyncio.gather(*((store, second)[n % 2].secret("tickets", n.to_bytes(4)) for n in range(100)))
    finally:
        await second.close()
    assert len(set(answers)) == 1
    assert await store.secret("tickets", b"late") == answers[0]
    assert await store.secret("webhooks", b"\x00other\xff") == b"\x00other\xff"


async def test_secret_survives_a_restart(store: Store, another) -> None:
    """Tickets from before a restart still work after it."""
    await store.secret("tickets", b"first")
    await store.close()
    again = another()
    await again.open()
    try:
        assert await again.secret("tickets", b"second") == b"first"
    finally:
        await again.close()


async def test_ping_succeeds_from_two_processes(store: Store, another) -> None:
    second = another()
    await second.open()
    try:
        await asyncio.gather(*((store, second)[n % 2].ping() for n in range(20)))
    finally:
        await second.close()


async def test_write_is_visible_to_the_next_read(store: Store) -> None:
    """Under load too."""

    async def one(n: int) -> None:
        await store.record_created(live(f"run{n}"), prediction(f"p{n}", f"run{n}"))
        assert await store.prediction(f"p{n}") is not None
        await store.cancel(f"p{n}", 5.0)
        view = await store.prediction(f"p{n}")
        assert view is not None
        assert view.prediction.canceled_at == 5.0

    await asyncio.gather(*(one(n) for n in range(100)))


async def test_closing_store_finishes_pending_writes(store: Store, another) -> None:
    """A shutdown in the middle of a burst loses nothing."""
    writes = [
        asyncio.ensure_future(store.record_created(live(f"run{n}"), prediction(f"p{n}", f"run{n}"))) for n in range(50)
    ]
    await asyncio.sleep(0)
    await store.close()
    await asyncio.gather(*writes)
    again = another()
    await again.open()
    try:
        assert all([await again.prediction(f"p{n}") is not None for n in range(50)])
    finally:
        await again.close()


async def test_cancelled_caller_does_not_undo_a_write(store: Store) -> None:
    """The client disconnects while its create is being recorded: the run is recorded all the same."""
    write = asyncio.ensure_future(store.record_created(live(), prediction()))
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    async for _ in attempts():
        if await store.prediction("p1") is not None:
            break


async def test_closed_store_raises_unavailable(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.prediction("p1")
    with pytest.raises(StoreUnavailable):
        await store.ping()


async def test_store_can_be_reopened(store: Store) -> None:
    await store.open()
    await store.record_created(live(), prediction())
    await store.close()
    await store.open()
    assert await store.prediction("p1") is not None
    await store.ping()


async def test_store_can_be_closed_before_it_is_opened(another) -> None:
    made = another()
    await made.close()
    with pytest.raises(StoreUnavailable):
        await made.ping()
