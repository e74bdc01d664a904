"""Runs and creates of other nodes, as far as somebody waits for them here; and what other nodes ask of this one."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.domain.records import PredictionView, RunState, Status
from gateway.domain.upstream_response import Answer
from gateway.errors import RateLimited, StoreUnavailable, UpstreamUncertain
from gateway.nodes.news import Topic, of_run
from gateway.predictions.deadlines import Deadlines
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.in_flight import Created, NotSent, PendingCreates, Refused
from gateway.predictions.other_creates import OtherCreates
from gateway.predictions.other_nodes import OtherNodes
from gateway.predictions.queries import PredictionService
from gateway.predictions.rules import create_outcomes
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.tracker import Tracker
from gateway.runtime.live import LiveSettings
from tests.support.clock import START, ManualClock, settle
from tests.support.create_core import caller
from tests.support.fake_news import FakeNews, NumberedNode
from tests.support.fakes import FakeObserver, FakeUpstream, answer, free
from tests.support.records import intent, live, prediction
from tests.support.sharing_store import SharingStore

OWN, OTHER = 1, 2


class Node:
    """This node, with a run of its own (`run1`) and one of another node (`run2`)."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.store = SharingStore()
        self.news = FakeNews()
        self.upstream = FakeUpstream(lambda _: answer(200, b'{"id":"uprun1","status":"starting"}'))
        self.observer = FakeObserver()
        self.events = PredictionEvents(clock, self.observer)
        self.membership = NumberedNode(OWN)
        self.tracker = Tracker(
            self.store, self.upstream, clock, self.events, self.observer,
            requests_per_minute=lambda: 3000.0, keep_until=lambda *_: None, settlement_of=free,
            membership=self.membership, news=self.news,
        )  # fmt: skip
        settings = PredictionSettings(adopt_wait_seconds=2.0, ticket_ttl_seconds=60.0, memory_bytes=1_000_000)
        self.service = PredictionService(
            self.store, self.tracker, clock, self.events, self.observer,
            ticket_secret=b"s" * 32, settings=LiveSettings(settings), news=self.news,
        )  # fmt: skip
        self.pending = PendingCreates()
        self.creates = OtherCreates(self.store, clock)
        self.expired: list[str] = []
        self.deadlines = Deadlines(self.store, clock, self._expire)
        self.others = OtherNodes(
            self.store, self.tracker, self.service, self.pending, self.creates, self.deadlines, self.events, clock
        )
        self.others.listen(self.news)
        self.own = live("run1", owner=OWN, intended_at=START, live_at=START)
        self.foreign = live("run2", owner=OTHER, intended_at=START, live_at=START)
        self.store.add(self.own, prediction("p1", "run1"))
        self.store.add(self.foreign, prediction("p2", "run2"))

    async def _expire(self, prediction_id: str) -> None:
        self.expired.append(prediction_id)

    def end(self, run_id: str, **fields: Any) -> None:
        """Let a run's owner record its end."""
        self.store.runs[run_id] = replace(
            self.store.runs[run_id],
            **{"state": RunState.ENDED, "status": Status.SUCCEEDED, "ended_at": START + 1, "document": b"{}"} | fields,
        )

    def view(self, prediction_id: str) -> PredictionView:
        kept = self.store.kept[prediction_id]
        return PredictionView(kept, self.store.runs[kept.run_id])

    def reads(self) -> int:
        """How often runs were read from the store."""
        return self.store.calls.count("run") + self.store.calls.count("runs_by_id")


@pytest.fixture
async def node(clock: ManualClock) -> AsyncIterator[Node]:
    made = Node(clock)
    working = asyncio.create_task(made.others.run())
    await settle()
    yield made
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await made.creates.close()
    await made.tracker.close()


async def test_run_of_another_node_is_read_on_news_and_every_second(node: Node):
    waiting = asyncio.create_task(node.service.wait(node.view("p2"), 60.0))
    await settle()
    assert node.reads() == 1
    await node.clock.advance(2.5)
    assert node.reads() == 3
    node.end("run2")
    node.news.hear(Topic.RUN, "run2")
    await settle()
    assert (await waiting).run.status is Status.SUCCEEDED
    assert node.upstream.calls == []
    assert len(node.tracker.observed) == 0


