"""Hits that are gathered: written at once, gathered during a step, and none is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from gateway.domain.cache_directives import Directives
from gateway.domain.create_request import Created
from gateway.domain.records import Run, Source, Status
from gateway.errors import Conflict, StoreUnavailable
from gateway.predictions import hits
from gateway.predictions.ports.sharing import MOST_HITS, FinishedRuns, Hit, HitRequests, ShareRequest
from tests.support.clock import settle
from tests.support.create_core import CreateCore, caller, command
from tests.support.records import ended, prediction, wish
from tests.support.sharing_store import fail


@pytest.fixture
async def core() -> AsyncIterator[CreateCore]:
    made = CreateCore()
    yield made
    await made.close()


async def known_run(core: CreateCore, prompt: str = "one", **fields: object) -> Run:
    """Add a finished run of this prompt, of which the gateway knows that it answers requests."""
    _, identity = await core.context(prompt)
    at = core.clock.now() - 5.0
    given = {"fingerprint": identity.fingerprint, "cache_until": core.clock.now() + 60, "leader_id": prompt}
    run = ended(f"run {prompt}", at, **given | fields)
    core.store.add(run, prediction(prompt, run.id, kind=run.kind))
    core.hits.remember(run)
    return run


def hold(core: CreateCore) -> asyncio.Event:
    core.store.held["record_hits"] = asyncio.Event()
    return core.store.held["record_hits"]


async def test_expected_hit_takes_one_step(core: CreateCore) -> None:
    """No task for it, and no single step; it is counted and announced like any other."""
    run = await known_run(core)
    made = await core.create()
    assert made.view.prediction.source is Source.HIT
    assert made.view.run == run
    assert made.cache_status == "replicate-gateway; hit; ttl=60"
    assert core.steps == ["record_hits"]
    assert core.announced == [made.view]
    assert core.observer.of("saved") == [("red", "hit", 7)]
    assert core.observer.of("prediction_created") == [("red", "acme/toy", Source.HIT)]
    assert core.observer.finished == [("red", Status.SUCCEEDED)]


async def test_run_that_ends_is_expected_to_answer(core: CreateCore) -> None:
    """The first equal request after the end needs no single step already."""
    core.replicate.status = "succeeded"
    await core.create()
    before = len(core.steps)
    assert (await core.create()).view.prediction.source is Source.HIT
    assert core.steps[before:] == ["record_hits"]


async def test_hit_by_a_single_step_lets_the_next_be_expected(core: CreateCore) -> None:
    """After a restart nothing is known: the first hit of each result is looked for."""
    run = await known_run(core)
    fresh = CreateCore()
    fresh.store.add(run, prediction(run.leader_id, run.id))
    for _ in range(2):
        assert (await fresh.create()).view.run == run
    assert fresh.steps == ["share", "record_hits"]
    await fresh.close()


async def test_hits_that_come_during_a_step_share_the_next(core: CreateCore) -> None:
    """As many as one step may record go with the first; the rest is one step more, not one each."""
    await known_run(core)
    held = hold(core)
    asked = [core.ask() for _ in range(MOST_HITS + 5)]
    await settle()
    assert core.hits.waiting == MOST_HITS + 5
    assert core.steps == ["record_hits"]
    held.set()
    made = await asyncio.gather(*asked)
    assert core.steps == ["record_hits"] * 2
    assert len({each.view.prediction.id for each in made if isinstance(each, Created)}) == MOST_HITS + 5
    assert (core.counted, core.hits.waiting) == (MOST_HITS + 5, 0)


async def test_entry_that_is_gone_costs_one_failed_try(core: CreateCore) -> None:
    """Another process has purged the cache: the caller gets a run of its own, and the result is not tried again."""
    run = await known_run(core)
    core.store.runs[run.id] = replace(run, cache_until=None)
    assert (await core.create()).view.prediction.source is Source.MISS
    assert core.steps == ["record_hits", "share", "start", "record_created"]
    assert not core.hits.expects(wish(fingerprint=run.fingerprint, now=core.clock.now()).request)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, True),
        ({"idempotency_key": "k"}, False),
        ({"webhook": "https://a.example/hook"}, False),
        ({"directives": Directives(no_cache=True)}, False),
        ({"directives": Directives(max_age=10)}, True),
        ({"directives": Directives(max_age=4)}, False),
    ],
)
async def test_only_plain_hits_are_gathered(core: CreateCore, fields: dict[str, object], expected: bool) -> None:
    """What is recorded with a key or a webhook takes the single step, and so does what the result is too old for."""
    await known_run(core)
    await core.create(**fields)
    assert ("record_hits" in core.steps) == expected


async def test_expired_result_is_not_tried(core: CreateCore) -> None:
    await known_run(core)
    await core.clock.advance(60.0)
    await core.create()
    assert "record_hits" not in core.steps


async def test_large_results_are_left_to_single_steps(core: CreateCore) -> None:
    """The documents of a set are in memory at once."""
    await known_run(core, document=b"x" * (64 * 1024 + 1))
    assert (await core.create()).view.prediction.source is Source.HIT
    assert core.steps == ["share"]


async def test_large_result_after_a_small_one_is_left_to_single_steps(core: CreateCore) -> None:
    """The newest result answers. That an older one was small says nothing about it."""
    run = await known_run(core)
    newest = replace(run, id="newest", ended_at=core.clock.now(), document=b"x" * (64 * 1024 + 1))
    core.store.add(newest, prediction("newest", newest.id))
    core.hits.remember(newest)
    assert (await core.create()).view.run == newest
    assert core.steps == ["share"]


async def test_caller_who_leaves_keeps_the_hit_and_stops_nobody(core: CreateCore) -> None:
    """It is recorded, counted and announced; the others of the set are answered."""
    await known_run(core)
    held = hold(core)
    leaving, staying = core.ask(), core.ask()
    await settle()
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    held.set()
    made = await staying
    assert isinstance(made, Created)
    assert len(core.announced) == 2
    assert core.counted == 2
    assert core.observer.finished == [("red", Status.SUCCEEDED)] * 2


async def test_store_failure_is_every_callers(core: CreateCore) -> None:
    """The same error as of a single step. The next hit is tried again."""
    await known_run(core)
    held = hold(core)
    asked = [core.ask() for _ in range(3)]
    await settle()
    fail(core.store, "record_hits", StoreUnavailable("away"))
    asked[0].cancel()
    held.set()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) for each in outcomes] == [asyncio.CancelledError, StoreUnavailable, StoreUnavailable]
    assert (core.announced, core.hits.waiting) == ([], 0)
    assert (await core.create()).view.prediction.source is Source.HIT


async def test_failed_step_fails_only_those_who_have_waited_for_it(core: CreateCore) -> None:
    """Callers that come during a step that fails have time left: the next step is theirs."""
    await known_run(core)
    held = hold(core)
    early = [core.ask() for _ in range(2)]
    await settle()
    late = [core.ask() for _ in range(3)]
    await settle()
    fail(core.store, "record_hits", StoreUnavailable("late"))
    held.set()
    outcomes = await asyncio.gather(*early, *late, return_exceptions=True)
    assert [type(each) for each in outcomes] == [StoreUnavailable] * 2 + [Created] * 3
    assert core.steps == ["record_hits", "record_hits"]
    assert (core.counted, core.hits.waiting) == (3, 0)


async def test_hits_that_a_late_step_has_taken_are_not_tried_again(core: CreateCore) -> None:
    """It may record them yet. Those that it has not taken it takes no more."""
    taken: list[int] = []
    steps: list[tuple[HitRequests, asyncio.Future[list[Hit | None]]]] = []

    class Late:
        def record_hits(self, requests: HitRequests) -> asyncio.Future[list[Hit | None]]:
            steps.append((requests, asyncio.get_running_loop().create_future()))
            return steps[-1][1]

    recorder = hits.HitRecorder(Late(), core.events, core.observer, core.observer)  # type: ignore[arg-type]
    first = [recorder.record(wish(name, fingerprint="F").request) for name in ("1", "2")]
    await settle()
    second = [recorder.record(wish(name, fingerprint="F").request) for name in ("3", "4")]
    requests, step = steps[0]
    taken.append(len(requests[:3]))
    step.set_exception(StoreUnavailable("The store did not answer in time."))
    await settle()
    assert [future.done() for future in (*first, *second)] == [True, True, True, False]
    assert requests[:MOST_HITS] == []
    assert [each.prediction.id for each in steps[1][0][:MOST_HITS]] == ["p4"]
    steps[1][1].set_result([None])
    assert await second[1] is None
    assert taken == [3]
    for future in (*first, second[0]):
        with pytest.raises(StoreUnavailable):
            await future


async def test_defect_of_one_hit_is_its_own(core: CreateCore) -> None:
    """A record that cannot be read, for example: each is tried alone."""
    await known_run(core)
    fail(core.store, "record_hits", ValueError("damaged"))
    made = await asyncio.gather(*(core.ask() for _ in range(3)))
    assert [each.view.prediction.source for each in made if isinstance(each, Created)] == [Source.HIT] * 3
    assert core.steps == ["record_hits", "share", "share", "share"]


async def test_store_that_takes_no_step_fails_the_hits(core: CreateCore) -> None:
    class Closed:
        def record_hits(self, _: object) -> None:
            raise StoreUnavailable("closed")

    recorder = hits.HitRecorder(Closed(), core.events, core.observer, core.observer)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable):
        await recorder.record(wish(fingerprint="F").request)
    assert recorder.waiting == 0


async def test_refused_set_is_tried_one_by_one(core: CreateCore) -> None:
    """An id that exists refuses its own create only."""
    await known_run(core)
    fail(core.store, "record_hits", Conflict("exists"))
    made = await asyncio.gather(*(core.ask() for _ in range(3)))
    assert [each.view.prediction.source for each in made if isinstance(each, Created)] == [Source.HIT] * 3
    assert core.steps == ["record_hits", "share", "share", "share"]


async def test_queue_is_bounded(core: CreateCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "_MOST_WAITING", 2)
    await known_run(core)
    held = hold(core)
    asked = [core.ask() for _ in range(2)]
    await settle()
    with pytest.raises(StoreUnavailable):
        await core.create()
    held.set()
    await asyncio.gather(*asked)


async def test_memory_is_bounded_and_forgets_the_oldest(core: CreateCore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hits, "_MOST_KNOWN", 3)
    at = core.clock.now()

    def request(n: int) -> ShareRequest:
        return replace(wish(str(n), now=at).request, may_hit=FinishedRuns(f"F{n}"))

    for n in (0, 1, 2, 0, 3):
        core.hits.remember(ended(f"run{n}", at, fingerprint=f"F{n}", cache_until=at + 60))
    assert [n for n in range(4) if core.hits.expects(request(n))] == [0, 2, 3]


async def test_closing_waits_for_the_hits_in_progress(core: CreateCore) -> None:
    await known_run(core)
    held = hold(core)
    first = core.ask()
    await settle()
    await core.hits.close(0.0)
    assert not first.done()
    closing = asyncio.create_task(core.creates.close(60.0))
    await settle()
    assert not closing.done()
    held.set()
    await closing
    assert isinstance(await first, Created)


async def test_hits_of_two_teams_are_counted_each(core: CreateCore) -> None:
    """Teams that share results (`share = "all"`) have one fingerprint: counts and savings are of each team."""
    run = await known_run(core)
    held = hold(core)
    requests = [
        replace(each, prediction=replace(each.prediction, team=team))
        for team, each in (
            (team, wish(f"{n}", fingerprint=run.fingerprint, now=core.clock.now()).request)
            for n, team in enumerate(["red", "blue", "red"])
        )
    ]
    waiting = [core.hits.record(each) for each in requests]
    held.set()
    await asyncio.gather(*waiting)
    assert core.observer.of("saved") == [("red", "hit", 14), ("blue", "hit", 7)]
    assert core.observer.count("prediction_created") == 3
    assert core.observer.of("prediction_created").count(("blue", "acme/toy", Source.HIT)) == 1


async def test_right_to_run_the_target_is_checked_before_hits(core: CreateCore) -> None:
    """Knowing a result does not let a caller have it whose key may not run the model."""
    await known_run(core)
    limited = replace(caller(), models=(("other/*",),))
    with pytest.raises(Exception, match="not allowed"):
        await core.creates.create(limited, command())
    assert core.steps == []
