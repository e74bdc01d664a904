"""A tracker, and an upstream whose run is in a state, on fakes."""

import json
from typing import Any, cast

from gateway.domain.records import Run
from gateway.domain.run_end import RunEnded
from gateway.domain.upstream_response import Answer
from gateway.errors import StoreUnavailable
from gateway.predictions.events import PredictionEvents
from gateway.predictions.ports.predictions import AdvanceOutcome
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.tracker import Tracker
from tests.support.clock import START, ManualClock
from tests.support.fakes import Call, FakeObserver, FakeStore, FakeUpstream, answer, free
from tests.support.records import live


def said(status: str, **fields: object) -> bytes:
    return json.dumps({"id": "uprun1", "status": status, **fields}).encode()


def never_kept(run: Run, document: bytes, at: float) -> None:
    """Nothing is kept for later requests here."""


class Replicate:
    """An upstream whose run is in a state; `trouble` is answered or raised instead while it is set."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self.body = said("starting")
        self.trouble: int | Exception | None = None
        self.cancel: int | Exception = 200
        upstream.script = self.answer

    def answer(self, call: Call) -> Answer:
        said_ = self.cancel if call.method == "POST" else self.trouble
        if isinstance(said_, Exception):
            raise said_
        return answer(said_ or 200, self.body)

    @property
    def reads(self) -> int:
        return self.upstream.count("predictions.get")

    @property
    def cancels(self) -> int:
        return self.upstream.count("predictions.cancel")


def make_tracker(
    store: FakeStore,
    upstream: FakeUpstream,
    clock: ManualClock,
    observer: FakeObserver,
    events: PredictionEvents | None = None,
    **settings: Any,
) -> Tracker:
    return Tracker(
        cast(CreateStore, store),
        upstream,
        clock,
        events or PredictionEvents(clock, observer),
        observer,
        requests_per_minute=lambda: 3000.0,
        keep_until=never_kept,
        settlement_of=free,
        **settings,
    )


class ForgetfulStore(FakeStore):
    """Writes the end, and does not get to say so: the connection, or the time, was over first."""

    async def advance(self, run_id: str, **news: Any) -> AdvanceOutcome:
        outcome = await super().advance(run_id, **news)
        if isinstance(outcome, RunEnded):
            raise StoreUnavailable("The gateway's store did not answer in time.")
        return outcome


def asked(store: FakeStore, run: Run) -> Run:
    store.runs[run.id] = changed = live(intended_at=START, live_at=START, cancel_asked_at=START)
    return changed
