"""Hits in sets: the same as single hits, in one step."""

import asyncio
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.domain.ledger import MOST_USERS_A_DAY, By, Settlement
from gateway.domain.records import Source, Status
from gateway.domain.webhook_places import WebhookBounds, WebhookPlace
from gateway.errors import Conflict
from gateway.money.rules.audit import Tally
from gateway.predictions.ports.sharing import MOST_HITS, Hit, Nothing, ShareRequest
from gateway.store.interface import Store
from gateway.store.postgres.hits import USED_SECONDS
from gateway.store.sqlite import SQLiteStore
from tests.support.audit import PURGE
from tests.support.records import NOW, finish, go, idempotency, share, wish
from tests.support.rounds import amounts, on_engine
from tests.support.stores import BACKENDS, StoreMaker

DAY = 86_400
TABLES = ["entries", "ledger", "predictions", "runs", "usage_days", "usage_tags", "usage_users"]
_examples = itertools.count()


def asked(name: str, fingerprint: str = "F", **fields: Any) -> ShareRequest:
    """Return a request for prediction `p<name>`."""
    return wish(name, fingerprint=fingerprint, **fields).request


async def cached(store: Store, name: str = "1", fingerprint: str = "F", **fields: Any) -> None:
    """Record a finished run that answers requests."""
    await go(store, name, fingerprint=fingerprint, may_hit=False)
    await finish(store, name, **fields)


async def test_hits_of_a_set_are_those_of_single_steps(store: Store) -> None:
    """Every caller gets a prediction of its own on the finished run, as from `share`."""
    await cached(store)
    requests = [asked(str(n), now=NOW + 20) for n in (2, 3)]
    found = await store.record_hits(requests)
    run = await store.run("run1")
    assert run is not None
    for request, hit in zip(requests, found, strict=True):
        assert hit is not None
        assert hit.view.run == run
        assert hit.view.prediction == replace(request.prediction, run_id="run1", source=Source.HIT)
        assert await store.prediction(request.prediction.id) == hit.view
    single = await share(store, "4", fingerprint="F", now=NOW + 20)
    assert isinstance(single, Hit)
    assert [hit and hit.saved_microusd for hit in found] == [single.saved_microusd] * 2


async def test_requests_that_no_finished_run_answers_are_not_recorded(store: Store) -> None:
    """Unknown, open, failed, expired, cleared, too old: each is left to `share`, and the others are recorded."""
    await cached(store, "ok", "F")
    await go(store, "open", fingerprint="open")
    await cached(store, "failed", "failed", status=Status.FAILED)
    await cached(store, "short", "short", cache_until=NOW + 30)
    await cached(store, "cleared", "cleared")
    await store.clear_data("runcleared", b"removed")
    await cached(store, "kept", "kept", at=NOW + 9)
    names = ["unknown", "open", "failed", "short", "cleared", "F"]
    requests = [asked(f"x{name}", name, now=NOW + 30) for name in names]
    requests.append(asked("xold", "kept", now=NOW + 30, ended_since=NOW + 9.5))
    requests.append(asked("xno", "F", now=NOW + 30, may_hit=False))
    found = await store.record_hits(requests)
    assert [hit is not None for hit in found] == [False] * 5 + [True] + [False] * 2
    for request, hit in zip(requests, found, strict=True):
        assert (await store.prediction(request.prediction.id) is not None) == (hit is not None)
    await store.purge_cache(PURGE)
    assert await store.record_hits([asked("late", "F", now=NOW + 30)]) == [None]


async def test_older_result_answers_where_the_newest_has_expired(store: Store) -> None:
    """In each row the newest run that fits, as in `share`."""
    await cached(store, "1", at=NOW + 1, cache_until=NOW + 1000)
    await cached(store, "2", at=NOW + 2, cache_until=NOW + 50)
    found = await store.record_hits(
        [asked("a", now=NOW + 10), asked("b", now=NOW + 60), asked("c", now=NOW + 60, ended_since=NOW + 1.5)]
    )
    assert [hit and hit.view.run.id for hit in found] == ["run2", "run1", None]


async def test_keys_and_webhooks_are_left_to_the_single_step(store: Store) -> None:
    """Both are recorded with the prediction, which a set does not do."""
    await cached(store)
    place = WebhookPlace(WebhookBounds(per_team=1, public=1, total=1), is_public=False)
    found = await store.record_hits(
        [asked("a", idempotency=idempotency(), now=NOW + 20), asked("b", webhook_place=place, now=NOW + 20)]
    )
    assert found == [None, None]
    assert isinstance(await share(store, "a", fingerprint="F", idempotency=idempotency(), now=NOW + 20), Hit)


