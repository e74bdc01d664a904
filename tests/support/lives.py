"""The services as `app.py` puts them together, on a real store, in lives that end without a goodbye.

Between them and the store stands a gate. While it is held, steps wait in their order: a write is not done before it is
let through, a read is done at once and its answer held. So the test decides what overtakes what, as two threads do.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from gateway.access.policy import Policy
from gateway.domain.keyed_digest import KeyedDigest
from gateway.domain.ports.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.models.schemas import SchemaService
from gateway.models.versions import VersionMap
from gateway.money.limit_queue import LimitQueue
from gateway.money.pricing import Pricing
from gateway.outputs.lifetime import ResultLifetime
from gateway.predictions.create import CreateService
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.hits import HitRecorder
from gateway.predictions.in_flight import PendingCreates
from gateway.predictions.joining import JoinService
from gateway.predictions.new_records import NewRecords
from gateway.predictions.outgoing import OutgoingBodies
from gateway.predictions.ports.sharing import Hit, ShareRequest
from gateway.predictions.queries import PredictionService
from gateway.predictions.rules import adoption
from gateway.predictions.run_creator import RunCreator
from gateway.predictions.run_identity import RunIdentities
from gateway.predictions.run_recorder import RunRecorder
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.tracker import Tracker
from gateway.runtime.live import LiveSettings
from gateway.sharing.identity import IdentityService
from gateway.sharing.rules.determinism import Policy as SharingPolicy
from gateway.sharing.settings import SharingSettings
from gateway.store.interface import Store
from tests.support.fake_upstream import FakeUpstream, Line
from tests.support.live import money
from tests.support.observer import RecordingObserver
from tests.support.output_inputs import NoOutputs

_READS = frozenset(
    {
        "prediction",
        "prediction_by_ticket",
        "predictions",
        "owns_upstream_id",
        "open_runs",
        "ended_run",
        "run",
        "shared_run",
        "predictions_of",
        "deadlines",
        "model_of",
        "files_among",
        "meters",
    }
)
ADOPT_WAIT_SECONDS = 0.0


class Gate:
    """The store as the services see it."""

    def __init__(self, store: Store) -> None:
        self.real = store
        self.is_held = False
        self.is_cut = False
        self.unheard: dict[str, int] = {}
        """Steps that are done although the caller gets a time-out, and how many calls of each are answered before."""
        self._waiting: list[tuple[bool, asyncio.Future[None]]] = []

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        method, is_read = getattr(self.real, name), name in _READS

        async def step(*args: Any, **more: Any) -> Any:
            if self.is_cut:
                await asyncio.Event().wait()
            if name in self.unheard:
                self.unheard[name] -= 1
                if self.unheard[name] < 0:
                    await method(*args, **more)
                    raise StoreUnavailable("The store did not answer in time.")
            if not self.is_held:
                return await method(*args, **more)
            if is_read:
                answer = await method(*args, **more)
                await self._turn(is_read=True)
                return answer
            await self._turn(is_read=False)
            return await method(*args, **more)

        return step

    def record_hits(self, requests: Sequence[ShareRequest]) -> asyncio.Future[list[Hit | None]]:
        """Record hits: the one step that is no coroutine."""
        return asyncio.ensure_future(self.__getattr__("record_hits")(requests))

    async def _turn(self, *, is_read: bool) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((is_read, turn))
        await turn

    @property
    def waiting(self) -> int:
        """How many steps are held."""
        return len(self._waiting)

    def let(self, *, write_first: bool) -> None:
        """Let the oldest step through, or the oldest write past the reads before it."""
        writes = [index for index, (is_read, _) in enumerate(self._waiting) if not is_read]
        _, turn = self._waiting.pop(writes[0] if write_first and writes else 0)
        if not turn.done():
            turn.set_result(None)


class Life:
    """One process' worth of services."""

    def __init__(self, store_: Store, upstream: FakeUpstream, clock: Clock) -> None:
        self.store = store_
        self.gate = Gate(self.store)
        self.line = Line(upstream)
        store: Any = self.gate
        observer = RecordingObserver()
        versions = VersionMap(store, self.line)
        self.schemas = SchemaService(self.line, clock)
        sharing = LiveSettings(SharingSettings(policy=SharingPolicy(), share="team", ttl_seconds=3600.0))
        identities = IdentityService(self.schemas, versions, sharing)
        lifetime = ResultLifetime(identities.ttl_of, copies_ttl_seconds=3600.0)
        self.pricing = Pricing(money(), observer)
        events = PredictionEvents(clock, observer)
        self.tracker = Tracker(
            store,
            self.line,
            clock,
            events,
            observer,
            requests_per_minute=lambda: 3000.0,
            keep_until=lifetime.keep_until,
            settlement_of=self.pricing.settlement,
        )
        secret = b"s" * 32
        settings = LiveSettings(
            PredictionSettings(
                adopt_wait_seconds=ADOPT_WAIT_SECONDS, ticket_ttl_seconds=86_400.0, memory_bytes=1_000_000
            )
        )
        self.predictions = PredictionService(
            store, self.tracker, clock, events, observer, ticket_secret=secret, settings=settings
        )
        events.add_ended_listener(Listener.PREDICTIONS, self.predictions.on_run_ended)
        self.deadlines = Deadlines(store, clock, self.predictions.expire)
        run_identities = RunIdentities(store, self.tracker, identities, versions, keep_until=lifetime.keep_until)
        digest = KeyedDigest(secret, "inputs")
        pending_creates = PendingCreates(partial(adoption.may_be_equal, digest=digest))
        recorder = RunRecorder(
            store,
            self.tracker,
            run_identities,
            self.deadlines,
            pending_creates,
            clock,
            events,
            observer,
            ticket_secret=secret,
            keep_until=lifetime.keep_until,
            settlement_of=self.pricing.settlement,
        )
        self.run_creator = RunCreator(
            store, self.line, recorder, run_identities, pending_creates, clock, observer, settings, digest=digest
        )
        self.limit_queue = LimitQueue(store, clock, observer)
        hits = HitRecorder(store, events, observer, observer)
        events.add_ended_listener(Listener.HITS, hits.on_run_ended)
        self.creates = CreateService(
            store,
            self.run_creator,
            JoinService(store, self.tracker, self.run_creator, run_identities, clock, settings),
            Policy(versions, store, clock, "https://upstream.invalid/v1"),
            identities,
            clock,
            observer,
            hits=hits,
            records=NewRecords(clock, settings, ticket_secret=secret),
            outputs=NoOutputs(),
            bodies=OutgoingBodies(self.schemas, NoOutputs(), digest),
            pricing=self.pricing,
            limit_queue=self.limit_queue,
            money=observer,
            teams=LiveSettings({}),
        )

    async def begin(self) -> None:
        """Open the store and take up what is there."""
        await self.store.open()
        await self.run_creator.adopter.resume()
        await self.tracker.resume()
        await self.deadlines.resume()
        self._keeping = asyncio.create_task(self.deadlines.run())

    async def die(self) -> None:
        """End as a killed process does: what is in the store stays, and nothing else is said to anybody."""
        self.gate.is_cut = self.line.is_cut = True
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        await self.store.close()

    async def quiet(self) -> None:
        """Let everything happen that can happen without time passing or a step being let through."""
        loop: Any = asyncio.get_running_loop()
        calm = 0
        while calm < 2:
            await asyncio.sleep(0)
            timers = [timer for timer in loop._scheduled if not timer.cancelled() and timer.when() <= loop.time()]
            if self.store.pending:
                await asyncio.sleep(0.0002)
            calm = calm + 1 if not loop._ready and not timers and not self.store.pending else 0
