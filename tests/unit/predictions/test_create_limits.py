"""Creates that a limit delays or refuses, and those that wait for a place of their webhook."""

import pytest
from msgspec.structs import replace

from gateway.domain.create_request import Created
from gateway.domain.hold import Hold
from gateway.domain.limits import Allowance, Limits, SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus, rate_status
from gateway.domain.quota import Refused as LimitRefused
from gateway.domain.records import Source
from gateway.domain.upstream_response import Answer
from gateway.errors import (
    BudgetExceeded,
    RateLimited,
)
from tests.support.clock import settle
from tests.support.create_core import CreateCore, add_finished, caller


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
