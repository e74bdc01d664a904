"""Creates: every outcome of the store, every error path, and callers who disconnect."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from msgspec.structs import replace

from gateway.domain import tickets
from gateway.domain.cache_directives import Directives
from gateway.domain.create_request import Created
from gateway.domain.hold import Hold
from gateway.domain.limits import Allowance, Limits, SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus, rate_status
from gateway.domain.quota import Refused as LimitRefused
from gateway.domain.records import RunState, Source, Status
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    BudgetExceeded,
    Conflict,
    NotCached,
    PriceUnknown,
    RateLimited,
    StoreUnavailable,
    Unprocessable,
    UpstreamUnavailable,
)
from gateway.money.rules.pricing import UnknownPolicy
from gateway.predictions.events import Listener
from gateway.predictions.in_flight import NotSent
from gateway.sharing.rules.determinism import Policy as SharingPolicy
from tests.support.clock import settle
from tests.support.create_core import SECRET, SEEDED, SEEDLESS, VERSION, CreateCore, caller, command
from tests.support.fakes import answer
from tests.support.records import ended, intent, live, prediction
from tests.support.sharing_store import fail


def refusal(kind: LimitKind, retry_after: float = 1.0) -> LimitRefused:
    standing = LimitStatus(
        name="limit",
        of=SubjectKind.TEAM,
        scope="team/red",
        kind=kind,
        limit=1,
        used=1,
        held=0,
        remaining=0,
        resets_at=None,
    )
    return LimitRefused(standing, retry_after)


async def fingerprint(core: CreateCore, *args: str) -> str:
    _, identity = await core.context(*args)
    assert identity.fingerprint is not None
    return identity.fingerprint


async def add_finished(core: CreateCore) -> None:
    now = core.clock.now()
    run = ended("old", now - 5, fingerprint=await fingerprint(core), cache_until=now + 100)
    core.store.add(run, prediction("pold", "old"))


async def add_open(core: CreateCore) -> None:
    core.store.add(live("old", fingerprint=await fingerprint(core)), prediction("upold", "old"))


@pytest.fixture
async def unpriced() -> AsyncIterator[CreateCore]:
    """Prices are unknown, and such runs are refused: whatever asks for a price fails."""
    made = CreateCore(
        unknown_prices=UnknownPolicy.REFUSE, webhook_of=lambda run_id: pytest.fail(f"address of {run_id}")
    )
    yield made
    await made.close()


# Outcomes


async def test_miss_is_started_then_created_then_recorded(core: CreateCore) -> None:
    """Three steps of the store before the response, which shows the view that was recorded."""
    created = await core.create()
    assert core.steps == ["share", "start", "record_created"]
    run = core.store.runs[created.view.run.id]
    assert created.view.run == run
    assert created.view.prediction == core.store.kept[created.view.prediction.id]
    assert (created.view.prediction.id, run.state, run.leader_id) == (
        "1".rjust(26, "0"),
        RunState.LIVE,
        "1".rjust(26, "0"),
    )
    assert created.view.prediction.source is Source.MISS
    assert (created.cache_status, created.is_replay) == ("replicate-gateway; fwd=miss; stored", False)
    assert created.answer is not None
    assert created.answer.headers["ratelimit-remaining"] == "9"
    assert (core.replicate.sent, core.counted, len(core.announced)) == (1, 1, 1)
    assert len(core.pending) == 0
    await settle()
    assert core.steps[3:] == []


async def test_ticket_belongs_to_the_returned_id(core: CreateCore) -> None:
    made = (await core.create()).view.prediction
    assert tickets.prediction_of(SECRET, tickets.ticket(SECRET, made.id)) == made.id
    assert made.ticket == ""


async def test_unshareable_request_skips_the_lookup() -> None:
    """Without a key and an identity, `share` would find nothing."""
    core = CreateCore(policy=SharingPolicy(enabled=False))
    created = await core.create()
    assert core.steps == ["start", "record_created"]
    assert created.view.prediction.source is Source.BYPASS
    assert core.observer.of("cache_bypassed") == ["disabled"]
    await core.close()


async def test_model_is_learned_after_the_response(core: CreateCore) -> None:
    """The caller has its response while the store still writes the version map."""
    core.store.held["learn_version"] = asyncio.Event()
    created = await core.create(target=f"acme/toy:{VERSION}")
    assert created.view.run.state is RunState.LIVE
    await settle()
    assert core.steps == ["share", "start", "record_created", "learn_version"]
    assert await core.versions.model_of(VERSION) == "acme/toy"


async def test_hit_needs_neither_price_nor_run_nor_body(unpriced: CreateCore) -> None:
    await add_finished(unpriced)
    created = await unpriced.create()
    assert unpriced.steps == ["share"]
    assert (created.view.run.id, created.view.prediction.source) == ("old", Source.HIT)
    assert created.cache_status == "replicate-gateway; hit; ttl=100"
    assert created.answer is None
    assert unpriced.replicate.sent == 0
    assert unpriced.observer.of("saved") == [("red", "hit", 7)]
    assert unpriced.observer.of("prediction_finished") == [("red", Status.SUCCEEDED)]
    assert (unpriced.counted, len(unpriced.announced), len(unpriced.pending)) == (1, 1, 0)


async def test_join_needs_neither_price_nor_run_nor_body(unpriced: CreateCore) -> None:
    await add_open(unpriced)
    created = await unpriced.create(cancel_after=30.0)
    assert unpriced.steps == ["share"]
    assert (created.view.run.id, created.view.prediction.source) == ("old", Source.JOINED)
    assert created.cache_status == "replicate-gateway; fwd=miss; collapsed"
    assert (unpriced.replicate.sent, unpriced.counted, unpriced.deadlines.pending) == (0, 1, 1)


async def test_run_without_a_price_is_refused_before_anything_is_recorded(unpriced: CreateCore) -> None:
    with pytest.raises(PriceUnknown):
        await unpriced.create()
    assert unpriced.steps == ["share"]
    assert len(unpriced.pending) == 0


@pytest.mark.parametrize("add", [add_finished, add_open])
async def test_run_that_appears_after_the_lookup_is_shared(
    core: CreateCore, add: Callable[[CreateCore], Awaitable[None]]
) -> None:
    """Another create was faster: this one starts no run and sends nothing upstream."""
    await add(core)
    late = dict(core.store.runs), dict(core.store.kept)
    core.store.runs.clear()
    core.store.kept.clear()

    def come() -> None:
        core.store.runs.update(late[0])
        core.store.kept.update(late[1])

    core.store.before["start"] = come
    created = await core.create()
    assert core.steps == ["share", "start"]
    assert created.view.run.id == "old"
    assert created.view.prediction.source in (Source.HIT, Source.JOINED)
    assert list(core.store.runs) == ["old"]
    assert (core.replicate.sent, len(core.pending), core.counted) == (0, 0, 1)


async def test_equal_key_that_appears_after_the_lookup_is_pending(core: CreateCore) -> None:
    first = core.ask(idempotency_key="k")
    core.replicate.held = asyncio.Event()
    await settle()
    used = dict(core.store.keys_used)
    core.store.keys_used.clear()
    core.store.before["start"] = lambda: core.store.keys_used.update(used)
    with pytest.raises(Conflict):
        await core.create(idempotency_key="k", directives=Directives(no_store=True))
    assert core.steps == ["share", "start", "share", "start"]
    core.replicate.held.set()
    await first
    assert core.replicate.sent == 1


async def test_repeated_key_returns_the_first_prediction(core: CreateCore) -> None:
    first = await core.create(idempotency_key="k")
    again = await core.create(idempotency_key="k")
    assert (again.view, again.is_replay) == (first.view, True)
    assert again.cache_status == "replicate-gateway; hit; detail=idempotency-key"
    assert (core.replicate.sent, core.counted) == (1, 1)


async def test_key_of_another_request_is_refused(core: CreateCore) -> None:
    await core.create(idempotency_key="k")
    with pytest.raises(Unprocessable):
        await core.create("two", idempotency_key="k")
    assert core.replicate.sent == 1


async def test_key_digest_matches_records_of_older_versions(core: CreateCore) -> None:
    """A digest that was stored before an upgrade still matches: the same bytes are hashed."""
    await core.create(idempotency_key="k", webhook="https://x.example/")
    ((given, _),) = core.store.keys_used.values()
    body = command().body
    parts = (b"/predictions", body.for_upstream(), b"https://x.example/")
    assert given.body_digest.startswith("hmac:")
    assert given.is_of(hashlib.sha256(b"\0".join(parts)).hexdigest())
    assert json.loads(body.for_upstream()) == {"version": "acme/toy", "input": {"prompt": "one", "seed": 7}}


async def test_only_if_cached_starts_nothing(core: CreateCore) -> None:
    wish = Directives(only_if_cached=True)
    with pytest.raises(NotCached):
        await core.create(directives=wish)
    assert core.steps == ["share"]
    await add_finished(core)
    assert (await core.create(directives=wish)).view.run.id == "old"


async def test_only_if_cached_for_an_unshareable_request_queries_nothing() -> None:
    core = CreateCore(policy=SharingPolicy(enabled=False))
    with pytest.raises(NotCached):
        await core.create(directives=Directives(only_if_cached=True))
    assert core.steps == []
    await core.close()


async def test_no_cache_skips_finished_runs_and_max_age_takes_young_ones(core: CreateCore) -> None:
    await add_finished(core)
    assert (await core.create(directives=Directives(max_age=10))).view.run.id == "old"
    assert (await core.create(directives=Directives(max_age=4))).view.run.id != "old"
    core.store.runs = {"old": core.store.runs["old"]}
    assert (await core.create(directives=Directives(no_cache=True))).view.run.id != "old"


async def test_upstream_refusal_is_the_response(core: CreateCore) -> None:
    core.replicate.script = [answer(422, b'{"detail": "no"}')]
    refused = await core.creates.create(caller(), command())
    assert isinstance(refused, Answer)
    assert (refused.status, refused.body) == (422, b'{"detail": "no"}')
    assert (core.store.runs, core.store.kept, core.counted) == ({}, {}, 0)


# Limits


async def test_exceeded_budget_refuses_at_once(core: CreateCore) -> None:
    core.store.refusals = [refusal(LimitKind.DOLLARS)]
    with pytest.raises(BudgetExceeded):
        await core.create()
    assert (core.replicate.sent, core.store.runs, len(core.pending)) == (0, {}, 0)


async def test_rate_limit_delays_a_create_until_it_may_start(core: CreateCore) -> None:
    core.store.refusals = [refusal(LimitKind.RATE, retry_after=3.0)]
    task = core.ask()
    await settle()
    assert (core.limit_queue.waiting, core.replicate.sent, len(core.pending)) == (1, 0, 0)
    await core.clock.advance(3.0)
    created = await task
    assert not isinstance(created, Answer)
    assert core.steps == ["share", "start", "share", "start", "record_created"]
    assert core.limit_queue.waiting == 0
    admitted = created.view.prediction.admitted
    assert admitted is not None
    assert admitted.waited_seconds == 3.0


async def test_create_waiting_for_a_limit_can_join_a_run(core: CreateCore) -> None:
    core.store.refusals = [refusal(LimitKind.CONCURRENCY)]
    task = core.ask()
    await settle()
    await add_finished(core)
    await core.clock.advance(1.0)
    made = await task
    assert not isinstance(made, Answer)
    assert made.view.prediction.source is Source.HIT
    assert (core.limit_queue.waiting, core.replicate.sent) == (0, 0)


async def test_create_waits_no_longer_than_the_maximum(core: CreateCore) -> None:
    core.store.refusals = [refusal(LimitKind.CONCURRENCY)] * 9
    task = core.ask(hold_until=core.clock.monotonic() + 5.0)
    await settle()
    await core.clock.advance(5.0)
    with pytest.raises(RateLimited):
        await task
    assert core.store.runs == {}


async def test_reload_of_the_config_lets_a_waiting_create_try_with_the_new_limits(core: CreateCore) -> None:
    core.store.refusals = [refusal(LimitKind.CONCURRENCY)]
    core.teams.subscribe(lambda _: core.limit_queue.retry())
    task = core.ask()
    await settle()
    team = replace(caller().team, allowance=Allowance(own=Limits(concurrent_predictions=9)))
    core.teams.replace({team.name: team})
    created = await task
    assert isinstance(created, Created)
    reserved = core.store.reserved[created.view.run.id]
    assert reserved is not None
    assert [each.concurrent for each in reserved.allowances] == [9]
    assert core.clock.monotonic() == 1000.0


async def test_create_that_a_rate_cannot_admit_in_time_is_refused_at_once(core: CreateCore) -> None:
    """With the time to retry, and without a pause in which nothing happens."""
    core.store.refusals = [refusal(LimitKind.RATE, retry_after=60.0)] * 2
    with pytest.raises(RateLimited) as refused:
        await core.create(hold_until=core.clock.monotonic() + 59.0)
    assert refused.value.retry_after == 60
    assert (core.store.runs, core.limit_queue.waiting) == ({}, 0)


async def test_hit_without_a_place_for_its_webhook_waits_for_one(core: CreateCore) -> None:
    """Later hits wait behind it; those without a webhook, and repeated requests, do not."""
    await add_finished(core)
    core.store.no_place = [refusal(LimitKind.WEBHOOKS)] * 2
    hook = "https://a.example/hook"
    scope = "webhooks/" + caller().team.name
    core.store.no_place = [replace(each, status=replace(each.status, scope=scope)) for each in core.store.no_place]
    first = core.ask(webhook=hook)
    await settle()
    later = core.ask(webhook=hook)
    await settle()
    assert core.limit_queue.waiting == 2
    assert core.steps.count("share") == 1
    assert (await core.create()).view.prediction.source is Source.HIT
    await core.clock.advance(3.0)
    for task in (first, later):
        made = await task
        assert not isinstance(made, Answer)
        assert made.view.prediction.source is Source.HIT
    assert core.replicate.sent == 0
    assert core.limit_queue.waiting == 0


async def test_hit_that_was_held_says_so(core: CreateCore) -> None:
    """Its explanation has the wait, although it has no reservation."""
    await add_finished(core)
    hold = Hold()
    hold.add(2.0, rate_status("requests_per_minute", SubjectKind.TEAM, 60))
    made = await core.create(hold=hold)
    admitted = made.view.prediction.admitted
    assert made.view.prediction.source is Source.HIT
    assert admitted is not None
    assert (admitted.waited_seconds, admitted.waited_for and admitted.waited_for.name) == (2.0, "requests_per_minute")


async def test_disconnect_while_waiting_for_a_limit_leaves_nothing(core: CreateCore) -> None:
    core.store.refusals = [refusal(LimitKind.RATE, retry_after=3.0)]
    task = core.ask()
    await settle()
    task.cancel()
    await settle()
    assert (core.limit_queue.waiting, core.store.runs, core.store.kept) == (0, {}, {})
    await core.clock.advance(10.0)
    assert core.replicate.sent == 0


# Callers who disconnect


@pytest.mark.parametrize("step", ["share", "start", "record_created"])
async def test_disconnect_during_a_store_step_stops_nothing(core: CreateCore, step: str) -> None:
    """The work continues: the run is created once, recorded, counted and followed."""
    core.store.held[step] = asyncio.Event()
    task = core.ask()
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    core.store.held[step].set()
    await settle()
    (run,) = core.store.runs.values()
    assert (run.state, core.replicate.sent, core.counted, core.tracker.active) == (RunState.LIVE, 1, 1, 1)
    assert len(core.pending) == 0


async def test_disconnect_during_the_upstream_request_stops_nothing(core: CreateCore) -> None:
    core.replicate.held = asyncio.Event()
    task = core.ask()
    await settle()
    task.cancel()
    await settle()
    core.replicate.held.set()
    await settle()
    (run,) = core.store.runs.values()
    assert (run.state, core.counted, core.tracker.active) == (RunState.LIVE, 1, 1)


async def test_disconnect_during_a_join_keeps_the_prediction(core: CreateCore) -> None:
    """It was recorded: it is announced when the run exists, and can be listed."""
    core.replicate.held = asyncio.Event()
    first = core.ask()
    await settle()
    second = core.ask()
    await settle()
    second.cancel()
    await settle()
    core.replicate.held.set()
    await first
    await settle()
    assert sorted(view.prediction.source for view in core.announced) == [Source.JOINED, Source.MISS]
    assert core.counted == 2


async def test_disconnect_before_the_target_is_checked_starts_nothing(core: CreateCore) -> None:
    task = core.ask()
    task.cancel()
    await settle()
    assert core.steps == []


# The store fails


@pytest.mark.parametrize("is_done", [False, True])
async def test_start_with_an_unknown_result_is_discarded_later(core: CreateCore, is_done: bool) -> None:
    """It may have been recorded, but nothing was sent upstream, so nothing may remain."""
    failures = core.store.unheard if is_done else core.store.failures
    failures["start"] = [StoreUnavailable("away")]
    with pytest.raises(StoreUnavailable):
        await core.create()
    assert (len(core.store.runs), len(core.pending), core.replicate.sent) == (int(is_done), 0, 0)
    fail(core.store, "discard_intent", StoreUnavailable("still away"))
    await core.clock.advance(2.0)
    assert core.store.runs == {}
    assert (await core.create()).view.run.state is RunState.LIVE


async def test_caller_who_joined_a_discarded_start_starts_its_own_run() -> None:
    """Nothing was sent for the intent that it joined."""
    core = CreateCore(adopt_wait_seconds=5.0)
    core.store.unheard["start"] = [StoreUnavailable("away")]
    with pytest.raises(StoreUnavailable):
        await core.create()
    task = core.ask()
    await settle()
    assert core.pending.waiting == 1
    await core.clock.advance(2.0)
    made = await task
    assert not isinstance(made, Answer)
    assert (made.view.prediction.source, core.replicate.sent, len(core.store.runs)) == (Source.MISS, 1, 1)
    await core.close()


async def test_failed_lookup_starts_nothing(core: CreateCore) -> None:
    fail(core.store, "share", StoreUnavailable("away"))
    with pytest.raises(StoreUnavailable):
        await core.create()
    assert core.steps == ["share"]


# Joins


async def test_joined_callers_get_the_starters_response(core: CreateCore) -> None:
    core.replicate.held = asyncio.Event()
    tasks = [core.ask() for _ in range(3)]
    await settle()
    assert core.pending.waiting == 2
    core.replicate.script = [answer(422, b"no")]
    core.replicate.held.set()
    said = await asyncio.gather(*tasks)
    assert [each.status for each in said if isinstance(each, Answer)] == [422] * 3
    assert (core.store.runs, core.store.kept) == ({}, {})


async def test_joined_caller_retries_once_if_nothing_was_sent(core: CreateCore) -> None:
    core.replicate.held = asyncio.Event()
    first, second = core.ask(), core.ask()
    await settle()
    core.replicate.script = [UpstreamUnavailable("unreachable")]
    core.replicate.held.set()
    with pytest.raises(UpstreamUnavailable):
        await first
    made = await second
    assert not isinstance(made, Answer)
    assert (made.view.prediction.source, core.replicate.sent, core.counted) == (Source.MISS, 2, 1)


async def test_joined_caller_retries_at_most_once(core: CreateCore) -> None:
    core.replicate.script = [UpstreamUnavailable("one"), UpstreamUnavailable("two")]
    core.replicate.held = asyncio.Event()
    first = core.ask()
    await settle()
    second = core.ask()
    await settle()
    core.replicate.held.set()
    reported = await asyncio.gather(first, second, return_exceptions=True)
    assert [str(each) for each in reported] == ["one", "two"]
    assert (core.replicate.sent, len(core.pending)) == (2, 0)


async def test_join_that_fails_twice_raises_its_error(core: CreateCore) -> None:
    """Neither of the two runs that it joined was sent upstream."""
    core.store.add(intent("a", fingerprint=await fingerprint(core), leader_id="pa"), prediction("pa", "a"))
    pending = core.pending.start(core.store.runs["a"])
    task = core.ask()
    await settle()
    assert pending.waiters == 1
    core.pending.resolve("a", NotSent(UpstreamUnavailable("first")))
    again = core.pending.start(core.store.runs["a"])
    await settle()
    assert again.waiters == 1
    core.pending.resolve("a", NotSent(UpstreamUnavailable("second")))
    with pytest.raises(UpstreamUnavailable, match="second"):
        await task


async def test_abandoned_intent_is_searched_for_upstream(core: CreateCore) -> None:
    """Its process lost the store's result: upstream's list shows whether the run exists."""
    core.store.add(intent("a", fingerprint=await fingerprint(core), leader_id="pa"), prediction("pa", "a"))
    task = core.ask()
    await settle()
    assert core.replicate.upstream.count("predictions.list") == 1
    with pytest.raises(Exception, match="did not say"):
        await task


# Bare versions


@pytest.fixture
async def cold() -> AsyncIterator[CreateCore]:
    """The rules leave the decision to the model's schema, and no version is known."""
    made = CreateCore(policy=SharingPolicy())
    yield made
    await made.close()


