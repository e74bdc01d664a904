"""Races of creates, cancels and ends: which run a prediction shares, and what it may cost."""

from typing import Any

from gateway.domain.limits import SubjectKind
from gateway.domain.quota import ReservationRequest, RunLimits
from gateway.domain.records import Status
from gateway.predictions.ports.sharing import Hit, Joined, Mismatched, Pending, Refused, Replayed, Started
from gateway.store.interface import Store
from gateway.store.sql.locks import Lock
from tests.contract.races import DAY, HOOK, ONE_PLACE, drift, kinds, nothing, race
from tests.support.money import demand, settlement
from tests.support.overlaps import ROW_LOCKS
from tests.support.records import NOW, finish, go, idempotency, lead, live, prediction, share, start


@race(
    "two creates with one idempotency key",
    Lock.IDEMPOTENCY_KEY,
    prepare=nothing,
    first=lambda store: start(store, "1", idempotency=idempotency()),
    second=lambda store: start(store, "2", idempotency=idempotency()),
)
async def _(store: Store, first: Any, second: Any) -> None:
    assert kinds(first, second) in ({Started, Pending}, {Started, Replayed}, {Started, Mismatched})
    assert len(await store.open_runs()) == 1


@race(
    "two creates of one provisional identity",
    Lock.IDENTITY,
    prepare=nothing,
    first=lambda store: start(store, "1", provisional="P"),
    second=lambda store: start(store, "2", provisional="P"),
)
async def _(store: Store, first: Any, second: Any) -> None:
    assert kinds(first, second) == {Started, Joined}
    assert len(await store.open_runs()) == 1


@race(
    "a create whose caller has given up and its discard",
    Lock.IDENTITY,
    prepare=nothing,
    first=lambda store: start(store, "1", reservation=demand()),
    second=lambda store: store.discard_intent("run1"),
)
async def _(store: Store, first: Any, _: Any) -> None:
    """The create's answer came too late, so nobody will send it."""
    assert isinstance(first, Started)
    assert await store.open_runs() == []
    assert await store.recount_meters() == 0


@race(
    "a create and the end of the run that it could have joined",
    ROW_LOCKS,
    prepare=lambda store: go(store, "1", fingerprint="F"),
    first=lambda store: finish(store, "1"),
    second=lambda store: start(store, "2", fingerprint="F"),
)
async def _(store: Store, _: Any, created: Any) -> None:
    assert isinstance(created, Hit)
    assert await drift(store) == []


@race(
    "a join and the end of its run",
    ROW_LOCKS,
    prepare=lambda store: go(store, "1", fingerprint="F", reservation=demand()),
    first=lambda store: share(store, "2", fingerprint="F"),
    second=lambda store: finish(store, "1", settlement=settlement()),
)
async def _(store: Store, joined: Any, _: Any) -> None:
    assert isinstance(joined, Joined)
    end = await store.ended_run("run1")
    assert end is not None
    audited = await store.audit_day(DAY, 0, 100)
    assert [sums[1] for sums in audited.by_model.values()] == [1], "what the join saved is entered"


@race(
    "a join and the last cancel of its run",
    ROW_LOCKS,
    prepare=lambda store: go(store, "1", fingerprint="F"),
    first=lambda store: share(store, "2", fingerprint="F"),
    second=lambda store: store.cancel("up1", NOW + 1),
)
async def _(store: Store, joined: Any, canceled: Any) -> None:
    assert isinstance(joined, Joined)
    assert not canceled.is_last


@race(
    "the last cancel of a run and a join",
    ROW_LOCKS,
    prepare=lambda store: go(store, "1", fingerprint="F"),
    first=lambda store: store.cancel("up1", NOW + 1),
    second=lambda store: share(store, "2", fingerprint="F"),
)
async def _(store: Store, canceled: Any, joined: Any) -> None:
    assert canceled.is_last
    assert not isinstance(joined, Joined)


@race(
    "a create that comes to nothing and a join of its run",
    ROW_LOCKS,
    prepare=lambda store: lead(store, "1", fingerprint="F"),
    first=lambda store: store.discard_intent("run1"),
    second=lambda store: share(store, "2", fingerprint="F"),
)
async def _(store: Store, _: Any, joined: Any) -> None:
    assert not isinstance(joined, Joined)
    assert await store.predictions_of("run1") == []


