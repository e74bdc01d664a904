"""Creates: every outcome of the store, every error path, and callers who disconnect."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.domain import tickets
from gateway.domain.cache_directives import Directives
from gateway.domain.records import RunState, Source, Status
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    Conflict,
    NotCached,
    PriceUnknown,
    Unprocessable,
)
from gateway.money.rules.pricing import UnknownPolicy
from gateway.sharing.rules.determinism import Policy as SharingPolicy
from tests.support.clock import settle
from tests.support.create_core import (
    SECRET,
    VERSION,
    CreateCore,
    add_finished,
    caller,
    command,
    fingerprint,
)
from tests.support.fakes import answer
from tests.support.records import live, prediction


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
