"""How long runs waited and took, computed from their documents."""

import pytest

from gateway.operations.run_timing import RunTimings
from tests.support.records import ended, run_ended

TIMES = (
    b'{"created_at":"2025-11-24T16:00:00Z","started_at":"2025-11-24T16:00:01.5Z","completed_at":"2025-11-24T16:00:04Z"}'
)


class Observer:
    """Remembers what was measured."""

    def __init__(self) -> None:
        self.measured: list[tuple[str, float | None, float | None]] = []

    def run_ended(self, target: str, queue_seconds: float | None, run_seconds: float | None) -> None:
        self.measured.append((target, queue_seconds, run_seconds))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (TIMES, ("acme/toy", 1.5, 2.5)),
        (b'{"created_at":"2025-11-24T16:00:00Z"}', ("acme/toy", None, None)),
        (b"<html>", ("acme/toy", None, None)),
        (b"", ("acme/toy", None, None)),
    ],
)
async def test_ended_run_is_measured_from_the_times_in_its_document(document: bytes, expected):
    observer = Observer()
    RunTimings(observer).on_run_ended(run_ended(ended(document=document, target="acme/toy:1a2b")))
    assert observer.measured == [expected]
