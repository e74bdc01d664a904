"""Those who count what happens."""

from typing import Final, Protocol

from gateway.domain.bypass import BypassReason
from gateway.domain.records import Source, Status

STORE_FAILURES: Final = ("full", "io", "access", "damaged", "lost")
"""Why a store fails for longer than a moment: disk full, disk errors, no permission, damaged data, file gone."""


class UpstreamObserver(Protocol):
    """Whoever counts the calls upstream."""

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        """Note one call and how it ended: a status, or the name of a failure; `seconds` from asking to the end."""
        ...

    def upstream_retried(self) -> None:
        """Note a read that is repeated."""
        ...


class PredictionObserver(Protocol):
    """Whoever counts predictions."""

    def prediction_created(self, team: str, target: str, source: Source) -> None:
        """Note a prediction that was recorded, and how it was answered."""
        ...

    def prediction_finished(self, team: str, status: Status) -> None:
        """Note a prediction that has ended for its caller."""
        ...

    def cache_bypassed(self, reason: BypassReason) -> None:
        """Note a prediction that is not shared, and why."""
        ...

    def canceled(self, result: str) -> None:
        """Note a cancel: one caller has `left` others, upstream was `asked`, or the prediction was `over` before."""
        ...

    def polled(self, served_by: str) -> None:
        """Note a look at a prediction: answered here (`gateway`), or sent on (`upstream`)."""
        ...


class UploadObserver(Protocol):
    """Whoever counts uploads."""

    def uploaded(self, result: str) -> None:
        """Note one: `sent` upstream, `known` there already, or `refused` by it."""
        ...


class AdoptionObserver(Protocol):
    """Whoever counts creates that were uncertain."""

    def orphan_resolved(self, result: str) -> None:
        """Note what became of one: `adopted`, or `released`."""
        ...


class RunObserver(Protocol):
    """Whoever measures runs."""

    def run_ended(self, target: str, queue_seconds: float | None, run_seconds: float | None) -> None:
        """Note how long a run waited for its start, and how long it took, as far as is known."""
        ...


class CacheObserver(Protocol):
    """Whoever counts the results that are kept for later requests."""

    def cache_kept(self, entries: int, size: int) -> None:
        """Note how many there are, and their bytes."""
        ...

    def cache_evicted(self, count: int) -> None:
        """Note some that went for want of room."""
        ...


class StoreObserver(Protocol):
    """Whoever measures the store."""

    def store_answered(self, lane: str, result: str, seconds: float) -> None:
        """Note one step, a `read` or a `write`: it was `done`, has `failed`, or its answer came too `late`."""
        ...

    def store_failed(self, lane: str, kind: str) -> None:
        """Note a failed step whose cause lasts: one of `STORE_FAILURES`."""
        ...
