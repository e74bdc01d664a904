"""Versions, secrets, and the store as a whole."""

import asyncio

import pytest

from gateway.errors import StoreUnavailable
from gateway.store.interface import Store
from tests.support.records import live, prediction


async def test_the_first_word_on_a_version_stands(store: Store) -> None:
    version = "5" * 64
    assert await store.model_of(version) is None
    await store.learn_version(version, "acme/toy")
    await store.learn_version(version, "evil/toy")
    assert await store.model_of(version) == "acme/toy"


async def test_a_hundred_askers_share_one_secret(store: Store, another) -> None:
    """Two processes start at once: what one signs, the other can check."""
    second = another()
    await second.open()
    try:
        answers = await asyncio.gather(*((store, second)[n % 2].secret("tickets", n.to_bytes(4)) for n in range(100)))
    finally:
        await second.close()
    assert len(set(answers)) == 1
    assert await store.secret("tickets", b"late") == answers[0]
    assert await store.secret("webhooks", b"\x00other\xff") == b"\x00other\xff"


async def test_a_secret_outlives_the_store(store: Store, another) -> None:
    """Tickets given out before a restart still work after it."""
    await store.secret("tickets", b"first")
    await store.close()
    again = another()
    await again.open()
    try:
        assert await again.secret("tickets", b"second") == b"first"
    finally:
        await again.close()


async def test_a_ping_is_answered(store: Store, another) -> None:
    second = another()
    await second.open()
    try:
        await asyncio.gather(*((store, second)[n % 2].ping() for n in range(20)))
    finally:
        await second.close()


async def test_a_write_is_seen_by_the_next_read(store: Store) -> None:
    """Whoever was told that something is recorded finds it, under load too."""

    async def one(n: int) -> None:
        await store.record_created(live(f"run{n}"), prediction(f"p{n}", f"run{n}"))
        assert await store.prediction(f"p{n}") is not None
        await store.cancel(f"p{n}", 5.0)
        view = await store.prediction(f"p{n}")
        assert view is not None
        assert view.prediction.canceled_at == 5.0

    await asyncio.gather(*(one(n) for n in range(100)))


async def test_a_closing_store_finishes_what_was_asked(store: Store, another) -> None:
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


async def test_a_caller_who_leaves_does_not_undo_a_write(store: Store) -> None:
    """The client hangs up while its create is being recorded: the run is known all the same."""
    write = asyncio.ensure_future(store.record_created(live(), prediction()))
    await asyncio.sleep(0)
    write.cancel()
    with pytest.raises(asyncio.CancelledError):
        await write
    await store.ping()
    assert await store.prediction("p1") is not None


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.prediction("p1")
    with pytest.raises(StoreUnavailable):
        await store.ping()


async def test_a_store_can_be_opened_again(store: Store) -> None:
    await store.open()
    await store.record_created(live(), prediction())
    await store.close()
    await store.open()
    assert await store.prediction("p1") is not None
    await store.ping()


async def test_a_store_that_was_never_opened_can_be_closed(another) -> None:
    made = another()
    await made.close()
    with pytest.raises(StoreUnavailable):
        await made.ping()
