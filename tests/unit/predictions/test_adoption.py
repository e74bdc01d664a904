"""Searches in upstream's list for the runs of uncertain creates."""

import asyncio
import json
from typing import Any

import pytest

from gateway.domain.records import RunState
from gateway.errors import StoreUnavailable, UpstreamTimeout
from gateway.models.rules.secrets import REDACTED
from gateway.predictions.in_flight import NotSent
from tests.support.adoption_search import OLDER, OLDEST, REQUEST, Search, listed
from tests.support.clock import START, settle
from tests.support.fakes import AWAY, Call, answer
from tests.support.records import intent, live
from tests.support.sharing_store import fail


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