async def test_equal_requests_of_an_unknown_model_share_if_its_schema_allows(cold: CreateCore) -> None:
    cold.replicate.schema = SEEDED
    cold.replicate.held = asyncio.Event()
    tasks = [cold.ask(target=VERSION) for _ in range(2)]
    await settle()
    cold.replicate.held.set()
    first, second = await asyncio.gather(*tasks)
    assert not isinstance(first, Answer)
    assert not isinstance(second, Answer)
    assert first.view.run.id == second.view.run.id
    assert (second.view.prediction.source, second.view.run.fingerprint is None) == (Source.JOINED, False)
    assert (cold.replicate.sent, cold.counted) == (1, 2)


@pytest.mark.parametrize("step", ["share", "start"])
@pytest.mark.parametrize("has_ended", [False, True])
async def test_request_that_is_late_for_an_unnamed_run_is_identified_again(
    cold: CreateCore, step: str, has_ended: bool
) -> None:
    """Between its identification and its step, an equal run was started, named and perhaps ended: it starts none."""
    cold.replicate.schema = SEEDED
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    event = cold.store.held[step] = asyncio.Event()
    task = cold.ask(target=VERSION)
    await settle()
    del cold.store.held[step]
    cold.store.add(run, prediction("upold", "old"))
    cold.tracker.follow(run)
    joined = await cold.create(target=VERSION)
    assert joined.view.prediction.source is Source.JOINED
    if has_ended:
        document = cold.replicate.document(9, id=run.upstream_id, status="succeeded")
        await cold.tracker.on_snapshot("old", json.dumps(document).encode())
        await settle()
    event.set()
    created = await task
    assert not isinstance(created, Answer)
    assert created.view.run.id == "old"
    assert created.view.prediction.source is (Source.HIT if has_ended else Source.JOINED)
    assert cold.replicate.sent == 0


