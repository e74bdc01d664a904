"""What is held in memory of runs of other nodes that somebody waits for here, and what their waiters get."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

import pytest
from msgspec.structs import replace

from gateway.domain.records import LARGE_DOCUMENT, PredictionView, Run, RunState, Status
from gateway.errors import StoreUnavailable
from gateway.predictions.events import PredictionEvents
from gateway.predictions.ports.sharing import CreateStore
from gateway.predictions.queries import PredictionService
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.tracker import Tracker
from gateway.runtime.live import LiveSettings
from tests.support.clock import START, ManualClock, settle
from tests.support.create_core import caller
from tests.support.fake_news import FakeNews, NumberedNode
from tests.support.fakes import FakeObserver, FakeUpstream, answer, free
from tests.support.records import live, prediction
from tests.support.sharing_store import SharingStore

OWN, OTHER = 1, 2
MOST = 2 * LARGE_DOCUMENT
MIDDLE = b'{"input":"%s"}' % (b"a" * (LARGE_DOCUMENT // 2))
LARGE = b'{"input":"%s"}' % (b"a" * LARGE_DOCUMENT)


class SlowStore(SharingStore):
    """Reads predictions and runs, and answers when `slow` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = asyncio.Event()
        self.slow.set()

    async def prediction(self, prediction_id: str, *, most_bytes: int | None = None) -> PredictionView | None:
        """Find a prediction."""
        found = await super().prediction(prediction_id, most_bytes=most_bytes)
        await self.slow.wait()
        return found

    async def runs_by_id(self, run_ids: Sequence[str], *, most_bytes: int) -> dict[str, Run]:
        """Find runs."""
        found = await super().runs_by_id(run_ids, most_bytes=most_bytes)
        await self.slow.wait()
        return found


