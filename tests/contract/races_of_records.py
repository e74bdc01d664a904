"""Races of keys, secrets, files, outputs, deletions and the ledger."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from gateway.domain.ledger import MOST_USERS_A_DAY, By
from gateway.domain.records import Copy
from gateway.errors import Conflict
from gateway.money.rules.audit import Tally
from gateway.predictions.ports.sharing import Hit
from gateway.store.interface import Store
from gateway.store.sql.locks import Lock
from tests.contract.races import DAY, OF_BLUE, UNLIMITED, A, conflicted, drift, nothing, race
from tests.support.audit import BY_TEST, PURGE
from tests.support.money import demand, settlement
from tests.support.overlaps import ROW_LOCKS
from tests.support.records import NOW, file, finish, go, key, lead, live, prediction, share, start, wish
from tests.support.stores import edit


@race(
    "two keys of one name",
    Lock.NAMES,
    prepare=nothing,
    first=lambda store: store.add_key(key("k1", name="ci"), actor=BY_TEST),
    second=lambda store: conflicted(store.add_key(key("k2", name="ci"), actor=BY_TEST)),
)
async def _(store: Store, _: Any, second: Any) -> None:
    assert isinstance(second, Conflict)
    assert len(await store.keys()) == 1


async def one_key(store: Store) -> None:
    await store.add_key(key("k1", name="ci"), actor=BY_TEST)


@race(
    "a new name for a key and a key of that name",
    Lock.NAMES,
    prepare=one_key,
    first=lambda store: store.rotate_key("k1", key("k2", name="new"), NOW + 60, actor=BY_TEST),
    second=lambda store: conflicted(store.add_key(key("k3", name="new"), actor=BY_TEST)),
)
async def _(store: Store, _: Any, second: Any) -> None:
    assert isinstance(second, Conflict)
    assert {each.id for each in await store.keys()} == {"k1", "k2"}


@race(
    "two rotations of a secret",
    Lock.NAMES,
    prepare=lambda store: store.secret("webhooks", b"one"),
    first=lambda store: store.rotate_secret("webhooks", b"two", NOW, NOW + 60, team="red", actor=BY_TEST),
    second=lambda store: store.rotate_secret("webhooks", b"three", NOW + 1, NOW + 60, team="red", actor=BY_TEST),
    at="retire_secret",
)
async def _(store: Store, _: Any, __: Any) -> None:
    assert set(await store.secrets_in_use("webhooks", NOW + 2)) == {b"one", b"two", b"three"}


@race(
    "a file that shares an upstream file and the deletion of that file",
    Lock.FILES,
    prepare=lambda store: store.add_file(file("f1")),
    first=lambda store: store.share_file(file("f2", upstream_id="f1")),
    second=lambda store: store.delete_file("f1"),
)
async def _(store: Store, is_shared: Any, is_released: Any) -> None:
    assert (is_shared, is_released) == (True, False)


async def owned_object(store: Store) -> None:
    for name in ("1", "2"):
        await go(store, name)
        await finish(store, name)
    assert await store.claim_object(A, 3, NOW, NOW + 60)
    await store.keep_copies("run1", [copy(A)], None)


def copy(sha256: str) -> Copy:
    return Copy(place=0, url="u", content_type="x/y", sha256=sha256, size=3, stored_at=NOW)


@race(
    "a copy of the bytes that another run gives up",
    Lock.OUTPUTS,
    prepare=owned_object,
    first=lambda store: store.keep_copies("run2", [copy(A)], None),
    second=lambda store: store.clear_data("run1", b"cleared"),
)
async def _(store: Store, kept: Any, _: Any) -> None:
    assert [each.sha256 for each in kept.copies] == [A]
    assert await store.claim_deletions(NOW + 100, NOW + 200) == []


async def expired_claim(store: Store) -> None:
    assert await store.claim_object(A, 3, NOW, NOW + 60)


@race(
    "the end of a claim on an object and its renewal",
    Lock.OUTPUTS,
    prepare=expired_claim,
    first=lambda store: store.claim_deletions(NOW + 100, NOW + 200),
    second=lambda store: store.claim_object(A, 3, NOW + 100, NOW + 160),
    at="expired_claims",
)
async def _(store: Store, deleted: list[str], is_claimed: bool) -> None:
    """Either is right, but not both."""
    assert (A in deleted) != is_claimed


async def old_run(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1")


@race(
    "a hit and the deletion of its run",
    ROW_LOCKS,
    Lock.RUN,
    prepare=old_run,
    first=lambda store: share(store, "2", fingerprint="F", now=NOW + 20, prediction_={"created_at": NOW + 20}),
    second=lambda store: store.delete_records(NOW + 10, 10),
)
async def _(store: Store, hit: Any, _: Any) -> None:
    assert isinstance(hit, Hit)
    assert await store.prediction("p2") is not None


@race(
    "the deletion of a run and a hit",
    prepare=old_run,
    first=lambda store: store.delete_records(NOW + 10, 10),
    second=lambda store: share(store, "2", fingerprint="F", now=NOW + 20, prediction_={"created_at": NOW + 20}),
    at="delete_prediction",
)
async def _(store: Store, _: Any, hit: Any) -> None:
    is_there = await store.prediction("p2") is not None
    assert is_there == isinstance(hit, Hit)
    assert (await store.run("run1") is not None) == is_there


def hits(store: Store) -> Awaitable[Any]:
    request = wish("2", fingerprint="F", now=NOW + 20, prediction_={"created_at": NOW + 20}).request
    return store.record_hits([request])


@race(
    "a set of hits and the deletion of their run",
    ROW_LOCKS,
    Lock.RUN,
    prepare=old_run,
    first=hits,
    second=lambda store: store.delete_records(NOW + 10, 10),
)
async def _(store: Store, found: Any, _: Any) -> None:
    assert isinstance(found[0], Hit)
    assert await store.prediction("p2") is not None


@race(
    "the deletion of a run and a set of hits",
    prepare=old_run,
    first=lambda store: store.delete_records(NOW + 10, 10),
    second=hits,
    at="delete_prediction",
)
async def _(store: Store, _: Any, found: Any) -> None:
    is_there = await store.prediction("p2") is not None
    assert is_there == isinstance(found[0], Hit)
    assert (await store.run("run1") is not None) == is_there


@race(
    "the removal of a run's data and a set of hits",
    prepare=old_run,
    first=lambda store: store.clear_data("run1", b"cleared"),
    second=hits,
    at="clear_data",
)
async def _(store: Store, _: Any, found: Any) -> None:
    """Whichever comes first, no caller gets a hit without data."""
    assert found == [None] or found[0].view.run.data_removed is False


@race(
    "the purge of an entry and a set of hits",
    ROW_LOCKS,
    prepare=old_run,
    first=lambda store: store.purge_cache(PURGE),
    second=hits,
    at="clear_cache_until",
)
async def _(store: Store, count: Any, found: Any) -> None:
    assert (count, found) == (1, [None])
    assert await drift(store) == []


@race(
    "a correction while a day's sums are rebuilt",
    Lock.SUMS,
    prepare=lambda store: store.adjust("red", 5, "why", NOW, actor=BY_TEST),
    first=lambda store: store.rebuild_day(DAY),
    second=lambda store: store.adjust("blue", 7, "why", NOW, actor=BY_TEST),
    at="rebuild_days",
)
async def _(store: Store, _: Any, __: Any) -> None:
    assert await drift(store) == []


def named(by: By, name: str) -> dict[str, Any]:
    return {"user": name} if by is By.USER else {"tags": f'{{"project":"{name}"}}'}


async def place_for_one_name(store: Store, by: By) -> None:
    """A day on which one more user or value is counted by name, and a run with one that is to end."""
    await go(store, "1", fingerprint="F")
    await finish(store, "1", settlement=settlement())
    await lead(store, "2", prediction_=named(by, "y"))
    await store.record_created(live("run2"), prediction("up2", "run2", **named(by, "y")))
    places = 1 if by is By.TAG else MOST_USERS_A_DAY - 2
    table, of = ("usage_tags", "'project', ") if by is By.TAG else ("usage_users", "")
    names = f"SELECT 'red', {of}{DAY}, 'u' || n, 0, 0, 0, 0, 0, 0 FROM generate_series(1, {places}) AS n"
    await edit(store, f"INSERT INTO {table} {names}")


async def hit(store: Store, fields: dict[str, Any]) -> None:
    assert isinstance(await wish(**fields).share(store), Hit)


async def set_of_hits(store: Store, fields: dict[str, Any]) -> None:
    (found,) = await store.record_hits([wish(**fields).request])
    assert isinstance(found, Hit)


async def end_of_the_run(store: Store) -> None:
    store.bound_tag_values(2)
    await finish(store, "2", settlement=settlement())


async def two_names(store: Store, by: By, add: Callable[[Store, dict[str, Any]], Awaitable[None]]) -> None:
    store.bound_tag_values(2)
    for name in "zy":
        # Of another key, and another user or none, so that it changes no other sum of the settlement.
        fields = {"key_id": "k2", "user": "u1"} | named(by, name)
        await add(store, {"name": f"h{name}", "fingerprint": "F", "now": NOW + 20, "prediction_": fields})


async def each_is_in_one_row(store: Store, by: By) -> None:
    rows = await store.usage(by, since=DAY, until=DAY, tag="project" if by is By.TAG else "")
    assert {row.what: row.runs + row.hits for row in rows if row.what in ("y", "z")} == {"y": 2, "z": 1}
    assert await drift(store) == []


for by in (By.TAG, By.USER):
    for text, add in (("a set of hits", set_of_hits), ("a hit", hit)):

        @race(
            f"{text} by a new {by} and a settlement of it",
            Lock.NEW_NAMES,
            prepare=partial(place_for_one_name, by=by),
            first=end_of_the_run,
            second=partial(two_names, by=by, add=add),
        )
        async def _(store: Store, _: Any, __: Any, by: By = by) -> None:
            await each_is_in_one_row(store, by)


async def wrong_meters(store: Store) -> None:
    await lead(store, "1", reservation=demand(60))
    await edit(store, "UPDATE meters SET open = 7")


async def beginning_of_an_audit(store: Store) -> tuple[Tally, int]:
    """Enter another line, and read one line after the other until there are no more."""
    await store.adjust("blue", 7, "why", NOW, actor=BY_TEST)
    tally, after = Tally(), 0
    while (audited := await store.audit_day(DAY, after, 1)).stored is None:
        tally.add(audited)
        after = audited.last
    return tally, after


@race(
    "a line that is committed after a later one was read",
    Lock.LEDGER,
    prepare=nothing,
    first=lambda store: store.adjust("red", 5, "why", NOW, actor=BY_TEST),
    second=beginning_of_an_audit,
    at="insert_entry",
)
async def _(store: Store, _: Any, begun: tuple[Tally, int]) -> None:
    tally, after = begun
    audited = await store.audit_day(DAY, after, 1)
    tally.add(audited)
    assert audited.stored is not None
    assert tally.drift(audited.stored) == []


async def old_counters(store: Store) -> None:
    await go(store, "1", reservation=demand(60))
    await finish(store, "1")


@race(
    "a create while the counters are corrected",
    Lock.RESERVATIONS,
    prepare=wrong_meters,
    first=lambda store: store.recount_meters(),
    second=lambda store: start(store, "2", prediction_=OF_BLUE, run=OF_BLUE, reservation=UNLIMITED),
    at="clear_meters",
)
async def _(store: Store, _: Any, __: Any) -> None:
    assert await store.recount_meters() == 0


@race(
    "a create while idle counters are deleted",
    prepare=old_counters,
    first=lambda store: start(store, "2", reservation=demand(60), now=NOW + 100),
    second=lambda store: store.prune_ledger(lines_before=0, spent_before=0, now=NOW + 100, limit=100),
)
async def _(store: Store, _: Any, __: Any) -> None:
    assert await store.recount_meters() == 0
    meters = await store.meters(["team/red"], NOW + 100)
    assert meters["team/red"].open == 1
