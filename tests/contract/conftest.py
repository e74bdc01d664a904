"""Fixtures of the contract tests: a store of every backend in turn."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from gateway.store.interface import Store
from tests.support.stores import BACKENDS, StoreMaker, pooled_maker

_THROUGH_PGBOUNCER = {"test_hits", "test_money", "test_share_and_start", "test_sharing_races"}
"""Files whose tests run behind PgBouncer, too. `make test-long` runs all there."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests that need a store on every backend."""
    is_main = metafunc.module.__name__.rpartition(".")[2] in _THROUGH_PGBOUNCER
    pooled = pytest.param(pooled_maker, marks=[] if is_main else pytest.mark.long, id="pgbouncer")
    backends = [*(pytest.param(backend, id=name) for name, backend in BACKENDS.items()), pooled]
    for name in ("another", "in_order"):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, backends, indirect=True)


@pytest.fixture
def another(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    """Makes stores, not yet open, on the data of this test."""
    made: StoreMaker = request.param(tmp_path)
    return made


@pytest.fixture
def in_order(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    """Makes stores that do their writes in the order in which they were asked for."""
    made: StoreMaker = request.param(tmp_path, in_order=True)
    return made


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