async def two_callers(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await share(store, "2", fingerprint="F")


@race(
    "the cancels of all callers of a run",
    Lock.RUN_OF_PREDICTION,
    prepare=two_callers,
    first=lambda store: store.cancel("up1", NOW + 1),
    second=lambda store: store.cancel("p2", NOW + 1),
)
async def _(store: Store, first: Any, second: Any) -> None:
    assert [first.is_last, second.is_last].count(True) == 1


@race(
    "the end of a run and the loss of a joined prediction",
    Lock.RUN_OF_PREDICTION,
    prepare=two_callers,
    first=lambda store: store.detach("p2"),
    second=lambda store: finish(store, "1", settlement=settlement()),
    at="settlement",
)
async def _(store: Store, _: Any, end: Any) -> None:
    audited = await store.audit_day(DAY, 0, 100)
    assert [sums[1] for sums in audited.by_model.values()] == [0], "it has saved nothing"
    assert await drift(store) == []


@race(
    "the answer to a create and the end of its run",
    Lock.RUN,
    prepare=lambda store: lead(store, "1", fingerprint="F"),
    first=lambda store: store.record_created(live("run1"), prediction("up1", "run1")),
    second=lambda store: finish(store, "1"),
    at="known_run",
)
async def _(store: Store, _: Any, end: Any) -> None:
    run = await store.run("run1")
    assert run is not None
    assert (run.status, run.document, run.upstream_id) == (Status.SUCCEEDED, b"done", "uprun1")


LIMITS = {"microusd_per_day": 100}


@race(
    "two creates of a team that has no counters yet",
    Lock.TEAM,
    prepare=nothing,
    first=lambda store: start(store, "1", reservation=demand(60, **LIMITS)),
    second=lambda store: start(store, "2", reservation=demand(60, **LIMITS)),
)
async def _(store: Store, first: Any, second: Any) -> None:
    assert kinds(first, second) == {Started, Refused}


@race(
    "a create and the end of another run of the team",
    Lock.METERS,
    prepare=lambda store: go(store, "1", reservation=demand(60, **LIMITS)),
    first=lambda store: start(store, "2", reservation=demand(30, **LIMITS)),
    second=lambda store: finish(store, "1", settlement=settlement(60, at=NOW)),
    at="meter",
)
async def _(store: Store, created: Any, _: Any) -> None:
    """Its cost is counted once: as held or as spent."""
    assert isinstance(created, Started)


TAGGED = {"tags": '{"project":"a"}'}


def of_tag(microusd: int) -> ReservationRequest:
    """A run within a budget of 100 micro-dollars of one value of a cost tag."""
    limits = RunLimits(of=SubjectKind.TAG, scope="tag/team red: project=a", microusd_per_day=100)
    return ReservationRequest(microusd, 0, (limits,))


@race(
    "two creates within the budget of one value of a cost tag",
    Lock.TEAM,
    prepare=nothing,
    first=lambda store: start(store, "1", reservation=of_tag(60), prediction_=TAGGED),
    second=lambda store: start(store, "2", reservation=of_tag(60), prediction_=TAGGED),
)
async def _(store: Store, first: Any, second: Any) -> None:
    assert kinds(first, second) == {Started, Refused}


@race(
    "a create and the end of another run with its cost tag",
    Lock.METERS,
    prepare=lambda store: go(store, "1", reservation=of_tag(60), prediction_=TAGGED),
    first=lambda store: start(store, "2", reservation=of_tag(30), prediction_=TAGGED),
    second=lambda store: finish(store, "1", settlement=settlement(60, at=NOW)),
    at="meter",
)
async def _(store: Store, created: Any, _: Any) -> None:
    """Its cost is counted once: as held or as spent."""
    assert isinstance(created, Started)


@race(
    "two creates for the last place in the webhook queue",
    Lock.PLACES,
    prepare=nothing,
    first=lambda store: start(store, "1", prediction_=HOOK, webhook_place=ONE_PLACE),
    second=lambda store: start(store, "2", prediction_=HOOK, webhook_place=ONE_PLACE),
)
async def _(store: Store, first: Any, second: Any) -> None:
    assert kinds(first, second) == {Started, Refused}
