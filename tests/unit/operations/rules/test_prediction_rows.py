"""Predictions as rows: cost and saving, end, names of keys, cells of CSV."""

from typing import Any

import pytest

from gateway.domain import times
from gateway.domain.admission_record import Admitted
from gateway.domain.records import Kind, Source, Status
from gateway.operations.rules.prediction_rows import COLUMNS, cells_of, row_of
from gateway.predictions.ports.search import Found

NOW = 1_764_000_000.25


def found(**fields: Any) -> Found:
    given: dict[str, Any] = {
        "id": "p1",
        "kind": Kind.PREDICTION,
        "team": "red",
        "key_id": "k1",
        "key_name": None,
        "user": None,
        "tags": "",
        "target": "acme/toy",
        "status": Status.SUCCEEDED,
        "source": Source.MISS,
        "created_at": NOW,
        "canceled_at": None,
        "ended_at": None,
        "microusd": None,
        "admitted": None,
        "request_id": "",
    }
    return Found(**given | fields)


@pytest.mark.parametrize(
    ("source", "microusd", "cost", "saved"),
    [
        (Source.MISS, None, None, 0),
        (Source.MISS, 70, 70, 0),
        (Source.BYPASS, 70, 70, 0),
        (Source.JOINED, None, 0, None),
        (Source.JOINED, 70, 0, 70),
        (Source.HIT, 70, 0, 70),
    ],
)
def test_whoever_started_the_run_pays(source: Source, microusd: int | None, cost: int | None, saved: int | None):
    """Others save what it cost. Amounts that are not settled are unknown, not 0."""
    row = row_of(found(source=source, microusd=microusd))
    assert (row.cost_microusd, row.saved_microusd) == (cost, saved)


@pytest.mark.parametrize(
    ("canceled_at", "ended_at", "completed_at"),
    [(None, None, None), (None, NOW + 5, NOW + 5), (NOW + 2, NOW + 5, NOW + 2), (NOW + 2, None, NOW + 2)],
)
def test_a_prediction_is_complete_when_it_ends_for_its_caller(
    canceled_at: float | None, ended_at: float | None, completed_at: float | None
):
    """By its cancel, whatever the run does."""
    row = row_of(found(canceled_at=canceled_at, ended_at=ended_at))
    assert row.completed_at == (None if completed_at is None else times.render(completed_at))


def test_a_hit_is_complete_at_once():
    """Its run ended before it was created."""
    row = row_of(found(source=Source.HIT, ended_at=NOW - 100))
    assert row.completed_at == row.created_at


def test_names_waits_and_requests():
    """The id of a key of the config has its name; what was not recorded is null."""
    row = row_of(found(key_id="red/web", admitted=Admitted(0, 0, waited_seconds=1.23456), request_id="r"))
    assert (row.key_name, row.held_seconds, row.request_id) == ("web", 1.235, "r")
    row = row_of(found(key_name="issued"))
    assert (row.key_name, row.held_seconds, row.request_id) == ("issued", 0.0, None)
    assert row_of(found()).key_name is None


def test_cells_are_in_the_order_of_the_columns():
    """Tags are one cell, in the form of the header."""
    cells = dict(zip(COLUMNS, cells_of(row_of(found(tags='{"feature":"x","project":"apollo"}'))), strict=True))
    assert (cells["id"], cells["tags"], cells["request_id"]) == ("p1", "feature=x, project=apollo", None)