@pytest.mark.parametrize("twice", [True, False], ids=["within-the-set", "recorded-before"])
async def test_id_that_exists_refuses_the_set_and_leaves_nothing(store: Store, *, twice: bool) -> None:
    """Each can then be recorded alone: only the one whose id exists is refused. Sums count nothing twice."""
    await cached(store)
    if not twice:
        await share(store, "b", fingerprint="F", now=NOW + 20)
    before = await usage(store)
    with pytest.raises(Conflict):
        await store.record_hits([asked(name, now=NOW + 20) for name in ("a", "b", "b" if twice else "c")])
    assert await store.prediction("pa") is None
    assert await usage(store) == before
    assert isinstance(await share(store, "a", fingerprint="F", now=NOW + 20), Hit)


async def test_refused_set_does_not_undo_steps_that_share_its_commit(store: Store) -> None:
    await cached(store)
    results = await asyncio.gather(
        store.record_hits([asked("a", now=NOW + 20)]),
        store.record_hits([asked("b", now=NOW + 20)] * 2),
        share(store, "c", fingerprint="F", now=NOW + 20),
        return_exceptions=True,
    )
    assert [type(each) for each in results] == [list, Conflict, Hit]
    assert [await store.prediction(f"p{name}") is not None for name in "abc"] == [True, False, True]


async def test_requests_added_before_the_step_begins_belong_to_it(store: Store) -> None:
    """Callers who come while the store is busy need not wait for another step."""
    await cached(store)
    requests = [asked("0", now=NOW + 20)]
    written = store.record_hits(requests)
    # In the same turn of the loop, the store may have begun already.
    requests += [asked(str(n), now=NOW + 20) for n in range(1, MOST_HITS + 20)]
    found = await written
    assert 1 <= len(found) <= MOST_HITS
    assert None not in found
    known = [await store.prediction(f"p{n}") is not None for n in range(len(requests))]
    assert known == [n < len(found) for n in range(len(requests))]
    assert len(await store.record_hits(requests[len(found) :][:MOST_HITS])) > 0


async def test_set_is_bounded(store: Store) -> None:
    await cached(store)
    assert len(await store.record_hits([asked(str(n), now=NOW + 20) for n in range(MOST_HITS + 1)])) == MOST_HITS


