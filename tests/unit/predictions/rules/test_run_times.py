"""How long runs wait and take, computed from their documents."""

import json

import pytest

from gateway.predictions.rules import run_times

CREATED, STARTED, COMPLETED = "2026-01-31T12:00:00Z", "2026-01-31T12:00:01.5Z", "2026-01-31T12:00:04Z"


def document(**fields: object) -> bytes:
    return json.dumps({"id": "x", "created_at": CREATED} | fields).encode()


def test_document_gives_waiting_and_running_time():
    """Upstream's three times give two durations."""
    assert run_times.read(document(started_at=STARTED, completed_at=COMPLETED)) == (1.5, 2.5)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (document(), (None, None)),
        (document(started_at=None, completed_at=COMPLETED), (None, None)),
        (document(started_at=STARTED), (1.5, None)),
        (document(started_at="soon", completed_at=COMPLETED), (None, None)),
        (document(started_at="2026-01-31T11:59:59Z", completed_at=COMPLETED), (None, 5.0)),
        (document(started_at=7), (None, None)),
        (b"[" * 100_000, (None, None)),
        (b"no prediction", (None, None)),
    ],
)
def test_incomplete_or_inconsistent_times_are_not_measured(body: bytes, expected: tuple[float | None, float | None]):
    """Half a document, odd times, or clocks that disagree give no measurement."""
    assert run_times.read(body) == expected


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("acme/painter", "acme/painter"),
        ("acme/painter:" + "a" * 64, "acme/painter"),
        ("a" * 64, "unknown"),
        ("", "unknown"),
    ],
)
def test_times_are_labelled_by_model(target: str, name: str):
    """A version's id is no label."""
    assert run_times.name_of(target) == name
