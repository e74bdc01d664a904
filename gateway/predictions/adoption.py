"""Adoption: the runs of uncertain creates are searched for upstream and recorded.

See docs/architecture.md, Invariants 8 and Create.

A create is never sent again. Instead upstream's list is read, from the newest back to the time of the intent, for an
equal run that no other run of the gateway owns. If it is found, it is recorded as if the create had been answered. If
it is not found in `_SEARCH_SECONDS`, the intent is discarded and counted. A page that is too large to be read, because
of the inputs of others, is read in parts: by time of creation.

Secret values cannot be compared. A run that is equal but for those is adopted only if it is the only one, and no other
create in progress can be its own.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import msgspec
from msgspec.structs import replace

from gateway.domain import documents, large_bytes
from gateway.domain.documents import Snapshot
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import PredictionObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import Run, RunState
from gateway.errors import Conflict, GatewayError, UpstreamTooLarge, UpstreamUnavailable
from gateway.models.rules.secrets import Digest
from gateway.predictions.equal_creates import EqualCreates
from gateway.predictions.in_flight import NotSent, PendingCreate, PendingCreates
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.rules import adoption, create_outcomes
from gateway.predictions.rules.adoption import Fit, Sought
from gateway.predictions.sweep import Sweep, query_of, read_listed, read_page
from gateway.runtime.pauses import off_the_loop
from gateway.runtime.sleep import sleep_until_event
from gateway.runtime.tasks import Tasks

logger = logging.getLogger(__name__)

_SEARCH_SECONDS = 600.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_PAUSE_PER_PAGE = 0.5
"""Seconds between sweeps for each page that was read: at most 120 reads a minute, whatever happens."""
_MAX_PAGES = 20
_MAX_PAGES_TO_RELEASE = 1000
"""Pages of a sweep after which intents may be released: it has to reach back to them. An account that creates 600 runs
a minute has about 60 pages in ten minutes."""
_SHORTEST_WINDOW = 1.0
"""Seconds of a list that are not divided further if they cannot be read."""
_STORE_PAGE = 20
_MATCHED_AT_ONCE = 100
"""Listed runs after which others are served: Replicate's pages have 100."""
_LARGE_REQUEST = 64 * 1024

Adopt = Callable[[Run, Snapshot], Awaitable[None]]
"""Records a found run as created. Raises `Conflict` if another run owns it already."""

TakeUp = Callable[[Run], Awaitable[None]]
"""Goes on with a run that is recorded although the store's answer was lost."""


def _are_due(runs: list[Run], now: float) -> bool:
    return any(now > run.intended_at + _SEARCH_SECONDS for run in runs)


