"""Searches in upstream's list for the runs of uncertain creates."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest

from gateway.domain import times
from gateway.domain.documents import Snapshot
from gateway.domain.records import Run, RunState
from gateway.domain.upstream_response import Answer
from gateway.errors import Conflict, StoreUnavailable, UpstreamTimeout, UpstreamTooLarge
from gateway.models.rules.secrets import REDACTED
from gateway.predictions.adoption import Adopter
from gateway.predictions.in_flight import NotSent, PendingCreates
from tests.support.clock import START, ManualClock, settle
from tests.support.fakes import AWAY, Call, FakeUpstream, answer
from tests.support.observer import RecordingObserver
from tests.support.records import intent, live
from tests.support.sharing_store import SharingStore, fail

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


@pytest.fixture
async def search() -> AsyncIterator[Search]:
    made = Search()
    yield made
    await made.adopter.close()


async def test_matching_run_is_adopted(search: Search) -> None:
    search.pages = [[listed("a", "other"), listed("b")]]
    pending = search.adopter.search(search.intend())
    assert pending.is_uncertain
    await settle()
    assert search.adopted == [("run1", "b")]
    assert search.observer.of("orphan_resolved") == ["adopted"]
    await search.clock.advance(60.0)
    assert search.reads == 1


async def test_list_is_read_back_to_the_time_of_the_intent(search: Search) -> None:
    search.pages = [[listed("a", "other")], [listed("b", "other", OLDER)], [listed("c")]]
    search.adopter.search(search.intend())
    await settle()
    assert (search.adopted, search.reads) == ([("run1", "c")], 3)


async def test_pages_older_than_the_intent_are_not_read(search: Search) -> None:
    search.pages = [[listed("a", "other")], [listed("b", "one", OLDEST)], [listed("c")]]
    search.adopter.search(search.intend())
    await settle()
    assert (search.adopted, search.reads) == ([], 2)


async def test_run_with_another_owner_is_not_adopted(search: Search) -> None:
    search.store.add(live("other", upstream_id="a"))
    search.pages = [[listed("a"), listed("b")]]
    search.adopter.search(search.intend())
    await settle()
    assert search.adopted == [("run1", "b")]


async def test_run_adopted_by_another_search_is_skipped(search: Search) -> None:
    search.conflicts = 1
    search.pages = [[listed("a"), listed("b")]]
    search.adopter.search(search.intend())
    await settle()
    assert search.adopted == [("run1", "b")]


async def test_run_that_may_belong_to_an_equal_create_is_not_adopted(search: Search) -> None:
    """That create awaits its response. The intent is neither adopted nor released until it has it."""
    search.pages = [[listed("a")]]
    search.pending.start(intent("run2", request=REQUEST, intended_at=START))
    search.adopter.search(search.intend())
    for _ in range(100):
        await search.clock.advance(30.0)
    assert search.adopted == []
    assert search.observer.of("orphan_resolved") == []
    search.pending.resolve("run2", NotSent(AWAY))
    await search.clock.advance(31.0)
    assert search.adopted == [("run1", "a")]


async def test_run_is_adopted_while_a_later_equal_create_awaits_its_response(search: Search) -> None:
    """Upstream created the run before that create began: it cannot be its run."""
    search.pages = [[listed("a")]]
    search.pending.start(intent("run2", request=REQUEST, intended_at=START + 60.0))
    search.adopter.search(search.intend())
    await settle()
    assert search.adopted == [("run1", "a")]


async def test_absent_run_is_released_while_an_equal_create_awaits_its_response(search: Search) -> None:
    """The list that was read back to the intent has no run for it."""
    search.pages = [[listed("a", "other")]]
    search.pending.start(intent("run2", request=REQUEST, intended_at=START))
    search.adopter.search(search.intend())
    await search.clock.advance(599.0)
    assert search.observer.of("orphan_resolved") == []
    for _ in range(3):
        await search.clock.advance(30.0)
    assert search.observer.of("orphan_resolved") == ["released"]


async def test_intent_is_kept_while_the_list_cannot_be_read(search: Search) -> None:
    search.status = 503
    search.adopter.search(search.intend())
    for _ in range(100):
        await search.clock.advance(30.0)
    assert search.observer.of("orphan_resolved") == []


async def test_equal_create_that_starts_during_the_search_prevents_adoption(search: Search) -> None:
    search.pages = [[listed("a")]]
    search.store.held["owns_upstream_id"] = asyncio.Event()
    run = search.intend()
    original = search.upstream.script

    def answer_late(call: Call) -> Any:
        search.pending.start(intent("run2", request=REQUEST))
        return original(call)

    search.upstream.script = answer_late
    search.adopter.search(run)
    await settle()
    assert search.adopted == []


async def test_run_that_is_already_recorded_is_resumed(search: Search) -> None:
    """It was recorded, but the store's result was lost."""
    run = search.intend()
    search.store.runs["run1"] = live("run1")
    search.adopter.search(run)
    await settle()
    assert (search.taken_up, search.reads) == (["run1"], 0)


