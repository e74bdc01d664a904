"""Uncertain creates of several nodes: the node that leads searches for all of them."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from gateway.domain.create_request import Created
from gateway.domain.hold import Hold
from gateway.domain.records import RunState
from gateway.errors import RunTakenOver, StoreUnavailable, UpstreamUnavailable, UpstreamUncertain
from gateway.predictions.equal_creates import EqualCreates
from gateway.predictions.in_flight import PendingCreates
from tests.support.clock import START, settle
from tests.support.create_core import CreateCore
from tests.support.fake_news import NumberedNode
from tests.support.records import intent, live, prediction
from tests.support.sharing_store import SharingStore, fail

OWN, OTHER = 1, 2
REQUEST = b'{"version":"acme/toy","input":{"prompt":"one"}}'


class Limiter:
    """Gives permits when the test says so."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.returned = 0

    def take_create(self, operation: str) -> bool:
        """Let every create ask for its permit."""
        return False

    async def create_permit(
        self, operation: str, team: str, until: float, *, returned: bool = False, hold: Hold | None = None
    ) -> bool:
        """Wait for a permit."""
        await self.free.wait()
        return True

    def give_back(self, operation: str) -> None:
        """Take a permit back."""
        self.returned += 1


@pytest.fixture
def node() -> NumberedNode:
    return NumberedNode(OWN, leads=False)


@pytest.fixture
async def core(node: NumberedNode) -> AsyncIterator[CreateCore]:
    made = CreateCore(adopt_wait_seconds=5.0, membership=node)
    made.store.node = OWN
    yield made
    await made.close()


def found_elsewhere(core: CreateCore) -> None:
    """Let the node that leads find the run."""
    ((run_id, run),) = core.store.runs.items()
    core.store.runs[run_id] = live(run_id, upstream_id="up1", leader_id="up1", owner=OTHER, team=run.team)
    core.store.kept["up1"] = prediction("up1", run_id, team=run.team)


async def test_uncertain_create_is_passed_on_to_the_node_that_leads(core: CreateCore) -> None:
    core.replicate.script = [UpstreamUncertain("lost")]
    asked = core.ask()
    await settle()
    (run,) = core.store.runs.values()
    assert (run.state, run.owner, run.uncertain_at) == (RunState.INTENDED, 0, START)
    assert core.replicate.upstream.count("predictions.list") == 0
    found_elsewhere(core)
    await core.clock.advance(1.1)
    made = await asked
    assert isinstance(made, Created)
    assert made.view.prediction.id == "up1"
    assert core.replicate.sent == 1


async def test_create_is_passed_on_when_the_store_is_there_again(core: CreateCore) -> None:
    core.replicate.script = [UpstreamUncertain("lost")]
    fail(core.store, "mark_uncertain", StoreUnavailable("away"))
    asked = core.ask()
    await settle()
    assert [run.owner for run in core.store.runs.values()] == [OWN]
    await core.clock.advance(1.1)
    assert [run.owner for run in core.store.runs.values()] == [0]
    found_elsewhere(core)
    await core.clock.advance(1.1)
    assert isinstance(await asked, Created)


async def test_create_that_was_recorded_without_an_answer_is_followed_by_its_own_node(core: CreateCore) -> None:
    """No other node looks for it: its owner lives."""
    core.store.unheard["record_created"] = [StoreUnavailable("lost")]
    core.store.before["record_created"] = lambda: fail(
        core.store, "record_created", *(StoreUnavailable("away") for _ in range(4))
    )
    asked = core.ask()
    await core.clock.advance(10.0)
    made = await asked
    assert isinstance(made, Created)
    ((run_id, run),) = core.store.runs.items()
    assert (run.state, run.owner) == (RunState.LIVE, OWN)
    assert core.tracker.tracked(run_id) is not None
    assert [view.prediction.id for view in core.announced] == [made.view.prediction.id]
    assert core.replicate.sent == 1


async def test_create_that_waited_while_the_lease_was_lost_is_not_sent_under_the_next_one(
    node: NumberedNode,
) -> None:
    """The intent is another node's, which may release it before the permit comes."""
    limiter = Limiter()
    core = CreateCore(membership=node, create_limiter=limiter)
    core.store.node = OWN
    asked = core.ask()
    await settle()
    node.number = core.store.node = OWN + 2
    limiter.free.set()
    with pytest.raises(UpstreamUnavailable, match="may not create"):
        await asked
    assert core.replicate.sent == 0
    assert limiter.returned == 1
    await core.close()