async def test_run_that_is_named_while_its_end_is_recorded_is_kept(cold: CreateCore) -> None:
    """When its end was computed it had no identity; when it was recorded it had one. The next request is a hit."""
    cold.replicate.schema = SEEDED
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    cold.store.add(run, prediction("upold", "old"))
    cold.tracker.follow(run)
    cold.store.versions[VERSION] = str(cold.replicate.model)
    _, final = await cold.context(target=VERSION)
    assert final.fingerprint is not None
    # As `settle_identity` leaves it; the tracker does not know yet.
    cold.store.runs["old"] = replace(run, fingerprint=final.fingerprint, provisional=None)
    document = cold.replicate.document(9, id=run.upstream_id, status="succeeded")
    await cold.tracker.on_snapshot("old", json.dumps(document).encode())
    await settle()
    assert cold.store.runs["old"].cache_until is not None
    created = await cold.create(target=VERSION)
    assert (created.view.run.id, created.view.prediction.source) == ("old", Source.HIT)
    assert cold.replicate.sent == 0


async def test_equal_requests_of_an_unknown_model_separate_if_its_schema_forbids(cold: CreateCore) -> None:
    """The second is detached before anybody has seen its prediction, and gets its own run."""
    cold.replicate.schema = SEEDLESS
    cold.replicate.held = asyncio.Event()
    tasks = [cold.ask(target=VERSION) for _ in range(2)]
    await settle()
    cold.replicate.held.set()
    first, second = await asyncio.gather(*tasks)
    assert not isinstance(first, Answer)
    assert not isinstance(second, Answer)
    assert first.view.run.id != second.view.run.id
    assert (second.view.prediction.source, cold.replicate.sent, cold.counted) == (Source.BYPASS, 2, 2)
    assert len(cold.store.detached) == 1
    assert cold.store.detached[0] not in cold.store.kept
    # The first run continues: its own caller waits for it.
    assert cold.store.runs[first.view.run.id].cancel_asked_at is None


