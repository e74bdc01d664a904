"""Adoption: the runs of uncertain creates are searched for upstream and recorded.

See docs/architecture.md, Invariants 8 and Create.

A create is never sent again. Instead upstream's list is read, from the newest back to the time of the intent, for an
equal run that no other run of the gateway owns. If it is found, it is recorded as if the create had been answered. If
it is not found in `_SEARCH_SECONDS`, the intent is discarded and counted.

Secret values cannot be compared. A run that is equal but for those is adopted only if it is the only one, and no other
create in progress can be its own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from msgspec import Raw

from gateway.domain import documents
from gateway.domain.documents import Snapshot
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import Run, RunState
from gateway.errors import Conflict, GatewayError, UpstreamUnavailable
from gateway.models.rules.secrets import Digest
from gateway.predictions.in_flight import NotSent, PendingCreate, PendingCreates
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import adoption
from gateway.predictions.rules.adoption import Fit
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

_SEARCH_SECONDS = 600.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_MAX_PAGES = 20
_STORE_PAGE = 500

Adopt = Callable[[Run, Snapshot], Awaitable[None]]
"""Records a found run as created. Raises `Conflict` if another run owns it already."""

TakeUp = Callable[[Run], Awaitable[None]]
"""Goes on with a run that is recorded although the store's answer was lost."""


class _Page(msgspec.Struct):
    results: list[Raw]
    next: str | None = None


class Adopter:
    """Searches for the runs of uncertain creates."""

    def __init__(
        self,
        store: CreateStore,
        upstream: Upstream,
        pending_creates: PendingCreates,
        clock: Clock,
        observer: PredictionObserver,
        adopt: Adopt,
        take_up: TakeUp,
        digest: Digest | None = None,
        on_released: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take `on_released`, which is called with the id of a run that is given up."""
        self._store = store
        self._upstream = upstream
        self._pending_creates = pending_creates
        self._clock = clock
        self._observer = observer
        self._adopt = adopt
        self._take_up = take_up
        self._digest = digest
        self._on_released = on_released
        self._searches: dict[str, asyncio.Task[None]] = {}
        self._ambiguous: set[str] = set()
        """Runs in search that were equal to another one, but for secret values."""
        self._tasks = Tasks()

    async def resume(self) -> int:
        """Search for every intent that an earlier process left behind. Return how many there are."""
        after, found = "", 0
        while runs := await self._store.open_runs(after=after, limit=_STORE_PAGE):
            after = runs[-1].id
            for run in runs:
                if run.state is RunState.INTENDED:
                    self.search(run)
                    found += 1
        return found

    def search(self, run: Run) -> PendingCreate:
        """Search for an intent's run in the background.

        Return its pending create, which is uncertain from now on and resolved when the search ends.
        """
        pending = self._pending_creates.start(run)
        pending.turn_uncertain()
        if run.id not in self._searches:
            task = self._searches[run.id] = self._tasks.spawn(self._search(run), f"adopt {run.id}")
            task.add_done_callback(lambda _: self._end(run.id))
        return pending

    def _end(self, run_id: str) -> None:
        self._searches.pop(run_id, None)
        self._ambiguous.discard(run_id)

    async def close(self) -> None:
        """Stop searching; the next start continues."""
        await self._tasks.close(0.0)

    async def _search(self, run: Run) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                if await self._find(run):
                    return None
                if self._clock.now() > run.intended_at + _SEARCH_SECONDS:
                    return await self._give_up(run)
            except GatewayError as exc:
                logger.warning("an orphan could not be looked for", extra={"run": run.id, "reason": exc.detail})
            except Exception:
                # The intent holds money until this search ends it.
                logger.exception("the search for an orphan failed", extra={"run": run.id})
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _find(self, run: Run) -> bool:
        """Read upstream's list back to the time of the intent; adopt the first run that fits and is not owned.

        Return whether the search is over.
        """
        if self._pending_creates.is_sending(run.request, run.path):
            # A run that is found now could belong to that create, whose answer is on its way.
            return False
        known = await self._store.run(run.id)
        if known is None:
            # Nothing was sent for it after all: that is the one reason to discard an intent while it is searched for.
            self._pending_creates.resolve(run.id, NotSent(UpstreamUnavailable("The prediction was not sent.")))
            return True
        if known.state is not RunState.INTENDED:
            # The record was written, and the store's answer came too late.
            await self._take_up(known)
            return True
        family = documents.family_of(run.kind)
        query = ""
        likely: dict[str, Snapshot] = {}
        for _ in range(_MAX_PAGES):
            answer = await self._upstream.read(f"{family}.list", f"/{family}", query=query)
            if not answer.is_ok:
                return False
            try:
                page = msgspec.json.decode(answer.body, type=_Page)
            except (msgspec.MsgspecError, RecursionError):
                return False
            oldest: float | None = None
            for result in page.results:
                snapshot = _snapshot(bytes(result))
                if snapshot is None:
                    continue
                oldest = snapshot.created_at
                fit = adoption.fits(run, snapshot, self._digest)
                if fit is Fit.LIKELY:
                    likely[snapshot.upstream_id] = snapshot
                elif fit is Fit.EXACT and await self._take(run, snapshot):
                    return True
            if page.next is None or (oldest is not None and oldest < run.intended_at - adoption.CLOCK_SKEW_SECONDS):
                return await self._take_only(run, likely)
            query = page.next.partition("?")[2]
        return False

    async def _take_only(self, run: Run, likely: Mapping[str, Snapshot]) -> bool:
        """Adopt the one run that is equal but for secret values, if nothing else can explain it."""
        if not self._pending_creates.is_only(run):
            # For good: the run can still belong to the other create when that has been given up.
            self._ambiguous.add(run.id)
        if not likely or run.id in self._ambiguous:
            return False
        free = [each for each in likely.values() if not await self._store.owns_upstream_id(each.upstream_id)]
        return len(free) == 1 and await self._take(run, free[0])

    async def _take(self, run: Run, snapshot: Snapshot) -> bool:
        # Checked again and in this order: an equal create may have begun before the list was read. While it is pending
        # the run may belong to it; once it is resolved, its run is owned.
        if self._pending_creates.is_sending(run.request, run.path) or await self._store.owns_upstream_id(
            snapshot.upstream_id
        ):
            return False
        try:
            await self._adopt(run, snapshot)
        except Conflict:
            return False
        logger.warning("an orphan was adopted", extra={"run": run.id, "upstream_id": snapshot.upstream_id})
        self._observer.orphan_resolved("adopted")
        return True

    async def _give_up(self, run: Run) -> None:
        """Discard an intent whose run upstream never listed: as far as can be known, it was not created."""
        await self._store.discard_intent(run.id)
        self._pending_creates.resolve(
            run.id, NotSent(UpstreamUnavailable("Replicate never took the prediction.", retry_after=1))
        )
        logger.error("an uncertain create was never found upstream", extra={"run": run.id, "team": run.team})
        self._observer.orphan_resolved("released")
        self._on_released(run.id)


def _snapshot(document: bytes) -> Snapshot | None:
    try:
        return documents.read_snapshot(document)
    except ValueError:
        return None
