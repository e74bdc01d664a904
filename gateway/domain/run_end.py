"""The end of a run as one value: the run, what it cost, and who shared it (docs/architecture.md, End of a run)."""

from collections.abc import Iterator

import msgspec

from gateway.domain.ledger import Settlement
from gateway.domain.records import Run, Source

MAX_LISTED = 10_000
"""Predictions of a run that its end lists by id."""


class SharedBy(msgspec.Struct, frozen=True, kw_only=True):
    """How many predictions of one team and source shared a run."""

    team: str
    source: Source
    predictions: int
    waiting: int
    """Those that end with the run: the others were cancelled before."""
    webhooks: int
    """Those of `waiting` that have a webhook."""


class RunEnded(msgspec.Struct, frozen=True, kw_only=True):
    """What the store's step recorded when it ended a run. Listeners read nothing else."""

    run: Run
    settlement: Settlement
    """The line of the ledger: what the run cost, and when that was entered."""
    shared_by: tuple[SharedBy, ...]
    """The predictions of the run, counted by team and source. Exact, however many there are. Hits came later."""
    user: str | None = None
    """The user of the prediction that started it."""
    tags: str = ""
    """Its cost tags, as `gateway.domain.tags` writes them."""
    prediction_ids: tuple[str, ...]
    """The ids of the first `MAX_LISTED` of them, in order of creation."""

    @property
    def log_fields(self) -> dict[str, str | int | None]:
        """What the log says of it."""
        run = self.run
        named = {"run": run.id, "upstream_id": run.upstream_id, "status": str(run.status), "target": run.target}
        return {**named, "microusd": self.settlement.microusd}

    @property
    def joined(self) -> Iterator[SharedBy]:
        """The predictions that joined the run and cost nothing."""
        return (each for each in self.shared_by if each.source is Source.JOINED)

    @property
    def has_webhooks(self) -> bool:
        """Whether a prediction that ended with the run has a webhook."""
        return any(each.webhooks for each in self.shared_by)
