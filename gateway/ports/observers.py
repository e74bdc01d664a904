"""Those who count what happens."""

from typing import Protocol

from gateway.core.records import Source, Status


class UpstreamObserver(Protocol):
    """Whoever counts the calls upstream."""

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        """Note one call and how it ended: a status, or the name of a failure; `seconds` from asking to the end."""
        ...


class PredictionObserver(Protocol):
    """Whoever counts predictions."""

    def prediction_created(self, team: str, target: str, source: Source) -> None:
        """Note a prediction that was recorded, and how it was answered."""
        ...

    def prediction_finished(self, team: str, status: Status) -> None:
        """Note a prediction that has ended for its caller."""
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

    def orphan_settled(self, result: str) -> None:
        """Note what became of one: `adopted`, or `released`."""
        ...