async def test_waiters_of_one_run_share_its_reads(node: Node):
    waiting = [asyncio.create_task(node.service.wait(node.view("p2"), 60.0)) for _ in range(50)]
    await settle()
    node.end("run2")
    node.news.hear(Topic.RUN, "run2")
    await asyncio.gather(*waiting)
    assert node.reads() == 2


async def test_run_is_observed_no_longer_than_somebody_waits(node: Node):
    waiting = asyncio.create_task(node.service.wait(node.view("p2"), 1.5))
    await settle()
    await node.clock.advance(1.0)
    assert len(node.tracker.observed) == 1
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await node.clock.advance(1.0)
    assert len(node.tracker.observed) == 0
    before = node.reads()
    await node.clock.advance(5.0)
    assert node.reads() == before


async def test_poll_of_another_nodes_run_reads_the_store(node: Node):
    """What this node has in memory may be older than what the caller was told elsewhere."""
    assert (await node.service.get(caller(), "p2")).run.status is Status.STARTING
    node.store.runs["run2"] = replace(node.foreign, status=Status.PROCESSING)
    assert (await node.service.get(caller(), "p2")).run.status is Status.PROCESSING


async def test_store_that_is_away_ends_no_wait(node: Node):
    node.store.trouble = StoreUnavailable("away")
    waiting = asyncio.create_task(node.service.wait(node.view("p2"), 60.0))
    await settle()
    node.store.trouble = None
    node.end("run2")
    await node.clock.advance(1.0)
    assert (await waiting).run.status is Status.SUCCEEDED


async def test_waiters_go_on_when_this_node_takes_the_run_over(node: Node):
    """From then on it is polled upstream, and its end is recorded here."""
    waiting = asyncio.create_task(node.service.wait(node.view("p2"), 600.0))
    await settle()
    node.store.runs["run2"] = taken = replace(node.foreign, owner=OWN)
    node.upstream.script = lambda _: answer(200, b'{"id":"uprun2","status":"succeeded"}')
    node.tracker.follow(taken)
    assert len(node.tracker.observed) == 0
    await node.clock.advance(5.0)
    assert (await waiting).run.status is Status.SUCCEEDED
    assert node.upstream.count("predictions.get") == 1


async def test_takeover_is_noticed_by_reading_too(node: Node):
    waiting = asyncio.create_task(node.service.wait(node.view("p2"), 600.0))
    await settle()
    node.store.runs["run2"] = replace(node.foreign, owner=OWN)
    await node.clock.advance(1.0)
    assert node.tracker.tracked("run2") is not None
    waiting.cancel()


async def test_cancel_of_another_nodes_run_is_asked_of_its_owner(node: Node):
    await node.service.expire("p2")
    assert node.news.of(Topic.CANCEL) == ["run2"]
    assert node.news.of(Topic.PREDICTION) == [of_run("run2", "p2")]
    assert node.upstream.calls == []


async def test_owner_asks_upstream_when_another_node_has_cancelled(node: Node):
    node.tracker.follow(node.own)
    node.store.runs["run1"] = replace(node.own, cancel_asked_at=START)
    node.news.hear(Topic.CANCEL, "run1", "run2", "unknown")
    await settle()
    assert node.upstream.count("predictions.cancel") == 1
    node.news.hear(Topic.CANCEL, "run1")
    await settle()
    assert node.upstream.count("predictions.cancel") == 1


async def test_cancel_without_news_is_found_within_seconds(node: Node):
    """The node that recorded it may have ended before it told anybody."""
    node.tracker.follow(node.own)
    node.store.runs["run1"] = replace(node.own, cancel_asked_at=START)
    await node.clock.advance(5.0)
    assert node.upstream.count("predictions.cancel") == 1


