"""Records, with defaults for the fields that a test does not name."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gateway.domain.admission_record import Admitted
from gateway.domain.ledger import Settlement
from gateway.domain.quota import ReservationRequest
from gateway.domain.records import File, Key, Kind, Prediction, PredictionView, Run, RunState, Source, Status
from gateway.domain.run_end import RunEnded, SharedBy
from gateway.domain.webhook_places import WebhookPlace
from gateway.predictions.ports.predictions import AdvanceOutcome, Unchanged
from gateway.predictions.ports.sharing import (
    FinishedRuns,
    Hit,
    Idempotency,
    Joined,
    OpenRuns,
    Replayed,
    ShareOutcome,
    ShareRequest,
    Sharing,
    Started,
    StartOutcome,
)
from gateway.store.interface import Store
from gateway.store.sqlite import SQLiteStore

NOW = 1_764_000_000.25


def intent(run_id: str = "run1", **fields: Any) -> Run:
    given: dict[str, Any] = {
        "id": run_id,
        "kind": Kind.PREDICTION,
        "team": "red",
        "key_id": "k1",
        "target": "acme/toy",
        "path": "/predictions",
        "request": b'{"input":{}}',
        "intended_at": NOW,
    }
    return Run(**given | fields)


def live(run_id: str = "run1", **fields: Any) -> Run:
    given: dict[str, Any] = {
        "state": RunState.LIVE,
        "upstream_id": f"up{run_id}",
        "live_at": NOW + 1,
        "document": b'{"status":"starting"}',
        # The leader of `run1` or `r1` is `p1`.
        "leader_id": re.sub(r"^r(un)?(?=\d)", "p", run_id),
    }
    return intent(run_id, **given | fields)


def ended(run_id: str = "run1", at: float = NOW + 9, **fields: Any) -> Run:
    given: dict[str, Any] = {
        "state": RunState.ENDED,
        "status": Status.SUCCEEDED,
        "document": b'{"output":1}',
        "ended_at": at,
    }
    return live(run_id, **given | fields)


def prediction(prediction_id: str = "p1", run_id: str = "run1", **fields: Any) -> Prediction:
    given: dict[str, Any] = {
        "id": prediction_id,
        "run_id": run_id,
        "kind": Kind.PREDICTION,
        "team": "red",
        "key_id": "k1",
        "source": Source.MISS,
        "created_at": NOW,
        "ticket": f"ticket-{prediction_id}",
        "ticket_expires_at": NOW + 3600,
        "ticket_origins": ("https://app.example.com", "https://b.example"),
    }
    return Prediction(**given | fields)


def key(key_id: str = "k1", **fields: Any) -> Key:
    given: dict[str, Any] = {
        "id": key_id,
        "team": "red",
        "name": f"name-{key_id}",
        "sha256": f"sha-{key_id}",
        "created_at": NOW,
    }
    return Key(**given | fields)


def file(file_id: str = "f1", **fields: Any) -> File:
    given: dict[str, Any] = {
        "id": file_id,
        "team": "red",
        "key_id": "k1",
        "sha256": f"sha-{file_id}",
        "size": 3,
        "created_at": NOW,
        "expires_at": NOW + 86400,
        "upstream_id": file_id,
        "document": b'{"id":"f"}',
    }
    return File(**given | fields)


@dataclass(frozen=True)
class Wish:
    """A prediction that is asked for, and the intent that is recorded if it starts a run."""

    request: ShareRequest
    run: Run
    reservation: ReservationRequest | None = None
    admitted: Admitted | None = None

    async def share(self, store: Sharing) -> ShareOutcome:
        """Share a run, if there is one."""
        return await store.share(self.request)

    async def start(self, store: Sharing) -> StartOutcome:
        """Start a run, unless there is one to share."""
        return await store.start(self.request, self.run, reservation=self.reservation, admitted=self.admitted)


def wish(
    name: str = "1",
    *,
    fingerprint: str | None = None,
    provisional: str | None = None,
    now: float = NOW,
    may_hit: bool = True,
    may_join: bool = True,
    ended_since: float = 0.0,
    idempotency: Idempotency | None = None,
    webhook_place: WebhookPlace | None = None,
    unnamed_version: str | None = None,
    reservation: ReservationRequest | None = None,
    admitted: Admitted | None = None,
    run: dict[str, Any] | None = None,
    prediction_: dict[str, Any] | None = None,
) -> Wish:
    """Return the command for prediction `p<name>`, with run `run<name>`; it may hit and join as its identity allows."""
    is_shared = fingerprint is not None or provisional is not None
    request = ShareRequest(
        prediction=prediction(**{"prediction_id": f"p{name}", "run_id": f"run{name}"} | (prediction_ or {})),
        now=now,
        may_hit=FinishedRuns(fingerprint, ended_since) if may_hit and fingerprint is not None else None,
        may_join=OpenRuns(fingerprint, provisional) if may_join and is_shared else None,
        idempotency=idempotency,
        webhook_place=webhook_place,
        unnamed_version=unnamed_version,
    )
    intended = replace(intent(f"run{name}", fingerprint=fingerprint, provisional=provisional), **run or {})
    return Wish(request, intended, reservation, admitted)


async def share(store: Sharing, name: str, **fields: Any) -> ShareOutcome:
    """Ask for a prediction on a run that exists; the fields are those of `wish`."""
    return await wish(name, **fields).share(store)


async def start(store: Sharing, name: str = "1", **fields: Any) -> StartOutcome:
    """Ask for a prediction, on a run of its own unless there is one to share."""
    return await wish(name, **fields).start(store)


def idempotency(key_: str = "key", body: str = "body", expires_at: float = NOW + 86400) -> Idempotency:
    return Idempotency(key_, body, expires_at)


async def lead(store: Store, name: str = "1", **fields: Any) -> Run:
    """Begin a prediction that starts a run; return the recorded intent."""
    outcome = await start(store, name, **fields)
    assert isinstance(outcome, Started)
    return outcome.view.run


async def go(store: Store, name: str = "1", **fields: Any) -> Run:
    """Start a run and record its creation upstream: prediction `up<name>` on a live run, which is returned."""
    await lead(store, name, **fields)
    await store.record_created(live(f"run{name}"), prediction(f"up{name}", f"run{name}"))
    run = await store.run(f"run{name}")
    assert run is not None
    return run


async def finish(
    store: Store, name: str = "1", at: float = NOW + 9, cache_until: float | None = NOW + 1000, **fields: Any
) -> Run:
    """End a run that is live."""
    given = {"status": Status.SUCCEEDED, "document": b"done", "stream_url": None}
    outcome = await store.advance(f"run{name}", at=at, cache_until=cache_until, **given | fields)
    assert isinstance(outcome, RunEnded)
    return outcome.run


def moved(outcome: AdvanceOutcome) -> Run:
    """Return the run that a step has moved forward."""
    assert not isinstance(outcome, Unchanged)
    return outcome.run


def run_ended(run: Run, *sharers: Prediction, settlement: Settlement | None = None) -> RunEnded:
    """Make the end of a run that these predictions share."""
    shared_by = [
        SharedBy(
            team=team,
            source=source,
            predictions=len(group),
            waiting=sum(each.canceled_at is None for each in group),
            webhooks=sum(each.canceled_at is None and each.webhook is not None for each in group),
        )
        for team, source in dict.fromkeys((each.team, each.source) for each in sharers)
        for group in [[each for each in sharers if (each.team, each.source) == (team, source)]]
    ]
    return RunEnded(
        run=run,
        settlement=settlement or Settlement(at=run.ended_at or run.intended_at),
        shared_by=tuple(shared_by),
        prediction_ids=tuple(each.id for each in sharers),
    )


async def join(store: Store, name: str, fingerprint: str = "F", **fields: Any) -> Joined:
    """Ask for a prediction that joins an open run."""
    outcome = await share(store, name, fingerprint=fingerprint, **fields)
    assert isinstance(outcome, Joined)
    return outcome


def view_of(outcome: StartOutcome | ShareOutcome) -> PredictionView:
    """Return the prediction that a request was answered with, and its run."""
    assert isinstance(outcome, Hit | Joined | Replayed | Started)
    return outcome.view


def make_store(folder: Path) -> None:
    """Create an empty store, as the first start does; commands that read create none."""

    async def create() -> None:
        store = SQLiteStore(folder / "gateway.db")
        await store.open()
        await store.close()

    asyncio.run(create())
