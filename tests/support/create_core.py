"""The services that create predictions, on fakes of their ports and a clock that stands still."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from gateway.access.policy import Policy
from gateway.domain.create_body import CreateBody
from gateway.domain.create_request import CreateCommand, CreateContext, Created
from gateway.domain.keyed_digest import KeyedDigest
from gateway.domain.records import Kind, PredictionView, Run, Status
from gateway.domain.scopes import Scope
from gateway.domain.targets import Target, parse_version
from gateway.domain.teams import Caller, Team, Teams
from gateway.domain.upstream_response import Answer
from gateway.models.schemas import SchemaService
from gateway.models.versions import VersionMap
from gateway.money.limit_queue import LimitQueue
from gateway.money.pricing import Pricing
from gateway.money.rules.pricing import PriceList, UnknownPolicy
from gateway.nodes.membership import Membership
from gateway.predictions.create import CreateService
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.hits import HitRecorder
from gateway.predictions.in_flight import PendingCreates
from gateway.predictions.joining import JoinService
from gateway.predictions.new_records import NewRecords
from gateway.predictions.outgoing import OutgoingBodies
from gateway.predictions.rules import adoption
from gateway.predictions.run_creator import RunCreator
from gateway.predictions.run_identity import RunIdentities
from gateway.predictions.run_recorder import RunRecorder
from gateway.predictions.secret_values import SecretValues
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.tracker import Tracker
from gateway.runtime.live import LiveSettings
from gateway.sharing.identity import Identity, IdentityService
from gateway.sharing.rules.determinism import Mode, Rule
from gateway.sharing.rules.determinism import Policy as SharingPolicy
from gateway.sharing.settings import SharingSettings
from gateway.simulator.models import schema
from gateway.throttling.ports import CreateLimiter
from tests.support.clock import ManualClock
from tests.support.fakes import Call, FakeUpstream, answer, free
from tests.support.live import money
from tests.support.observer import RecordingObserver
from tests.support.output_inputs import NoOutputs
from tests.support.records import ended, prediction
from tests.support.sharing_store import SharingStore

MODEL = "acme/toy"
VERSION = "a" * 64
SECRET = b"s" * 32
SEEDED = schema.model_schema(
    {"prompt": schema.field("string", "Anything", required=True), "seed": schema.seed_field()}, schema.TEXT
)
SEEDLESS = schema.model_schema({"prompt": schema.field("string", "Anything", required=True)}, schema.TEXT)
SHARED = SharingPolicy(rules=(Rule(MODEL, Mode.ALWAYS),))
"""Every request for the model is shared, whatever its input."""


def caller(team: str = "red", **fields: Any) -> Caller:
    """Return a caller who may run anything."""
    scopes = frozenset(Scope) - {Scope.ACCOUNT}
    return Caller(team=Team(name=team, scopes=scopes), key_id="key", scopes=scopes, models=(("*",),), **fields)


def command(prompt: str = "one", *, target: str | Target = MODEL, **fields: Any) -> CreateCommand:
    """Return a create, by default of a model that is named in the body, with a seed."""
    version = target if isinstance(target, str) else None
    parsed = parse_version(target) if isinstance(target, str) else target
    given = json.dumps({"prompt": prompt, "seed": 7}).encode()
    body = CreateBody(input=given, target=parsed, version=version, webhook=fields.pop("webhook", None))
    return CreateCommand(
        kind=Kind.PREDICTION,
        operation="predictions.create",
        path="/predictions",
        target=parsed,
        body=body,
        **{"hold_until": 1e12} | fields,
    )


class Replicate:
    """What upstream answers. Creates wait while `held`; each takes the first of `script`, or is created."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.upstream = FakeUpstream(self._answer)
        self.script: list[Answer | Exception] = []
        self.held: asyncio.Event | None = None
        self.status = "starting"
        self.model: str | None = MODEL
        self.schema: Any = SEEDED
        self.lists: list[list[dict[str, Any]]] = []
        """What reads of the list show, one each; empty from then on."""
        self.created: list[str] = []
        self.headers: list[dict[str, str]] = []

    def document(self, number: int, **fields: Any) -> dict[str, Any]:
        """Write a prediction as upstream shows it."""
        name, at = f"{number:026}", "2025-11-24T16:00:00Z"
        made = {"id": name, "status": self.status, "version": VERSION, "created_at": at, "input": {}, "urls": {}}
        return made | ({"model": self.model} if self.model else {}) | fields

    async def _answer(self, call: Call) -> Answer:
        if call.operation == "predictions.create":
            return await self._create(call)
        if call.operation == "predictions.list":
            results = self.lists.pop(0) if self.lists else []
            return answer(200, json.dumps({"results": results, "next": None}).encode())
        if call.operation == "models.versions.get":
            return answer(200, json.dumps({"id": VERSION, "openapi_schema": self.schema}).encode())
        if call.operation == "predictions.get":
            return answer(404)
        return answer()

    async def _create(self, call: Call) -> Answer:
        self.headers.append(dict(call.headers or {}))
        if self.held is not None:
            await self.held.wait()
        said = self.script.pop(0) if self.script else self.create(call)
        if isinstance(said, Exception):
            raise said
        return said

    def create(self, call: Call) -> Answer:
        """Create what was asked for."""
        given = json.loads(call.body or b"{}")["input"]
        made = self.document(len(self.created) + 1, input=given)
        self.created.append(made["id"])
        return answer(201, json.dumps(made).encode(), ratelimit_remaining="9")

    @property
    def sent(self) -> int:
        """How many creates were sent."""
        return self.upstream.count("predictions.create")


