"""Searches for runs of intents, on fakes of the store and of upstream."""

import json
from typing import Any

from gateway.domain import times
from gateway.domain.documents import Snapshot
from gateway.domain.records import Run
from gateway.domain.upstream_response import Answer
from gateway.errors import Conflict
from gateway.predictions.adoption import Adopter
from gateway.predictions.in_flight import PendingCreates
from tests.support.clock import START, ManualClock
from tests.support.fakes import Call, FakeUpstream, answer
from tests.support.observer import RecordingObserver
from tests.support.records import intent, live
from tests.support.sharing_store import SharingStore

REQUEST = b'{"version":"acme/toy","input":{"prompt":"one"}}'


NEWEST, OLDER, OLDEST = "2025-11-24T16:00:30Z", "2025-11-24T16:00:10Z", "2025-11-24T15:50:00Z"


def listed(name: str, prompt: str = "one", created_at: str = NEWEST) -> dict[str, Any]:
    return {
        "id": name,
        "status": "starting",
        "model": "acme/toy",
        "version": "v",
        "input": {"prompt": prompt},
        "created_at": created_at,
    }


class Search:
    """An adopter, and what it asks of others."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = SharingStore()
        self.observer = RecordingObserver()
        self.upstream = FakeUpstream(self._answer)
        self.pending = PendingCreates()
        self.pages: list[list[Any]] = []
        self.error: Exception | None = None
        self.status = 200
        self.adopted: list[tuple[str, str]] = []
        self.taken_up: list[str] = []
        self.conflicts = 0
        self.adopter = Adopter(
            self.store, self.upstream, self.pending, self.clock, self.observer, self._adopt, self._take_up
        )

    def _answer(self, call: Call) -> Answer:
        if self.error is not None:
            raise self.error
        at = int(call.query.partition("=")[2] or 0)
        page = self.pages[at] if at < len(self.pages) else []
        following = f"https://upstream.invalid/v1/predictions?cursor={at + 1}" if at + 1 < len(self.pages) else None
        return answer(self.status, json.dumps({"results": page, "next": following}).encode())

    async def _adopt(self, run: Run, snapshot: Snapshot) -> None:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("It belongs to another run.")
        self.adopted.append((run.id, snapshot.upstream_id))
        self.store.runs[run.id] = live(run.id, upstream_id=snapshot.upstream_id)

    async def _take_up(self, run: Run) -> None:
        self.taken_up.append(run.id)

    def intend(self, name: str = "run1", request: bytes = REQUEST) -> Run:
        run = intent(name, request=request, intended_at=START)
        self.store.add(run)
        return run

    @property
    def reads(self) -> int:
        return self.upstream.count("predictions.list")


def at(seconds: float, name: str, prompt: str, *, is_large: bool = False) -> tuple[float, dict[str, Any], bool]:
    return START + seconds, listed(name, prompt, times.render(START + seconds)), is_large