async def test_missing_intent_resolves_as_not_sent(search: Search) -> None:
    run = search.intend()
    search.store.runs.clear()
    pending = search.adopter.search(run)
    assert isinstance(await pending.wait(1.0), NotSent)
    assert search.reads == 0


@pytest.mark.parametrize("error", [UpstreamTimeout("late"), RuntimeError("a defect")])
async def test_search_continues_after_an_error(search: Search, error: Exception) -> None:
    search.error = error
    search.adopter.search(search.intend())
    await search.clock.advance(3.0)
    search.error = None
    search.pages = [[listed("a")]]
    await search.clock.advance(4.0)
    assert search.adopted == [("run1", "a")]


@pytest.mark.parametrize("page", [b"<html>", b'{"results": 1}', b'{"results": [1, {"id": "x"}], "next": null}'])
async def test_invalid_list_finds_nothing(search: Search, page: bytes) -> None:
    search.upstream.script = lambda _: answer(200, page)
    search.adopter.search(search.intend())
    await search.clock.advance(1.0)
    assert (search.adopted, search.reads > 1) == ([], True)


async def test_refused_list_is_read_again(search: Search) -> None:
    search.status = 503
    search.pages = [[listed("a")]]
    search.adopter.search(search.intend())
    await settle()
    search.status = 200
    await search.clock.advance(1.0)
    assert search.adopted == [("run1", "a")]


async def test_search_gives_up_after_ten_minutes(search: Search) -> None:
    pending = search.adopter.search(search.intend())
    await search.clock.advance(599.0)
    assert "run1" in search.store.runs
    await search.clock.advance(32.0)
    assert search.store.runs == {}
    assert isinstance(await pending.wait(0.0), NotSent)
    assert search.observer.of("orphan_resolved") == ["released"]


async def test_unavailable_store_delays_giving_up(search: Search) -> None:
    fail(search.store, "discard_intent", StoreUnavailable("away"))
    pending = search.adopter.search(search.intend())
    await search.clock.advance(631.0)
    assert "run1" in search.store.runs
    await search.clock.advance(31.0)
    assert isinstance(await pending.wait(0.0), NotSent)


async def test_callers_share_one_search(search: Search) -> None:
    run = search.intend()
    assert search.adopter.search(run) is search.adopter.search(run)
    await settle()
    assert search.reads == 1


async def test_restart_searches_for_every_intent(search: Search) -> None:
    search.intend("run1")
    search.intend("run2")
    search.store.add(live("run3"))
    search.pages = [[listed("a")]]
    assert await search.adopter.resume() == 2
    await settle()
    assert len(search.adopted) == 1
    states = sorted(run.state for run in search.store.runs.values())
    assert states == [RunState.INTENDED, RunState.LIVE, RunState.LIVE]


