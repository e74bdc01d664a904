"""Fixtures of the contract tests: a store of every backend in turn."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.store.interface import Store
from tests.support.stores import ALL_BACKENDS, BACKENDS, StoreMaker

_BEHIND_PGBOUNCER = {"test_hits", "test_sharing_races"}
"""Files whose tests always run behind PgBouncer, too. `make test-long` runs all there."""

_LONG_ON_A_SERVER = {"test_end_of_many_predictions_has_exact_counts_and_a_partial_list"}
"""Tests of a bound that thousands of steps reach, with the same statements on both engines (`test_statements.py`)."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests that need a store on every backend."""
    always = set(BACKENDS)
    if metafunc.module.__name__.rpartition(".")[2] in _BEHIND_PGBOUNCER:
        always.add("pgbouncer")
    if metafunc.function.__name__ in _LONG_ON_A_SERVER:
        always = {"sqlite"}
    backends = [each if each in always else pytest.param(each, marks=pytest.mark.long) for each in ALL_BACKENDS]
    for name in ("another", "in_order"):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, backends, indirect=True)


@pytest.fixture
def another(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    """Makes stores, not yet open, on the data of this test."""
    return ALL_BACKENDS[request.param](tmp_path)


@pytest.fixture
def in_order(request: pytest.FixtureRequest, tmp_path: Path) -> StoreMaker:
    """Makes stores that do their writes in the order in which they were asked for."""
    return ALL_BACKENDS[request.param](tmp_path, in_order=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The name of the backend of a test that takes `another` or `in_order`."""
    given = request.node.callspec.params
    return str(given.get("another") or given["in_order"])


@pytest.fixture
async def store(another: StoreMaker) -> AsyncIterator[Store]:
    made = another()
    await made.open()
    yield made
    await made.close()