class Node:
    """A node with runs of another one."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.store = SlowStore()
        events, observer = PredictionEvents(clock, FakeObserver()), FakeObserver()
        self.tracker = Tracker(
            cast(CreateStore, self.store), FakeUpstream(lambda _: answer(200, b"{}")), clock, events, observer,
            requests_per_minute=lambda: 3000.0, keep_until=lambda *_: None, settlement_of=free,
            max_document_bytes=lambda: MOST, membership=NumberedNode(OWN), news=FakeNews(),
        )  # fmt: skip
        settings = PredictionSettings(adopt_wait_seconds=2.0, ticket_ttl_seconds=60.0, memory_bytes=1_000_000)
        self.service = PredictionService(
            cast(CreateStore, self.store), self.tracker, clock, events, observer,
            ticket_secret=b"s" * 32, settings=LiveSettings(settings),
        )  # fmt: skip

    def add(self, number: int, document: bytes) -> PredictionView:
        """Add a run of the other node."""
        run = live(
            f"run{number}", owner=OTHER, intended_at=START, live_at=START, document=document,
            upstream_id=f"uprun{number}",
        )  # fmt: skip
        kept = prediction(f"p{number}", run.id)
        self.store.add(run, kept)
        return PredictionView(kept, run)

    def wait(self, view: PredictionView, seconds: float = 60.0) -> "asyncio.Task[PredictionView]":
        """Wait for a prediction, as its caller does."""
        return asyncio.create_task(self.service.wait(view, seconds))


@pytest.fixture
async def node(clock: ManualClock) -> AsyncIterator[Node]:
    made = Node(clock)
    yield made
    await made.tracker.close()


async def test_document_that_was_left_in_the_store_is_never_an_empty_one(node: Node):
    """The wait is over before the run was read here."""
    view = node.add(1, LARGE).without_document()
    node.store.trouble = StoreUnavailable("away")
    waiting = node.wait(view)
    await settle()
    node.store.trouble = None
    await node.service.drain()
    shown = await waiting
    assert (shown.run.document, shown.left_out) == (b"", view.left_out)


async def test_large_documents_are_not_read_for_those_who_wait(node: Node):
    waiting = [node.wait(node.add(number, LARGE)) for number in range(10)]
    await settle()
    assert len(node.tracker.observed) == 10
    assert node.tracker.document_bytes == 0
    assert not any(each.run.document for each in node.tracker.observed.runs.values())
    node.store.runs["run3"] = replace(
        node.store.runs["run3"], state=RunState.ENDED, status=Status.SUCCEEDED, ended_at=START
    )
    await node.clock.advance(1.0)
    shown = await waiting[3]
    assert (shown.run.status, shown.run.document, shown.left_out) == (Status.SUCCEEDED, b"", shown.size)
    assert shown.size > LARGE_DOCUMENT
    for each in waiting:
        each.cancel()


async def test_documents_of_observed_runs_count_for_the_bound(node: Node):
    views = [node.add(number, MIDDLE) for number in range(10)]
    waiting = [node.wait(view) for view in views]
    await settle()
    assert len(MIDDLE) < node.tracker.document_bytes <= MOST
    held = sum(len(each.run.document) for each in node.tracker.observed.runs.values())
    assert held == node.tracker.document_bytes
    for each in waiting:
        each.cancel()


async def test_run_that_is_taken_over_has_its_document(node: Node):
    waiting = node.wait(node.add(1, LARGE).without_document())
    await settle()
    assert node.tracker.document_bytes == 0
    node.store.runs["run1"] = replace(node.store.runs["run1"], owner=OWN)
    await node.clock.advance(1.0)
    tracked = node.tracker.tracked("run1")
    assert tracked is not None
    assert (tracked.run.document, tracked.is_whole, tracked.document_size) == (LARGE, True, len(LARGE))
    assert node.tracker.document_bytes == len(LARGE)
    waiting.cancel()


class TestReadsInProgress:
    """A read of an ended prediction that began before other nodes told of a change is not kept in memory."""

    @pytest.fixture
    async def reading(self, node: Node) -> "asyncio.Task[PredictionView]":
        node.add(1, b"{}")
        node.store.runs["run1"] = replace(
            node.store.runs["run1"], state=RunState.ENDED, status=Status.SUCCEEDED, ended_at=START
        )
        node.store.slow = asyncio.Event()
        task = asyncio.create_task(node.service.get(caller(), "p1"))
        await settle()
        return task

    async def is_kept(self, node: Node, reading: "asyncio.Task[PredictionView]") -> bool:
        node.store.slow.set()
        await reading
        before = node.store.calls.count("prediction")
        await node.service.get(caller(), "p1")
        return node.store.calls.count("prediction") == before

    async def test_without_a_change_it_is_kept(self, node: Node, reading: "asyncio.Task[PredictionView]"):
        node.service.forget_run("run2")
        assert await self.is_kept(node, reading)

    async def test_its_run_has_changed(self, node: Node, reading: "asyncio.Task[PredictionView]"):
        node.service.forget_run("run1")
        assert not await self.is_kept(node, reading)

    async def test_its_run_has_changed_and_many_others(self, node: Node, reading: "asyncio.Task[PredictionView]"):
        node.service.forget_run("run1")
        for number in range(2, 1000):
            node.service.forget_run(f"run{number}")
        assert not await self.is_kept(node, reading)

    async def test_data_of_some_runs_was_removed(self, node: Node, reading: "asyncio.Task[PredictionView]"):
        node.service.forget_ended()
        assert not await self.is_kept(node, reading)


async def test_runs_are_read_together_not_one_by_one(node: Node):
    """A hundred runs of other nodes, each of which is looked at every second."""
    waiting = [node.wait(node.add(number, b"{}")) for number in range(100)]
    await settle()
    reads = node.store.calls.count("runs_by_id")
    await node.clock.advance(1.0)
    assert node.store.calls.count("runs_by_id") - reads <= 3
    assert "run" not in node.store.calls
    for each in waiting:
        each.cancel()


async def test_run_that_changes_while_it_is_read_is_read_again(node: Node):
    """The answer on its way may be older than the news."""
    waiting = node.wait(node.add(1, b"{}"))
    node.store.slow.clear()
    await settle()
    node.store.runs["run1"] = replace(node.store.runs["run1"], state=RunState.ENDED, status=Status.SUCCEEDED)
    node.tracker.observed.look_at("run1")
    node.store.slow.set()
    assert (await waiting).run.status is Status.SUCCEEDED


async def test_failed_read_fails_for_all_who_wait_and_is_repeated(node: Node):
    waiting = [node.wait(node.add(number, b"{}")) for number in range(3)]
    node.store.trouble = StoreUnavailable("away")
    await settle()
    node.store.trouble = None
    for number in range(3):
        run_id = f"run{number}"
        node.store.runs[run_id] = replace(node.store.runs[run_id], state=RunState.ENDED, status=Status.SUCCEEDED)
    await node.clock.advance(1.0)
    assert [each.run.status for each in await asyncio.gather(*waiting)] == [Status.SUCCEEDED] * 3