async def test_first_users_of_a_day_are_counted_by_name_in_a_set_too(store: Store) -> None:
    """The order of the requests decides, as with single steps."""
    await cached(store)
    names = [f"u{n}" for n in range(MOST_USERS_A_DAY + 3)]
    requests = [
        asked(str(n), now=NOW + 20, prediction_={"user": name}) for n, name in enumerate([*names, names[0], names[-1]])
    ]
    for first in range(0, len(requests), MOST_HITS):
        await store.record_hits(requests[first : first + MOST_HITS])
    users = {row.what: row.hits for row in await store.usage(By.USER, since=0, until=int(NOW // DAY) + 1, team="red")}
    assert (users[names[0]], users[names[MOST_USERS_A_DAY - 2]]) == (2, 1)
    assert names[-1] not in users


async def test_sets_of_two_stores_at_once_leave_exact_sums(another: StoreMaker) -> None:
    """The same results, teams and users in any order: none is lost, none counts twice, none waits in a circle."""
    stores = [another(), another()]
    for each in stores:
        await each.open()
    for name in "FGH":
        await cached(stores[0], name, name, settlement=settled(7, 1))
    dice = random.Random(1)
    for number in range(6):
        requests = [
            asked(
                f"{number}x{n}",
                dice.choice("FGH"),
                now=NOW + 20 + 100 * number,
                prediction_={
                    "team": dice.choice(["red", "blue"]),
                    "user": dice.choice(["ann", "bob", None]),
                    "tags": dice.choice(["", '{"project":"a"}', '{"feature":"x","project":"b"}']),
                },
            )
            for n in range(60)
        ]
        await asyncio.gather(*(store.record_hits(requests[n::2]) for n, store in enumerate(stores)))
    audited = await stores[1].audit_day(int(NOW // DAY), 0, 10_000)
    tally = Tally()
    tally.add(audited)
    assert audited.stored is not None
    assert tally.drift(audited.stored) == []
    usage = await stores[0].usage(By.MODEL, since=0, until=int(NOW // DAY) + 1)
    assert sum(each.hits for each in usage) == 6 * 60
    for each in stores:
        await each.close()


async def test_text_that_an_engine_cannot_store_keeps_no_other_from_its_hit(store: Store) -> None:
    """PostgreSQL stores no NUL character. The single step refuses the request that has one."""
    await cached(store)
    found = await store.record_hits(
        [
            asked("a", now=NOW + 20, prediction_={"user": "\0"}),
            asked("b", now=NOW + 20, prediction_={"user": "\\u0000"}),
        ]
    )
    assert found[1] is not None
    assert await store.prediction("pb") == found[1].view


async def usage(store: Store) -> list[Any]:
    """Return every sum of usage."""
    return [await store.usage(by, since=0, until=int(NOW // DAY) + 3) for by in By]


ROW = st.fixed_dictionaries(
    {
        "fingerprint": st.sampled_from(["F1", "F2", "F3", "none"]),
        "team": st.sampled_from(["red", "blue"]),
        "key_id": st.sampled_from(["k1", "k2"]),
        "user": st.sampled_from([None, "", "anna", "bob"]),
        "tags": st.sampled_from(["", '{"project":"a"}', '{"project":"b"}', '{"feature":"a","project":"c"}']),
        "owner": st.sampled_from([None, "user:anna"]),
        # Some on the next day, some after the end of an entry, some before an earlier one.
        "later": st.sampled_from([20.0, 21.5, 40.0, 60.0, float(DAY)]),
        "max_age": st.sampled_from([None, None, 12.0]),
    }
)


def request_of(n: int, row: dict[str, Any]) -> ShareRequest:
    now = NOW + row["later"]
    fields = {name: row[name] for name in ("team", "key_id", "user", "owner", "tags")}
    return asked(
        f"h{n}",
        row["fingerprint"],
        now=now,
        ended_since=0.0 if row["max_age"] is None else now - row["max_age"],
        prediction_=fields | {"created_at": now},
    )


async def prepared(store: Store, costs: list[int]) -> None:
    """Record finished runs: one with two results, one that the ledger says nothing of, one in dollars."""
    for n, (fingerprint, cost, until) in enumerate(
        zip(["F1", "F1", "F2", "F3"], costs, [NOW + 1e6, NOW + 50, NOW + 1e6, NOW + 55], strict=True)
    ):
        await cached(store, str(n), fingerprint, at=NOW + 9 + n, cache_until=until, settlement=settled(cost, n))


def settled(cost: int, n: int) -> Settlement:
    return Settlement(at=NOW + 9 + n, microusd=cost, milliseconds=cost, target="acme/toy" if n else "")


async def contents(store: Any) -> dict[str, list[Any]]:
    """Return every row of every table that a hit changes or reads, as both engines have it."""

    def step(db: Any) -> dict[str, list[Any]]:
        return {name: sorted(rows(db, name), key=repr) for name in TABLES}

    return dict(await store._read(step))


def rows(db: Any, table: str) -> Iterator[dict[str, Any]]:
    found = db.connection.execute(f"SELECT * FROM {table}")
    names = [each[0] for each in found.description]
    for row in found:
        values = (float(value) if isinstance(value, int) else value for value in row)
        yield dict(sorted(zip(names, values, strict=True)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("examples", amounts(20, 500))
def test_sets_leave_the_same_records_as_single_steps(tmp_path: Path, backend: str, examples: int) -> None:
    """However requests are divided into sets: the same predictions, ledger lines, sums and uses of entries."""

    @settings(
        max_examples=on_engine(backend, examples),
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        rows=st.lists(ROW, max_size=12),
        costs=st.lists(st.sampled_from([0, 7, 2437]), min_size=4, max_size=4),
        cuts=st.lists(st.integers(1, 5), max_size=4),
        values=st.integers(1, 4),
    )
    def check(rows: list[dict[str, Any]], costs: list[int], cuts: list[int], values: int) -> None:
        folder = tmp_path / f"{next(_examples)}"
        folder.mkdir()
        many = BACKENDS[backend](folder)()
        one = SQLiteStore(folder / "one.sqlite")
        for each in (one, many):
            each.bound_tag_values(values)
        asyncio.run(compare(one, many, rows, costs, cuts))

    check()


async def compare(one: Store, many: Store, rows: list[dict[str, Any]], costs: list[int], cuts: list[int]) -> None:
    requests = [replace(request_of(n, row), may_join=None) for n, row in enumerate(rows)]
    try:
        for store in (one, many):
            await store.open()
            await prepared(store, costs)
        singles = [await one.share(request) for request in requests]
        sets: list[Hit | None] = []
        left = requests
        for size in [*cuts, *[MOST_HITS] * len(requests)]:
            if left:
                sets += await many.record_hits(left[:size])
                left = left[size:]
        assert [single if isinstance(single, Hit) else None for single in singles] == sets
        assert all(isinstance(single, Hit | Nothing) for single in singles)
        expected, found = await contents(one), await contents(many)
    finally:
        for store in (one, many):
            await store.close()
    uses = [[entry.pop("last_used_at") for entry in each["entries"]] for each in (expected, found)]
    assert found == expected
    # A use that is recent already is not written again, where each write has its price.
    exact = 0 if isinstance(many, SQLiteStore) else USED_SECONDS
    assert all(0 <= in_steps - in_sets <= exact for in_steps, in_sets in zip(*uses, strict=True))
