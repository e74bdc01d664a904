"""Fixtures of webhook deliveries."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.store.sqlite import SQLiteStore
from tests.support.clock import ManualClock
from tests.support.deliveries import Stack
from tests.support.webhook_receiver import Receiver, start_receiver


@pytest.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[Callable[..., Stack]]:
    store = SQLiteStore(tmp_path / "gateway.db")
    await store.open()
    yield lambda **settings: Stack(store, settings.pop("clock", None) or ManualClock(), tmp_path, **settings)
    await store.close()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with start_receiver() as made:
        yield made