async def test_closing_stops_every_search(search: Search) -> None:
    search.adopter.search(search.intend())
    await settle()
    await search.adopter.close()
    reads = search.reads
    await search.clock.advance(60.0)
    assert search.reads == reads


HIDDEN = json.dumps({"version": "acme/toy", "input": {"prompt": REDACTED}}).encode()


async def test_only_run_that_is_equal_but_for_secrets_is_adopted(search: Search) -> None:
    search.store.add(live("other", upstream_id="a"))
    search.pages = [[listed("a", REDACTED), listed("b", REDACTED), listed("c", REDACTED, OLDEST)]]
    search.adopter.search(search.intend(request=HIDDEN))
    await settle()
    assert search.adopted == [("run1", "b")]


async def test_one_of_two_runs_that_are_equal_but_for_secrets_is_not_adopted(search: Search) -> None:
    search.pages = [[listed("a", REDACTED)], [listed("b", REDACTED, OLDER)]]
    search.adopter.search(search.intend(request=HIDDEN))
    await settle()
    assert search.adopted == []


async def test_run_is_not_adopted_if_two_intents_are_equal_but_for_secrets(search: Search) -> None:
    """Whoever got it could get the other's result. Both are given up, and the last one does not get it either."""
    search.pages = [[listed("a", REDACTED)]]
    for name in ("run1", "run2"):
        search.adopter.search(search.intend(name, HIDDEN))
    await settle()
    for _ in range(30):
        await search.clock.advance(30.0)
    assert search.adopted == []
    assert search.observer.of("orphan_resolved") == ["released", "released"]


def asking(prompt: str) -> bytes:
    return json.dumps({"version": "acme/toy", "input": {"prompt": prompt}}).encode()


async def test_one_sweep_serves_all_intents(search: Search) -> None:
    """The number of reads does not depend on the number of uncertain creates."""
    search.pages = [[listed(f"u{number}", str(number)) for number in range(page, page + 50)] for page in (0, 50)]
    runs = [search.intend(f"run{number}", asking(str(number))) for number in range(200)]
    for run in runs:
        search.adopter.search(run)
    await settle()
    assert sorted(search.adopted) == sorted((f"run{number}", f"u{number}") for number in range(100))
    assert (search.reads, search.adopter.searching) == (2, 100)
    await search.clock.advance(60.0)
    assert search.reads < 2 * 12


async def test_equal_intents_get_a_run_each(search: Search) -> None:
    """As many as upstream lists; the others go on."""
    search.pages = [[listed("a"), listed("b")]]
    for name in ("run1", "run2", "run3"):
        search.adopter.search(search.intend(name))
    await settle()
    assert [upstream_id for _, upstream_id in search.adopted] == ["a", "b"]
    assert (search.reads, search.adopter.searching) == (1, 1)


async def test_new_intent_is_searched_for_without_the_pause_of_older_ones(search: Search) -> None:
    search.adopter.search(search.intend())
    await search.clock.advance(100.0)
    reads = search.reads
    search.pages = [[listed("b", "two")]]
    search.adopter.search(search.intend("run2", asking("two")))
    await settle()
    assert (search.adopted, search.reads) == ([("run2", "b")], reads + 1)


async def test_many_new_intents_do_not_add_reads(search: Search) -> None:
    """A sweep of ten pages is followed by a pause of five seconds, whatever happens meanwhile."""
    search.pages = [[listed(f"u{page}", "other")] for page in range(10)]
    for number in range(50):
        search.adopter.search(search.intend(f"run{number}"))
        await search.clock.advance(0.2)
    assert 20 <= search.reads <= 30


async def test_intent_is_not_released_before_a_whole_search(search: Search) -> None:
    """While the list cannot be read, upstream may have the run."""
    search.adopter.search(search.intend())
    await search.clock.advance(590.0)
    search.status = 503
    await search.clock.advance(300.0)
    assert "run1" in search.store.runs
    search.status = 200
    await search.clock.advance(31.0)
    assert search.store.runs == {}


