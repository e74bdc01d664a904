"""A stack for hostile tests: the simulator as upstream, a gateway before it, both in this process."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from gateway.simulator import Simulator
from tests.support.http_calls import PAGE
from tests.support.stack import OpenGateway, Stack, start_gateway, start_upstream

_IN_EVERY_RUN = (
    "test_connections.py",
    "test_not_stricter.py",
    "test_ops_host.py",
    "test_public_credentials.py",
    "test_token_origins.py",
)
_CHEAP = (
    "test_more_than_a_limit_is_refused_with_its_field",
    "test_unknown_fields_count_as_keys",
    "test_a_large_body_goes_upstream_in_pieces",
    "test_large_bodies_are_bounded_in_sum",
    "test_predictions_with_large_inputs_are_kept_by_bytes",
    "test_caches_reach_their_bounds_and_stay_there",
    "test_responses_that_nobody_takes_are_bounded",
    "test_client_that_takes_nothing_is_disconnected",
    "test_create_is_answered_without_room_for_its_output",
    "test_stalled_uploads_of_one_team_do_not_hinder_another",
    "test_one_search_serves_all_uncertain_creates",
)
"""Tests that are in every run, although their files measure CPU time or memory."""


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str) -> list[pytest.Item] | None:
    """Do not make the tests that are left to `make test-long`: their thousands of rows would take each worker time."""
    is_left_out = name.startswith("test_") and _is_long(collector.path, name)
    return [] if is_left_out and "not long" in collector.config.option.markexpr else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to `make test-long` what measures CPU time or describes faults that are not fixed yet."""
    for item in items:
        if _is_long(item.path, item.name):
            item.add_marker(pytest.mark.long)


def _is_long(path: Path, name: str) -> bool:
    is_here = path.is_relative_to(Path(__file__).parent)
    return is_here and path.name not in _IN_EVERY_RUN and not name.startswith(_CHEAP)


@pytest.fixture
async def upstream() -> AsyncIterator[Simulator]:
    """A simulator, twenty times as fast as life, which keeps little of what it was sent."""
    async with start_upstream(max_body_logged=4096) as simulator:
        yield simulator


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the store, in memory where there is such a place."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        yield Path(made)


@pytest.fixture
def open_gateway(upstream: Simulator, folder: Path) -> OpenGateway:
    """Start a gateway with the given sections of its config; team alpha has a page."""

    @asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[Stack]:
        teams = overrides.pop("teams", {})
        teams["alpha"] = {"origins": [PAGE]} | teams.get("alpha", {})
        async with start_gateway(upstream, folder, teams=teams, **overrides) as stack:
            yield stack

    return start


@pytest.fixture
async def gateway(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """A gateway with the teams alpha (which has a page) and beta, and an operator."""
    async with open_gateway() as stack:
        yield stack
