"""Runs and predictions: how they progress and end, and how they are shown and listed."""

from collections.abc import Awaitable
from typing import Protocol

import msgspec

from gateway.domain.cursors import Cursor
from gateway.domain.ledger import Settlement
from gateway.domain.records import Cancellation, Kind, Page, Prediction, PredictionView, Run, Status
from gateway.domain.run_end import RunEnded


class Progressed(msgspec.Struct, frozen=True):
    """The step moved the run forward, and the run has not ended."""

    run: Run
    """As it is after the step."""


class Unchanged(msgspec.Struct, frozen=True):
    """The step changed nothing: all of it was known, or older than what is known."""


AdvanceOutcome = Progressed | RunEnded | Unchanged
"""What recording a snapshot of a run did."""


class Recorded(msgspec.Struct, frozen=True):
    """The starter of a created run, as it is recorded."""

    view: PredictionView
    ended: RunEnded | None = None
    """The end of the run, if this step has recorded it."""


class Predictions(Protocol):
    """Runs, and the predictions that share them."""

    def record_created(
        self, run: Run, prediction: Prediction, settlement: Settlement | None = None
    ) -> Awaitable[Recorded]:
        """Turn the intent of the same id into `run` (state `live` or `ended`); `prediction` replaces its starter.

        Durable. One step: a prediction of the run is never visible without the run. The starter's id (upstream's, not
        the placeholder's), time, ticket and deadline are those of `prediction`; the run's `leader_id` and the
        idempotency key point to it. All ids of the run resolve from then on. A run that has ended is settled in the
        same step (see `advance`), which returns its end.

        Return the starter and its run as they are recorded. If `advance` was faster than the create's answer, the run
        is further on than `run`. A repeat with the same values changes nothing and returns what is recorded. Raises
        `gateway.errors.Conflict` if the id, upstream's or the prediction's, belongs to another run.
        """
        ...

    async def discard_intent(self, run_id: str) -> None:
        """Delete an intent, its predictions and their idempotency keys: upstream refused it, or it was never sent.

        Kept. The same step releases what was reserved for it. Does nothing if the run is not an intent.
        """
        ...

    def advance(
        self,
        run_id: str,
        *,
        status: Status,
        document: bytes,
        stream_url: str | None,
        at: float,
        cache_until: float | None = None,
        settlement: Settlement | None = None,
    ) -> Awaitable[AdvanceOutcome]:
        """Record what upstream says of a run: keep `document`, move the status forward, end the run at `at`. Kept.

        One step compares and sets: nothing changes when the run has ended, or when `status` ranks below the known one.
        `stream_url` of `None` keeps the known one. `cache_until` is kept when the change ends the run with `succeeded`
        and it has a fingerprint.

        A terminal status ends the run. That is durable, and the same step settles it: the reservation is released; the
        ledger gets one line with the cost (`settlement`; zero if it is `None`, what was reserved if it is
        `at_estimate`), paid by the team that started the run, and one line for each prediction that joined it, with the
        same amount as saved; all sums change with the lines; the `completed` webhooks are queued. No run is settled
        twice.

        Returns `Progressed` or `RunEnded` with what is recorded now, or `Unchanged`, also if all of it was known.
        """
        ...

    async def mark_unreadable(self, run_id: str, since: float | None) -> None:
        """Record since when upstream's answers about a live run cannot be read. Kept.

        `None` clears it, as does an `advance` that moves the run forward.
        """
        ...

    async def ended_run(self, run_id: str) -> RunEnded | None:
        """Find the end of a run, as the step that ended it returned it. `None` while it has not ended.

        For an end whose step was done and its answer lost.
        """
        ...

    async def cancel(
        self, prediction_id: str, at: float, *, by_deadline: bool = False, is_repeated: bool = False
    ) -> Cancellation | None:
        """End a prediction for its caller, and tell whether it was the last of its run that anyone waited for. Kept.

        By its caller it ends as `canceled`; `by_deadline` as `aborted` while the run's status is `starting`.

        One step decides all of it. A prediction that was cancelled before, or whose run has ended, stays as it is
        (`changed` false). `is_last` is true for exactly one call in a run's life, which also sets the run's
        `cancel_asked_at`. `None` for an unknown id, and for one that nobody has seen yet. A large document is left out
        of the view (`PredictionView.left_out`).

        A call whose answer was lost can be repeated with the same `at` and `is_repeated`. If it was recorded, the
        answer is that of the first call, with the run as it is now.
        """
        ...

    async def prediction(self, prediction_id: str, *, most_bytes: int | None = None) -> PredictionView | None:
        """Find a prediction of any team by its id. The caller of this method checks who may see it.

        If the run's document and request have more than `most_bytes`, they are left out: see `PredictionView.left_out`.
        """
        ...

    async def prediction_by_ticket(self, ticket_sha256: str) -> PredictionView | None:
        """Find the prediction whose `ticket` is this one (hex SHA-256). An empty one finds nothing.

        A document larger than `LARGE_DOCUMENT` is left out.
        """
        ...

    async def predictions(
        self,
        *,
        team: str | None,
        kind: Kind,
        limit: int,
        owner: str | None = None,
        max_bytes: int | None = None,
        position: Cursor | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
    ) -> Page:
        """List predictions of a kind, newest first by `created_at`, then id. `team` of `None` means all teams.

        `owner` lists only those of one owner in the team; `None` means all.

        A page ends before the item with which its records would pass `max_bytes`, but has one item at least. If that
        one alone passes it, its document is left out.

        `created_after` is inclusive, `created_before` exclusive. Served from an index: its cost follows `limit`.
        """
        ...

    async def owns_upstream_id(self, upstream_id: str) -> bool:
        """Return whether a run has this upstream id."""
        ...

    async def open_runs(self, *, after: str = "", limit: int = 500) -> list[Run]:
        """List runs that are `intended` or `live`, by run id, beginning after `after`. Used at the start.

        At most `limit`, and fewer if their documents are large, but one at least while there are more.
        """
        ...

    async def runs_to_clear(self, ended_before: float, now: float, limit: int) -> list[Run]:
        """List ended runs whose data is still kept (`data_removed` false), oldest end first.

        Runs that may still answer requests (`now < cache_until`) are left out: their data goes
        when their time as a cache entry is over. Fewer than `limit` if their documents are large.
        """
        ...

    async def clear_data(self, run_id: str, document: bytes) -> None:
        """Replace an ended run's document by one without data, drop its request and its event log.

        Mark it `data_removed`. One step.
        """
        ...

    async def delete_records(self, created_before: float, limit: int) -> int:
        """Delete at most `limit` predictions older than that whose runs have ended, and runs left without any.

        The event logs of such runs go with them.

        Return how many predictions were deleted, so that the caller can go on in small steps.
        """
        ...