async def test_nothing_is_recorded_for_a_create_that_could_not_be_sent(core: CreateCore, node: NumberedNode) -> None:
    """Its intent would be another node's before it could be discarded."""
    node.has_lease = False
    with pytest.raises(UpstreamUnavailable, match="may not create"):
        await core.create()
    assert (core.store.runs, core.store.reserved, core.replicate.sent) == ({}, {}, 0)
    node.has_lease = True
    await core.create()


async def test_node_that_leads_searches_itself(core: CreateCore, node: NumberedNode) -> None:
    node.leads = True
    core.replicate.script = [UpstreamUncertain("lost")]
    core.replicate.lists = [[core.replicate.document(5, input={"prompt": "one", "seed": 7})]]
    created = await core.create()
    assert created.view.prediction.id == "5".rjust(26, "0")
    assert created.view.run.owner == OWN


async def test_create_of_a_run_that_was_taken_over_gets_what_its_new_owner_records(core: CreateCore) -> None:
    fail(core.store, "record_created", RunTakenOver("Another node has it."))
    asked = core.ask()
    await settle()
    ((run_id, run),) = core.store.runs.items()
    core.store.runs[run_id] = replace(run, owner=OTHER, uncertain_at=START)
    await core.clock.advance(1.1)
    assert not asked.done()
    found_elsewhere(core)
    await core.clock.advance(1.1)
    made = await asked
    assert isinstance(made, Created)
    assert made.view.prediction.id == "up1"
    assert core.replicate.sent == 1


async def test_intent_that_was_taken_over_is_released_only_after_its_node_can_send_no_more(
    core: CreateCore, node: NumberedNode
) -> None:
    node.leads = True
    taken = intent("run1", owner=OWN, intended_at=START - 10_000, leader_id="p1")
    core.store.add(taken, prediction("p1", "run1"))
    core.run_creator.search_taken(taken, 40.0)
    await core.clock.advance(39.0)
    assert "run1" in core.store.runs
    assert core.store.runs["run1"].uncertain_at == START
    await core.clock.advance(60.0)
    assert core.store.runs == {}
    assert core.observer.of("orphan_resolved") == ["released"]


async def test_node_without_a_lease_searches_no_more(core: CreateCore, node: NumberedNode) -> None:
    node.leads = True
    core.replicate.script = [UpstreamUncertain("lost")]
    asked = core.ask()
    await settle()
    before = core.replicate.upstream.count("predictions.list")
    ((run_id, run),) = core.store.runs.items()
    core.store.runs[run_id] = replace(run, owner=OTHER)
    core.run_creator.drop()
    found_elsewhere(core)
    await core.clock.advance(2.5)
    made = await asked
    assert isinstance(made, Created)
    assert made.view.prediction.id == "up1"
    assert core.replicate.upstream.count("predictions.list") == before
    assert core.run_creator.adopter.searching == 0
    assert len(core.pending) == 0


class Equal:
    """The creates in progress of this node and of another one."""

    def __init__(self) -> None:
        self.store = SharingStore()
        self.pending = PendingCreates()
        self.sought: set[str] = set()
        self.equal = EqualCreates(self.pending, self.sought.__contains__, self.store)
        self.run = intent("run1", request=REQUEST)
        self.store.add(self.run)

    def other(self, name: str = "run2", **fields: object) -> None:
        given = {"request": REQUEST, "owner": OTHER} | fields
        self.store.add(intent(name, **given))


@pytest.mark.parametrize(
    ("fields", "is_sending", "is_only"),
    [
        ({}, True, False),
        ({"request": b"another"}, False, True),
        ({"path": "/trainings"}, False, True),
        ({"uncertain_at": START}, False, False),
        ({"intended_at": START + 100}, False, False),
    ],
    ids=["equal", "another request", "another route", "uncertain", "later"],
)
async def test_creates_of_other_nodes_count(fields: dict[str, object], is_sending: bool, is_only: bool) -> None:
    creates = Equal()
    creates.other(**fields)
    assert await creates.equal.is_sending(creates.run, START + 50) is is_sending
    assert await creates.equal.is_only(creates.run) is is_only


async def test_intents_that_are_searched_for_are_not_on_their_way() -> None:
    """Two equal creates of a dead node do not keep each other from being found."""
    creates = Equal()
    creates.other()
    creates.sought |= {"run1", "run2"}
    assert not await creates.equal.is_sending(creates.run, START + 50)


async def test_every_intent_in_the_store_counts() -> None:
    creates = Equal()
    for number in range(60):
        creates.other(f"r{number:02}", request=b"another")
    creates.other("zzz")
    assert await creates.equal.is_sending(creates.run, START + 50)