async def test_run_without_callers_after_a_detach_is_cancelled(cold: CreateCore) -> None:
    cold.replicate.schema = SEEDLESS
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    cold.store.add(run, replace(prediction("upold", "old"), canceled_at=1.0))
    created = await cold.create(target=VERSION)
    assert created.view.run.id != "old"
    await settle()
    assert cold.replicate.upstream.count("predictions.cancel") == 1


async def test_end_during_a_detach_is_reported_once(cold: CreateCore) -> None:
    """The run ends while its last prediction is removed from it: nobody follows it again."""
    cold.replicate.schema = SEEDLESS
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    cold.store.add(run, replace(prediction("upold", "old"), canceled_at=1.0))
    cold.tracker.follow(run)
    ends: list[str] = []
    cold.events.add_ended_listener(Listener.RUN_TIMINGS, lambda ended: ends.append(ended.run.id))
    cold.store.held["detach"] = asyncio.Event()
    task = cold.ask(target=VERSION)
    await settle()
    document = cold.replicate.document(9, id=run.upstream_id, status="canceled")
    await cold.tracker.on_snapshot("old", json.dumps(document).encode())
    await settle()
    cold.store.held.pop("detach").set()
    await task
    await settle()
    assert (ends, cold.tracker.tracked("old")) == (["old"], None)