async def test_sweep_reads_at_most_twenty_pages_before_intents_are_due(search: Search) -> None:
    """Then it reads on, back to the intents that it may release."""
    search.pages = [[listed(f"u{page}", "other")] for page in range(60)] + [[listed("a")]]
    search.adopter.search(search.intend())
    await settle()
    assert (search.reads, search.adopted) == (20, [])
    await search.clock.advance(570.0)
    assert search.adopted == []
    await search.clock.advance(62.0)
    assert (search.adopted, search.observer.of("orphan_resolved")) == ([("run1", "a")], ["adopted"])


async def test_failure_for_one_intent_does_not_stop_the_others(search: Search) -> None:
    search.pages = [[listed("a"), listed("b", "two")]]
    fail(search.store, "run", StoreUnavailable("away"))
    search.adopter.search(search.intend())
    search.adopter.search(search.intend("run2", asking("two")))
    await settle()
    await search.clock.advance(1.0)
    assert sorted(search.adopted) == [("run1", "a"), ("run2", "b")]


async def test_large_requests_are_not_kept_in_memory_and_are_found(search: Search) -> None:
    """Upstream's trouble must not fill the memory with the inputs of all uncertain creates."""
    prompts = [letter * 100_000 for letter in "ab"]
    search.pages = [[listed(f"u{prompt[0]}", prompt) for prompt in prompts]]
    pending = [search.adopter.search(search.intend(f"run{prompt[0]}", asking(prompt))) for prompt in prompts]
    assert [each.run.request for each in pending] == [b"", b""]
    await settle()
    assert sorted(search.adopted) == [("runa", "ua"), ("runb", "ub")]


_FILTERS = ("created_after", "created_before")


class LargeList:
    """A list whose answers are too large to be read if they have more than one of the large runs."""

    def __init__(self, *runs: tuple[float, dict[str, Any], bool]) -> None:
        """Take runs with their times of creation, and whether they are large."""
        self.runs = runs

    def __call__(self, call: Call) -> Answer:
        asked = dict(parse_qsl(call.query))
        after, before = (times.parse(asked[name]) if name in asked else None for name in _FILTERS)
        found = [
            each
            for each in sorted(self.runs, key=lambda run: -run[0])
            if (after is None or each[0] >= after) and (before is None or each[0] < before)
        ]
        if sum(is_large for _, _, is_large in found) > 1:
            raise UpstreamTooLarge("Too large.")
        return answer(200, json.dumps({"results": [run for _, run, _ in found], "next": None}).encode())


def at(seconds: float, name: str, prompt: str, *, is_large: bool = False) -> tuple[float, dict[str, Any], bool]:
    return START + seconds, listed(name, prompt, times.render(START + seconds)), is_large


async def test_list_that_is_too_large_is_read_in_parts(search: Search) -> None:
    """Large inputs of others neither hide a run nor keep the reservation of one that was not created."""
    others = [at(2.0 * number, f"l{number}", "large", is_large=True) for number in range(40)]
    search.upstream.script = LargeList(*others, at(31.0, "mine", "one"))
    search.adopter.search(search.intend())
    search.adopter.search(search.intend("run2", REQUEST.replace(b"one", b"two")))
    await search.clock.advance(100.0)
    await search.clock.advance(600.0)
    assert search.adopted == [("run1", "mine")]
    assert "run2" not in search.store.runs


async def test_intent_is_kept_while_a_part_of_the_list_cannot_be_read(search: Search) -> None:
    """Its run may be there. Intents that are newer than that part are not concerned."""
    search.upstream.script = LargeList(*[at(5.0, f"l{number}", "large", is_large=True) for number in range(2)])
    search.adopter.search(search.intend())
    later = msgspec.structs.replace(search.intend("run2"), intended_at=START + 20)
    search.store.runs["run2"] = later
    search.adopter.search(later)
    await search.clock.advance(700.0)
    assert list(search.store.runs) == ["run1"]