async def test_cancel_on_another_node_ends_the_wait_here(node: Node):
    waiting = asyncio.create_task(node.service.wait(node.view("p2"), 60.0))
    canceled: list[str] = []
    node.events.add_canceled_listener(Listener.STREAMS, lambda view: canceled.append(view.prediction.id))
    await settle()
    node.store.kept["p2"] = replace(node.store.kept["p2"], canceled_at=START)
    node.news.hear(Topic.PREDICTION, of_run("run2", "p2"))
    await settle()
    assert (await waiting).prediction.canceled_at == START
    assert canceled == ["p2"]
    assert node.news.told == []


async def test_everything_is_looked_at_after_a_doubt(node: Node):
    node.tracker.follow(node.own)
    waiting = [asyncio.create_task(node.service.wait(node.view(each), 60.0)) for each in ("p1", "p2")]
    await settle()
    node.store.runs["run1"] = replace(node.own, cancel_asked_at=START)
    node.store.kept["p1"] = replace(node.store.kept["p1"], canceled_at=START, deadline_at=START + 2)
    node.end("run2")
    node.news.doubt()
    await settle()
    first, second = await asyncio.gather(*waiting)
    assert first.prediction.canceled_at == START
    assert second.run.status is Status.SUCCEEDED
    assert node.upstream.count("predictions.cancel") == 1


async def test_owner_keeps_the_deadline_of_a_prediction_that_joined_elsewhere(node: Node):
    joined: list[str] = []
    node.events.add_joined_listener(Listener.WEBHOOKS, lambda view: joined.append(view.prediction.id))
    node.tracker.follow(node.own)
    node.store.add(node.own, prediction("p3", "run1", deadline_at=START + 10))
    node.news.hear(Topic.JOINED, of_run("run1", "p3"), of_run("run2", "p2"), of_run("run1", "unknown"))
    await settle()
    assert node.deadlines.pending == 1
    assert joined == ["p3"]
    node.news.hear(Topic.JOINED, of_run("run1", "p3"))
    await settle()
    assert node.deadlines.pending == 1


async def test_run_that_is_recorded_and_not_followed_yet_is_this_nodes(node: Node):
    """Another node can see the record before this one has gone on with it."""
    node.pending.start(node.own)
    node.store.add(node.own, prediction("p3", "run1", deadline_at=START + 10))
    node.news.hear(Topic.JOINED, of_run("run1", "p3"))
    await settle()
    assert node.deadlines.pending == 1


async def test_webhook_of_upstream_for_another_nodes_run_is_told(node: Node):
    await node.tracker.on_snapshot("run2", b'{"id":"uprun2","status":"succeeded"}')
    assert node.news.of(Topic.POLL) == ["run2"]
    node.tracker.follow(node.own)
    await settle()
    node.news.hear(Topic.POLL, "run1", "run2")
    await settle()
    assert node.upstream.count("predictions.get") == 1


async def test_identity_that_another_node_settled_is_taken_over(node: Node):
    tracked = node.tracker.follow(node.own)
    node.store.runs["run1"] = replace(node.own, fingerprint="f")
    node.news.hear(Topic.RUN, "run1")
    await settle()
    assert tracked.run.fingerprint == "f"
    node.tracker.refresh(replace(node.foreign, fingerprint="f"))
    assert node.news.of(Topic.RUN) == ["run2"]


async def test_result_in_memory_is_read_again_when_its_record_has_changed(node: Node):
    """Another node has copied its files."""
    node.end("run2")
    await node.service.get(caller(), "p2")
    before = node.store.calls.count("prediction")
    await node.service.get(caller(), "p2")
    assert node.store.calls.count("prediction") == before
    node.end("run2", document=b'{"copied":true}')
    node.news.hear(Topic.RUN, "run2")
    assert (await node.service.get(caller(), "p2")).run.document == b'{"copied":true}'