async def test_detached_caller_does_not_join_provisionally_again(cold: CreateCore) -> None:
    """Upstream never names the model: each caller gets its own run instead of waiting forever."""
    cold.replicate.model = None
    cold.replicate.held = asyncio.Event()
    tasks = [cold.ask(target=VERSION) for _ in range(3)]
    await settle()
    cold.replicate.held.set()
    made = await asyncio.gather(*tasks)
    assert len({each.view.run.id for each in made if not isinstance(each, Answer)}) == 3
    assert (cold.replicate.sent, cold.counted) == (3, 3)


async def test_equal_request_settles_the_identity_of_an_unsettled_run(cold: CreateCore) -> None:
    """The process that started the run died before it could."""
    cold.replicate.schema = SEEDED
    _, identity = await cold.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(cold))
    cold.store.add(run, prediction("upold", "old"))
    created = await cold.create(target=VERSION)
    assert (created.view.run.id, created.view.prediction.source) == ("old", Source.JOINED)
    assert created.view.run.fingerprint is not None
    assert cold.store.runs["old"].fingerprint == created.view.run.fingerprint
    assert cold.replicate.sent == 0


async def test_repeated_key_during_a_join_announces_nothing(cold: CreateCore) -> None:
    """The first request does not know yet whether its prediction stays on the run; the second waits for it."""
    cold.replicate.schema = SEEDED
    await add_unsettled(cold)
    cold.store.held["settle_identity"] = asyncio.Event()
    first, again = (cold.ask(target=VERSION, idempotency_key="k") for _ in range(2))
    await settle()
    cold.store.held.pop("settle_identity").set()
    joined, replayed = await asyncio.gather(first, again)
    assert isinstance(joined, Created)
    assert isinstance(replayed, Created)
    assert (joined.is_replay, replayed.is_replay) == (False, True)
    assert replayed.view == joined.view
    assert (cold.counted, len(cold.announced)) == (1, 1)


