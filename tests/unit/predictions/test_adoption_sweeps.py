"""One sweep over the list of upstream serves all intents whose create has an unknown outcome."""

import json
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from gateway.domain import times
from gateway.domain.upstream_response import Answer
from gateway.errors import StoreUnavailable, UpstreamTooLarge
from tests.support.adoption_search import REQUEST, Search, at, listed
from tests.support.clock import START, settle
from tests.support.fakes import Call, answer
from tests.support.sharing_store import fail


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