class CreateCore:
    """One gateway's services of creates."""

    def __init__(
        self,
        *,
        policy: SharingPolicy = SHARED,
        unknown_prices: UnknownPolicy = UnknownPolicy.ESTIMATE,
        adopt_wait_seconds: float = 0.0,
        create_limiter: CreateLimiter | None = None,
        deadlines: type[Deadlines] = Deadlines,
        webhook_of: Callable[[str], str | None] = lambda _: None,
        membership: Membership | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.store = SharingStore()
        self.observer = RecordingObserver()
        self.replicate = Replicate(self.clock)
        self.expired: list[str] = []
        self.announced: list[PredictionView] = []
        upstream = self.replicate.upstream
        self.versions = VersionMap(self.store, upstream)
        sharing = LiveSettings(SharingSettings(policy=policy, share="team", ttl_seconds=3600.0))
        schemas = SchemaService(upstream, self.clock)
        self.identities = IdentityService(schemas, self.versions, sharing, secret=SECRET)
        self.settings = LiveSettings(
            PredictionSettings(adopt_wait_seconds=adopt_wait_seconds, ticket_ttl_seconds=60.0, memory_bytes=1_000_000)
        )
        self.events = PredictionEvents(self.clock, self.observer)
        self.secret_values = SecretValues(schemas)
        self.tracker = Tracker(
            self.store,
            upstream,
            self.clock,
            self.events,
            self.observer,
            requests_per_minute=lambda: 3000.0,
            keep_until=self._keep_until,
            settlement_of=free,
            secret_values=self.secret_values,
            membership=membership,
        )
        self.deadlines = deadlines(self.store, self.clock, self._expire)
        self.run_identities = RunIdentities(
            self.store, self.tracker, self.identities, self.versions, keep_until=self._keep_until
        )
        self.digest = KeyedDigest(SECRET, "inputs")
        self.pending = PendingCreates(partial(adoption.may_be_equal, digest=self.digest))
        self.recorder = RunRecorder(
            self.store,
            self.tracker,
            self.run_identities,
            self.deadlines,
            self.pending,
            self.clock,
            self.events,
            self.observer,
            ticket_secret=SECRET,
            keep_until=self._keep_until,
            settlement_of=free,
        )
        self.run_creator = RunCreator(
            self.store,
            upstream,
            self.recorder,
            self.run_identities,
            self.pending,
            self.clock,
            self.observer,
            self.settings,
            create_limiter=create_limiter,
            secret_values=self.secret_values,
            digest=self.digest,
            membership=membership,
        )
        self.teams: LiveSettings[Teams] = LiveSettings({})
        self.limit_queue = LimitQueue(self.store, self.clock, self.observer)  # type: ignore[arg-type]  # meters only
        self.hits = HitRecorder(self.store, self.events, self.observer, self.observer)
        self.creates = CreateService(
            self.store,
            self.run_creator,
            JoinService(self.store, self.tracker, self.run_creator, self.run_identities, self.clock, self.settings),
            Policy(self.versions, self.store, self.clock, "https://upstream.invalid/v1"),
            self.identities,
            self.clock,
            self.observer,
            hits=self.hits,
            records=NewRecords(self.clock, self.settings, ticket_secret=SECRET, webhook_of=webhook_of),
            outputs=NoOutputs(),
            bodies=OutgoingBodies(schemas, NoOutputs(), self.digest),
            pricing=Pricing(money(PriceList(unknown=unknown_prices)), self.observer),
            limit_queue=self.limit_queue,
            money=self.observer,
            teams=self.teams,
        )
        self.events.add_ended_listener(Listener.HITS, self.hits.on_run_ended)
        self.events.add_created_listener(Listener.WEBHOOKS, self.announced.append)

    def _keep_until(self, run: Run, document: bytes, ended_at: float) -> float | None:
        return ended_at + 3600.0 if run.fingerprint is not None else None

    async def _expire(self, prediction_id: str) -> None:
        self.expired.append(prediction_id)

    async def create(self, *args: Any, **fields: Any) -> Created:
        """Create a prediction, which must not be refused by upstream."""
        made = await self.creates.create(caller(), command(*args, **fields))
        assert isinstance(made, Created)
        return made

    def ask(self, *args: Any, **fields: Any) -> asyncio.Task[Created | Answer]:
        """Create a prediction in the background."""
        return asyncio.create_task(self.creates.create(caller(), command(*args, **fields)))

    async def context(self, *args: Any, **fields: Any) -> tuple[CreateContext, Identity]:
        """Return a request as its attempts see it, with its identity."""
        context = await self.identities.named(CreateContext(caller(), command(*args, **fields), {}))
        return context, await self.identities.of(context)

    @property
    def steps(self) -> list[str]:
        """The steps of the store that creates asked for, without reads of the version map."""
        return [name for name in self.store.calls if name not in ("model_of", "files_among")]

    @property
    def counted(self) -> int:
        """How many predictions were counted as created."""
        return self.observer.count("prediction_created")

    async def close(self) -> None:
        """End everything."""
        for event in self.store.held.values():
            event.set()
        if self.replicate.held is not None:
            self.replicate.held.set()
        await self.creates.close(0.0)
        await self.run_creator.close(0.0)
        await self.tracker.close()
        await self.events.close()


def terminal(core: CreateCore, status: Status = Status.SUCCEEDED) -> None:
    """Let upstream's answers to creates be terminal."""
    core.replicate.status = status.value


async def fingerprint(core: CreateCore, *args: str) -> str:
    _, identity = await core.context(*args)
    assert identity.fingerprint is not None
    return identity.fingerprint


async def add_finished(core: CreateCore) -> None:
    now = core.clock.now()
    run = ended("old", now - 5, fingerprint=await fingerprint(core), cache_until=now + 100)
    core.store.add(run, prediction("pold", "old"))