async def test_repeated_key_during_a_detach_shows_no_prediction_that_goes(cold: CreateCore) -> None:
    """The first request's prediction is detached and made again: the second does not show the detached one."""
    cold.replicate.schema = SEEDLESS
    await add_unsettled(cold)
    cold.store.held["detach"] = asyncio.Event()
    first = cold.ask(target=VERSION, idempotency_key="k")
    await settle()
    again = cold.ask(target=VERSION, idempotency_key="k")
    await settle()
    cold.store.held.pop("detach").set()
    outcomes = await asyncio.gather(first, again, return_exceptions=True)
    shown = {each.view.prediction.id for each in outcomes if isinstance(each, Created)}
    assert len(shown) == 1
    assert shown <= cold.store.kept.keys()
    assert (cold.replicate.sent, cold.counted) == (1, 1)


async def test_repeated_key_completes_a_join_that_failed(cold: CreateCore) -> None:
    """The store was away while the first request settled the run's identity."""
    cold.replicate.schema = SEEDED
    await add_unsettled(cold)
    cold.store.held["settle_identity"] = asyncio.Event()
    cold.store.failures["settle_identity"] = [StoreUnavailable("The store is away.")]
    first, again = (cold.ask(target=VERSION, idempotency_key="k") for _ in range(2))
    await settle()
    cold.store.held.pop("settle_identity").set()
    with pytest.raises(StoreUnavailable):
        await first
    replayed = await again
    assert isinstance(replayed, Created)
    assert (replayed.is_replay, cold.counted, len(cold.announced)) == (True, 1, 1)


async def add_unsettled(core: CreateCore) -> None:
    """Add a run whose process died before it could give the run its final identity."""
    _, identity = await core.context(target=VERSION)
    run = live("old", target=VERSION, provisional=identity.provisional, document=cold_document(core))
    core.store.add(run, prediction("upold", "old"))


def cold_document(core: CreateCore) -> bytes:
    return json.dumps(core.replicate.document(9)).encode()