class Adopter:
    """Searches for the runs of uncertain creates: one search for all of them."""

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
        *,
        is_shared: bool = False,
    ) -> None:
        """Take `on_released`, called with the id of a run that is given up, and if other nodes share the store."""
        self._store = store
        self._upstream = upstream
        self._pending_creates = pending_creates
        self._clock = clock
        self._observer = observer
        self._adopt = adopt
        self._take_up = take_up
        self._digest = digest
        self._on_released = on_released
        self._sought = Sought()
        self._equal = EqualCreates(pending_creates, self._sought.__contains__, store if is_shared else None)
        self._not_released_before: dict[str, float] = {}
        """By intent: the search after which it is released begins later, because a node may still send the create."""
        self._has_new = asyncio.Event()
        self._sweeper: asyncio.Task[None] | None = None
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

    def search(self, run: Run, *, not_released_before: float = 0.0) -> PendingCreate:
        """Search for an intent's run in the background.

        Return its pending create, which is uncertain from now on and resolved when the search ends. The intent is
        released only after a search that began later than `not_released_before`.
        """
        known = self._not_released_before.get(run.id, 0.0)
        self._not_released_before[run.id] = max(known, not_released_before)
        pending = self._pending_creates.start(run)
        pending.turn_uncertain()
        if run.id not in self._sought:
            # The store has the request. In memory, large ones of many creates would have no bound.
            request = run.request
            if len(request) > _LARGE_REQUEST:
                run = pending.run = replace(run, request=b"")
            self._sought.add(run, request)
            self._has_new.set()
            if self._sweeper is None or self._sweeper.done():
                self._sweeper = self._tasks.spawn(self._sweep_until_done(), "adoption")
        return pending

    def drop(self) -> list[Run]:
        """Search no more, and write nothing: the intents are another node's. Return those that were searched for."""
        dropped = self._sought.runs()
        for run in dropped:
            self._end(run)
        return dropped

    @property
    def searching(self) -> int:
        """Number of creates whose runs are searched for."""
        return len(self._sought)

    async def close(self) -> None:
        """Stop searching; the next start continues."""
        await self._tasks.close(0.0)

    async def _sweep_until_done(self) -> None:
        pause = _FIRST_PAUSE
        while self._sought:
            self._has_new.clear()
            pages = await self._sweep()
            least = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, pages * _PAUSE_PER_PAGE))
            await self._clock.sleep(least)
            if pause > least and not self._has_new.is_set():
                await sleep_until_event(self._clock, pause - least, self._has_new)
            pause = _FIRST_PAUSE if self._has_new.is_set() else min(pause * 2, _LONGEST_PAUSE)

    async def _sweep(self) -> int:
        """Read upstream's lists once for all intents. Return how many pages were read."""
        began, pages = self._clock.now(), 0
        wanted: dict[documents.Family, list[Run]] = {}
        for run in self._sought.runs():
            with self._surviving(run):
                if await self._is_wanted(run):
                    wanted.setdefault(documents.family_of(run.kind), []).append(run)
        for family, runs in wanted.items():
            sweep = Sweep(family, min(run.intended_at for run in runs) - adoption.CLOCK_SKEW_SECONDS)
            most = _MAX_PAGES_TO_RELEASE if _are_due(runs, began) else _MAX_PAGES
            try:
                try:
                    await self._read_list(sweep, most)
                except UpstreamTooLarge:
                    if family != "predictions":
                        raise
                    await self._read_in_windows(sweep, most)
            except GatewayError as exc:
                logger.warning("orphans could not be looked for", extra={"runs": len(runs), "reason": exc.detail})
            except Exception:
                # The intents hold money until the search ends them.
                logger.exception("the search for orphans failed", extra={"runs": len(runs)})
            pages += sweep.pages
            for run in runs:
                with self._surviving(run):
                    await self._conclude(run, sweep, began)
        return pages

    async def _is_wanted(self, run: Run) -> bool:
        """Return whether upstream's list can tell about an intent. End its search if it is settled already."""
        known = await self._store.run(run.id)
        if known is None:
            # Nothing was sent for it after all: that is the one reason to discard an intent while it is searched for.
            self._end(run)
            self._pending_creates.resolve(run.id, NotSent(UpstreamUnavailable("The prediction was not sent.")))
            return False
        if known.state is not RunState.INTENDED:
            # The record was written, and the store's answer came too late.
            await self._take_up(known)
            self._end(run)
            return False
        return True

    async def _read_in_windows(self, sweep: Sweep, max_pages: int) -> None:
        """Read the rest of a list in parts, the newest first. A part that cannot be read is halved.

        Replicate's list of predictions takes times of creation; its list of trainings does not.
        """
        windows: list[tuple[float, float | None]] = [
            (sweep.back_to - _SHORTEST_WINDOW, None if sweep.reached == math.inf else sweep.reached + _SHORTEST_WINDOW)
        ]
        while windows and sweep.pages < max_pages:
            after, before = windows.pop()
            try:
                if not await self._read_list(sweep, max_pages, (after, before)):
                    return
                sweep.reached = after
                continue
            except UpstreamTooLarge:
                sweep.pages += 1
            until = self._clock.now() + adoption.CLOCK_SKEW_SECONDS if before is None else before
            if until - after > _SHORTEST_WINDOW:
                middle = (after + until) / 2
                windows += [(after, middle), (middle, before)]
            else:
                sweep.unread_until = max(sweep.unread_until, until)
                sweep.reached = after
                logger.warning("a part of upstream's list is too large to be read", extra={"until": until})

    async def _read_list(self, sweep: Sweep, max_pages: int, window: tuple[float, float | None] | None = None) -> bool:
        """Read a list from the newest run back to the oldest intent, and adopt what fits. Return whether all was read.

        `window` bounds the times of creation; without an end, it reaches to the newest run.
        """
        query = "" if window is None else query_of(*window)
        while sweep.pages < max_pages:
            answer = await self._upstream.read(f"{sweep.family}.list", f"/{sweep.family}", query=query)
            sweep.pages += 1
            if not answer.is_ok:
                return False
            try:
                page = await off_the_loop(answer.body, partial(read_page, answer.body))
            except (msgspec.MsgspecError, RecursionError):
                return False
            for number, result in enumerate(page.results):
                if number % _MATCHED_AT_ONCE == _MATCHED_AT_ONCE - 1:
                    await asyncio.sleep(0)
                document = large_bytes.copied(result)
                snapshot = await off_the_loop(document, partial(read_listed, document))
                if snapshot is not None:
                    sweep.reached = sweep.reached if snapshot.created_at is None else snapshot.created_at
                    await self._match(sweep, snapshot)
            if page.next is None and window is None:
                sweep.reached = 0.0
            if page.next is None or sweep.reached < sweep.back_to:
                return True
            query = page.next.partition("?")[2]
        if max_pages == _MAX_PAGES_TO_RELEASE and window is None:
            logger.error("upstream's list is too long to search it to its end", extra={"pages": sweep.pages})
            sweep.reached = 0.0
        return False

    async def _match(self, sweep: Sweep, snapshot: Snapshot) -> None:
        """Adopt a listed run for the first intent that it fits."""
        candidates = self._sought.candidates(snapshot)
        if not candidates or await self._store.owns_upstream_id(snapshot.upstream_id):
            return
        for run in candidates:
            with self._surviving(run):
                if (whole := await self._whole(run)) is None:
                    continue
                fit = adoption.fits(whole, snapshot, self._digest)
                if fit is Fit.LIKELY:
                    sweep.note_likely(run, snapshot)
                elif fit is Fit.EXACT:
                    if await self._take(whole, snapshot):
                        return
                    if await self._is_disputed(whole, snapshot):
                        sweep.disputed.add(run.id)

    async def _whole(self, run: Run) -> Run | None:
        """Return an intent with its request; `None` if it is an intent no more."""
        if run.request:
            return run
        known = await self._store.run(run.id)
        return known if known is not None and known.state is RunState.INTENDED else None

    async def _conclude(self, run: Run, sweep: Sweep, began: float) -> None:
        """After a sweep that reached back to an intent: adopt a likely run, or give up if it is time."""
        since = run.intended_at - adoption.CLOCK_SKEW_SECONDS
        if run.id not in self._sought or sweep.reached >= since or sweep.unread_until > since:
            return
        likely = sweep.likely.get(run.id, {})
        if await self._take_only(run, likely) or began <= run.intended_at + _SEARCH_SECONDS:
            return
        if began <= self._not_released_before.get(run.id, 0.0):
            return
        if run.id in sweep.disputed:
            return
        await self._give_up(run)

    def _end(self, run: Run) -> None:
        self._sought.remove(run)
        self._ambiguous.discard(run.id)
        self._not_released_before.pop(run.id, None)

    @contextmanager
    def _surviving(self, run: Run) -> Iterator[None]:
        """Log a failure that concerns one intent. The next sweep tries again."""
        try:
            yield
        except GatewayError as exc:
            logger.warning("an orphan could not be looked for", extra={"run": run.id, "reason": exc.detail})
        except Exception:
            logger.exception("the search for an orphan failed", extra={"run": run.id})

    async def _take_only(self, run: Run, likely: Mapping[str, Snapshot]) -> bool:
        """Adopt the one run that is equal but for secret values, if nothing else can explain it."""
        if not likely and not self._sought.hides(run):
            return False
        whole = await self._whole(run)
        if whole is None:
            return False
        run = whole
        if not await self._equal.is_only(run):
            # For good: the run can still belong to the other create when that has been given up.
            self._ambiguous.add(run.id)
        if not likely or run.id in self._ambiguous:
            return False
        free = [each for each in likely.values() if not await self._store.owns_upstream_id(each.upstream_id)]
        return len(free) == 1 and await self._take(run, free[0])

    async def _is_disputed(self, run: Run, snapshot: Snapshot) -> bool:
        """Whether a listed run can also belong to an equal create, whose answer is on its way."""
        created_at = math.inf if snapshot.created_at is None else snapshot.created_at
        until = created_at + adoption.CLOCK_SKEW_SECONDS
        return await self._equal.is_sending(run, until)

    async def _take(self, run: Run, snapshot: Snapshot) -> bool:
        # In this order: once the other create is resolved, its run is owned.
        if await self._is_disputed(run, snapshot) or await self._store.owns_upstream_id(snapshot.upstream_id):
            return False
        try:
            await self._adopt(run, snapshot)
        except Conflict:
            return False
        self._end(run)
        logger.warning("an orphan was adopted", extra={"run": run.id, "upstream_id": snapshot.upstream_id})
        self._observer.orphan_resolved("adopted")
        return True

    async def _give_up(self, run: Run) -> None:
        """Discard an intent whose run upstream never listed: as far as can be known, it was not created."""
        error = UpstreamUnavailable("Replicate never took the prediction.", retry_after=1)
        await self._store.discard_intent(run.id, create_outcomes.encode_error(error))
        self._end(run)
        self._pending_creates.resolve(run.id, NotSent(error))
        logger.error("an uncertain create was never found upstream", extra={"run": run.id, "team": run.team})
        self._observer.orphan_resolved("released")
        self._on_released(run.id)
