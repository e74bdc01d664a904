"""Stores to test: every backend in turn. A backend is added by adding its maker to `BACKENDS`."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from gateway.store.interface import Store
from gateway.store.sqlite import SQLiteStore

# Makes one more store on the same data each time it is called, as another process would.
StoreMaker = Callable[[], Store]


def sqlite_maker(folder: Path) -> StoreMaker:
    return lambda: SQLiteStore(folder / "gateway.sqlite")


BACKENDS = {"sqlite": sqlite_maker}


@pytest.fixture(params=BACKENDS)
def another(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    """Makes stores, not yet open, on the data of this test."""
    return BACKENDS[request.param](tmp_path)


@pytest.fixture
async def store(another: StoreMaker) -> AsyncIterator[Store]:
    made = another()
    await made.open()
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def nothing_blocks_the_event_loop() -> Iterator[None]:
    with blockbuster_ctx("gateway"):
        yield