async def test_work_waits_for_a_store_that_is_away(node: Node):
    node.tracker.follow(node.own)
    node.store.runs["run1"] = replace(node.own, cancel_asked_at=START)
    node.store.trouble = StoreUnavailable("away")
    node.news.hear(Topic.CANCEL, "run1")
    await settle()
    assert (node.upstream.count("predictions.cancel"), node.others.due) == (0, 1)
    node.store.trouble = None
    await node.clock.advance(1.0)
    assert (node.upstream.count("predictions.cancel"), node.others.due) == (1, 0)


async def test_defect_in_one_work_keeps_no_other_from_being_done(node: Node):
    node.tracker.follow(node.own)
    node.store.runs["run1"] = replace(node.own, cancel_asked_at=START)
    node.others._add(Topic.KEY, "no work")
    node.news.hear(Topic.CANCEL, "run1")
    working = asyncio.create_task(node.others.run())
    with pytest.raises(AssertionError):
        await working
    again = asyncio.create_task(node.others.run())
    await settle()
    assert node.upstream.count("predictions.cancel") == 1
    again.cancel()


class TestCreates:
    """A prediction here has joined a run that another node is about to create."""

    @pytest.fixture
    async def waiting(self, node: Node) -> "asyncio.Task[Any]":
        run = intent("run3", owner=OTHER, leader_id="p3")
        node.store.add(run, prediction("p3", "run3"))
        return asyncio.create_task(node.creates.pending(run).wait(2.0))

    async def told(self, node: Node) -> None:
        await settle()
        node.news.hear(Topic.RUN, "run3")
        await settle()

    async def test_is_created(self, node: Node, waiting: "asyncio.Task[Any]"):
        await settle()
        node.store.runs["run3"] = live("run3", owner=OTHER, leader_id="p3")
        await self.told(node)
        outcome = await waiting
        assert isinstance(outcome, Created)
        assert outcome.view.run.state is RunState.LIVE

    async def test_is_refused_with_the_answer_of_upstream(self, node: Node, waiting: "asyncio.Task[Any]"):
        await settle()
        said = Answer(422, {"content-type": "application/json"}, b'{"detail":"no"}')
        await node.store.discard_intent("run3", create_outcomes.encode_answer(said))
        await self.told(node)
        assert await waiting == Refused(said)

    async def test_was_not_sent(self, node: Node, waiting: "asyncio.Task[Any]"):
        await settle()
        await node.store.discard_intent("run3", create_outcomes.encode_error(RateLimited("Full.", retry_after=7)))
        await self.told(node)
        outcome = await waiting
        assert isinstance(outcome, NotSent)
        assert isinstance(outcome.error, RateLimited)
        assert (outcome.error.detail, outcome.error.retry_after) == ("Full.", 7)

    async def test_was_not_sent_for_a_reason_that_is_not_kept(self, node: Node, waiting: "asyncio.Task[Any]"):
        await settle()
        del node.store.runs["run3"]
        await node.clock.advance(1.0)
        assert isinstance(await waiting, NotSent)

    async def test_is_uncertain_for_too_long(self, node: Node, waiting: "asyncio.Task[Any]"):
        await settle()
        await node.clock.advance(5.0)
        assert not waiting.done()
        node.store.runs["run3"] = replace(node.store.runs["run3"], uncertain_at=START)
        await self.told(node)
        with pytest.raises(UpstreamUncertain):
            await waiting

    async def test_is_read_by_all_waiters_at_once_and_not_without_any(self, node: Node, waiting: "asyncio.Task[Any]"):
        await settle()
        others = [asyncio.create_task(node.creates.pending(node.store.runs["run3"]).wait(2.0)) for _ in range(20)]
        await settle()
        assert node.creates.waiting == 21
        assert node.reads() == 1
        for each in (waiting, *others):
            each.cancel()
        await node.clock.advance(1.0)
        before = node.reads()
        await node.clock.advance(5.0)
        assert (node.reads(), node.creates.waiting) == (before, 0)

    async def test_outcome_that_cannot_be_read_holds_nobody_for_longer_than_a_limit(
        self, node: Node, waiting: "asyncio.Task[Any]"
    ):
        """A newer gateway may have recorded it."""
        await settle()
        await node.store.discard_intent("run3", b"no outcome")
        await self.told(node)
        with pytest.raises(UpstreamUncertain):
            await waiting
        assert node.creates.waiting == 0

    async def test_store_that_is_away_is_asked_again(self, node: Node, waiting: "asyncio.Task[Any]"):
        node.store.trouble = StoreUnavailable("away")
        await settle()
        node.store.trouble = None
        node.store.runs["run3"] = live("run3", owner=OTHER, leader_id="p3")
        await node.clock.advance(1.0)
        assert isinstance(await waiting, Created)


