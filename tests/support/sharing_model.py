"""Shared runs and their predictions, as a plain model in memory knows them."""

from dataclasses import dataclass, field

from gateway.domain.records import RunState, Source, Status


@dataclass
class Known:
    """A prediction as the model knows it."""

    source: Source
    canceled_at: float | None = None
    final_status: Status = Status.CANCELED
    left_untold: bool = field(default=False, compare=False)
    """Whether it was cancelled before its create was answered: no caller has seen it, and its end is not reported."""


@dataclass
class Life:
    """A run as the model knows it."""

    fingerprint: str | None
    provisional: str | None
    starter: str
    state: RunState = RunState.INTENDED
    status: Status = Status.STARTING
    upstream_id: str | None = None
    asked_at: float | None = None
    ended_at: float | None = None
    cache_until: float | None = None
    predictions: dict[str, Known] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.state in (RunState.INTENDED, RunState.LIVE) and self.asked_at is None

    def shows(self, prediction_id: str) -> bool:
        return self.state is not RunState.INTENDED and (self.upstream_id is not None or prediction_id != self.starter)

    def tells(self, prediction_id: str) -> bool:
        """Say whether a message about a prediction's end is due."""
        known = self.predictions[prediction_id]
        is_settled = known.source is not Source.JOINED or self.fingerprint is not None
        is_over = self.state is RunState.ENDED or known.canceled_at is not None
        return self.shows(prediction_id) and is_over and is_settled and not known.left_untold

    def end(self, status: Status, at: float, cache_until: float | None) -> None:
        self.state, self.status, self.ended_at = RunState.ENDED, status, at
        if status is Status.SUCCEEDED and self.fingerprint is not None:
            self.cache_until = cache_until
