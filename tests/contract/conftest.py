"""Fixtures of the contract tests: a store of every backend in turn."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from gateway.store.interface import Store
from tests.support.stores import BACKENDS, StoreMaker, cut_maker, pooled_maker

# `test_pgbouncer.py` runs some tests through PgBouncer, and `make test-long` runs all.
_BACKENDS = [*BACKENDS.values(), pytest.param(pooled_maker, marks=pytest.mark.long)]
_NAMES = [*BACKENDS, "pgbouncer"]
# `test_postgres_commits.py` runs every step with lost commits, and `make test-long` all tests.
_CUT = pytest.param(cut_maker, marks=pytest.mark.long)


@pytest.fixture(params=[*_BACKENDS, _CUT], ids=[*_NAMES, "postgres-cut"])
def another(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    """Makes stores, not yet open, on the data of this test."""
    made: StoreMaker = request.param(tmp_path)
    return made


@pytest.fixture(params=_BACKENDS, ids=_NAMES)
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