async def test_run_of_a_lost_lease_is_only_observed_and_its_waiters_get_the_end(node: Node, clock: ManualClock) -> None:
    """Nothing is read upstream or written from then on."""
    tracked = node.tracker.follow(node.own)
    waiting = asyncio.create_task(tracked.wait_until(lambda run: run.status.is_terminal, 3600.0))
    await clock.advance(1.0)
    node.store.runs["run1"] = replace(node.own, owner=OTHER)
    node.tracker.drop()
    reads = len(node.upstream.calls)
    await clock.advance(30.0)
    assert (len(node.upstream.calls), node.tracker.active) == (reads, 0)
    node.end("run1", owner=OTHER)
    await clock.advance(1.1)
    assert (await waiting).status is Status.SUCCEEDED
    assert node.observer.count("prediction_finished") == 0


async def test_wait_that_begins_after_the_lease_was_lost_gets_the_end(node: Node, clock: ManualClock) -> None:
    """The node has its old number until it has joined again."""
    node.tracker.follow(node.own)
    node.tracker.drop()
    waiting = asyncio.create_task(node.service.wait(node.view("p1"), 60.0))
    await clock.advance(2.0)
    assert not waiting.done()
    node.end("run1", owner=OTHER)
    await clock.advance(1.1)
    assert (await waiting).run.status is Status.SUCCEEDED
    assert node.tracker.active == 0


async def test_run_that_comes_back_after_a_lost_lease_is_followed_again(node: Node, clock: ManualClock) -> None:
    node.tracker.follow(node.own)
    await clock.advance(1.0)
    node.tracker.drop()
    node.membership.number = 5
    reads = len(node.upstream.calls)
    back = node.store.runs["run1"] = replace(node.own, owner=5)
    node.tracker.follow(back)
    await clock.advance(5.0)
    assert node.tracker.active == 1
    assert len(node.upstream.calls) > reads


async def test_run_that_was_recorded_just_when_the_lease_was_lost_is_not_followed(
    node: Node, clock: ManualClock
) -> None:
    node.tracker.follow(node.own)
    node.membership.number = 5
    node.store.runs["run1"] = replace(node.own, owner=OTHER)
    await clock.advance(60.0)
    assert node.tracker.active == 0
    assert len(node.upstream.calls) <= 1


async def test_more_news_of_a_topic_than_can_wait_stand_for_all_of_it(node: Node):
    """And for nothing of the other topics."""
    node.tracker.follow(node.own)
    node.store.runs["run1"] = replace(node.own, fingerprint="f" * 64)
    node.store.away = True
    for number in range(10_001):
        node.others._add(Topic.RUN, f"run{number + 100}")
    node.others._add(Topic.CANCEL, "run1")
    assert node.others.due == 2
    node.news.hear(Topic.RUN, "run1")
    assert node.others.due == 2
    node.store.away = False
    before = node.reads()
    await node.clock.advance(1.0)
    assert node.others.due == 0
    tracked = node.tracker.tracked("run1")
    assert tracked is not None
    assert tracked.run.fingerprint == "f" * 64
    assert node.reads() - before <= 3


async def test_news_of_topics_take_turns(node: Node):
    for topic in (Topic.RUN, Topic.CANCEL):
        for name in ("a", "b"):
            node.others._add(topic, name)
    assert [node.others._take() for _ in range(4)] == [
        (Topic.RUN, "a"), (Topic.CANCEL, "a"), (Topic.RUN, "b"), (Topic.CANCEL, "b"),
    ]  # fmt: skip
