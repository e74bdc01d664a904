"""Adoption: runs that upstream may have taken without our hearing of it, looked for and taken in.

See docs/architecture.md, Invariants 8 and Create.

A create is never sent again. Instead upstream's list is read, from the newest back to the time of the intent, for a run
that is equal and nobody's. Found, it is recorded as if nothing had happened; not found in `_SEARCH_SECONDS`, the intent
is given up and counted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec
from msgspec import Raw

from gateway.domain import documents
from gateway.domain.documents import Snapshot
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import AdoptionObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import Run, RunState
from gateway.errors import Conflict, GatewayError, UpstreamUnavailable
from gateway.predictions.in_flight import NotSent, PendingCreates
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import adoption

logger = logging.getLogger(__name__)

_SEARCH_SECONDS = 600.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_MAX_PAGES = 20
_STORE_PAGE = 500

Adopt = Callable[[Run, Snapshot], Awaitable[None]]
"""Records a found run as created. Raises `Conflict` if it is somebody's already."""

TakeUp = Callable[[Run], Awaitable[None]]
"""Goes on with a run that is in the store although nobody heard so."""


class _Page(msgspec.Struct):
    results: list[Raw]
    next: str | None = None


class Adopter:
    """Looks for the runs of uncertain creates."""

    def __init__(
        self,
        store: CreateStore,
        upstream: Upstream,
        pending_creates: PendingCreates,
        clock: Clock,
        observer: AdoptionObserver,
        adopt: Adopt,
        take_up: TakeUp,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._flights = pending_creates
        self._clock = clock
        self._observer = observer
        self._adopt = adopt
        self._take_up = take_up
        self._searches: dict[str, asyncio.Task[None]] = {}

    async def resume(self) -> int:
        """Look for every intent that an earlier process left behind. Return how many there are."""
        after, found = "", 0
        while runs := await self._store.open_runs(after=after, limit=_STORE_PAGE):
            after = runs[-1].id
            for run in runs:
                if run.state is RunState.INTENDED:
                    self.search(run)
                    found += 1
        return found

    def search(self, run: Run) -> None:
        """Look for an intent's run in the background. Its flight turns uncertain, and lands when the search ends."""
        self._flights.start(run).turn_uncertain()
        if run.id not in self._searches:
            task = asyncio.create_task(self._search(run), name=f"adopt {run.id}")
            self._searches[run.id] = task
            task.add_done_callback(lambda _: self._searches.pop(run.id, None))

    async def close(self) -> None:
        """Let go; the next start searches on."""
        tasks = list(self._searches.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _search(self, run: Run) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                if await self._look(run):
                    return None
                if self._clock.now() > run.intended_at + _SEARCH_SECONDS:
                    return await self._give_up(run)
            except GatewayError as exc:
                logger.warning("an orphan could not be looked for", extra={"run": run.id, "reason": exc.detail})
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _look(self, run: Run) -> bool:
        """Read upstream's list back to the time of the intent; adopt the first run that fits and is nobody's."""
        if self._flights.is_sending(run.request, run.path):
            # What is found now might be the run of that create, whose answer is on its way.
            return False
        known = await self._store.run(run.id)
        if known is not None and known.state is not RunState.INTENDED:
            # Its record was written after all, and the word of that came too late.
            await self._take_up(known)
            return True
        family = documents.family_of(run.kind)
        query = ""
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
                news = _news(bytes(result))
                if news is None:
                    continue
                oldest = news.created_at
                if adoption.fits(run, news) and await self._take(run, news):
                    return True
            if page.next is None or (oldest is not None and oldest < run.intended_at - adoption.CLOCK_SKEW_SECONDS):
                return False
            query = page.next.partition("?")[2]
        return False

    async def _take(self, run: Run, news: Snapshot) -> bool:
        # Asked again and in this order: an equal create may have begun before the list was read. As long as it flies
        # the run may be its own; once it has landed, its run is owned.
        if self._flights.is_sending(run.request, run.path) or await self._store.owns_upstream_id(news.upstream_id):
            return False
        try:
            await self._adopt(run, news)
        except Conflict:
            return False
        logger.warning("an orphan was adopted", extra={"run": run.id, "upstream_id": news.upstream_id})
        self._observer.orphan_resolved("adopted")
        return True

    async def _give_up(self, run: Run) -> None:
        """Forget an intent that upstream never showed: nothing came of it, as far as can be known."""
        await self._store.discard_intent(run.id)
        self._flights.resolve(
            run.id, NotSent(UpstreamUnavailable("Replicate never took the prediction.", retry_after=1))
        )
        logger.error("an uncertain create was never found upstream", extra={"run": run.id, "team": run.team})
        self._observer.orphan_resolved("released")


def _news(document: bytes) -> Snapshot | None:
    try:
        return documents.read_news(document)
    except ValueError:
        return None
