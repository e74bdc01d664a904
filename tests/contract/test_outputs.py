"""Records of stored copies: claimed, owned, marked for deletion, deleted; and how long their runs can be hit."""

import asyncio
from typing import Any

import pytest

from gateway.domain.records import Copy, Run, Status
from gateway.outputs.ports import OutputStats
from gateway.predictions.ports.sharing import Hit
from gateway.sharing.rules.caching import LINKS_LIVE_SECONDS
from gateway.store.interface import Store
from tests.support.audit import PURGE
from tests.support.records import NOW, finish, go, share

END = NOW + 9
SOON = NOW + 1000
LATER = NOW + 100_000
A, B = "aa" * 32, "bb" * 32


def copy(place: int = 0, sha256: str = A, **fields: Any) -> Copy:
    given = {"url": f"https://x.example/{place}.png", "content_type": "image/png", "size": 100, "stored_at": NOW + 20}
    return Copy(place=place, sha256=sha256, **given | fields)


async def claim(store: Store, *hashes: str, size: int = 100, now: float = NOW + 10) -> None:
    for sha256 in hashes:
        assert await store.claim_object(sha256, size, now, now + 60)


async def run_with_copies(store: Store, name: str = "1", *copies: Copy, cache_until: float | None = LATER) -> Run:
    """End a run that can be hit for a while, and record its copies."""
    await go(store, name, fingerprint=f"F{name}")
    await finish(store, name, at=END, cache_until=SOON)
    await claim(store, *{each.sha256 for each in copies})
    run = await store.keep_copies(f"run{name}", copies, cache_until)
    assert run is not None
    return run


async def marked_for_deletion(store: Store, now: float = NOW + 50) -> list[str]:
    return sorted(await store.claim_deletions(now, now + 30))


async def can_hit(store: Store, name: str, now: float) -> bool:
    outcome = await share(store, f"hit{name}{now}", fingerprint=f"F{name}", now=now, may_join=False)
    return isinstance(outcome, Hit)


async def test_copies_appear_with_their_run_and_extend_its_expiry(store: Store) -> None:
    """Both in one transaction: a reader that sees the later expiry sees the copies."""
    run = await run_with_copies(store, "1", copy(1, B), copy(0, A))
    assert [each.place for each in run.copies] == [0, 1]
    assert run.cache_until == LATER
    assert await store.run("run1") == run
    view = await store.prediction("up1")
    assert view is not None
    assert view.run == run
    assert await can_hit(store, "1", LATER - 1)
    assert not await can_hit(store, "1", LATER)
    assert await store.output_stats() == OutputStats(2, 200)
    assert await marked_for_deletion(store) == []


async def test_expired_run_is_not_revived_by_copies(store: Store) -> None:
    """It was purged while its files were being copied: it stays purged."""
    await go(store, fingerprint="F1")
    await finish(store, at=END, cache_until=SOON)
    await claim(store, A)
    assert await store.purge_cache(PURGE) == 1
    run = await store.keep_copies("run1", [copy()], LATER)
    assert run is not None
    assert run.cache_until is None
    assert run.copies == (copy(),)
    assert not await can_hit(store, "1", NOW + 20)


async def test_copies_never_shorten_an_expiry(store: Store) -> None:
    assert (await run_with_copies(store, "1", copy(), cache_until=SOON - 10)).cache_until == SOON
    assert (await run_with_copies(store, "2", copy(), cache_until=None)).cache_until == SOON


async def test_only_ended_runs_with_data_get_copies(store: Store) -> None:
    """A run whose data the janitor has just removed gets none, and the object has no owner."""
    assert await store.keep_copies("run9", [copy()], LATER) is None
    await go(store, fingerprint="F1")
    await claim(store, A)
    assert await store.keep_copies("run1", [copy()], LATER) is None
    await finish(store, at=END)
    await store.clear_data("run1", b"{}")
    assert await store.keep_copies("run1", [copy()], LATER) is None
    assert await marked_for_deletion(store) == []
    assert await marked_for_deletion(store, NOW + 71) == [A]


async def test_unclaimed_copy_is_not_recorded(store: Store) -> None:
    """A copy whose object was deleted meanwhile is not shown and does not extend the run's expiry."""
    await go(store, fingerprint="F1")
    await finish(store, at=END, cache_until=SOON)
    await claim(store, A)
    run = await store.keep_copies("run1", [copy(0, A), copy(1, B)], LATER)
    assert run is not None
    assert run.copies == (copy(0, A),)
    assert run.cache_until == SOON


async def test_new_copies_replace_the_previous_ones(store: Store) -> None:
    """The rest of a run's files is copied later; an object that is no longer listed is released."""
    await run_with_copies(store, "1", copy(0, A))
    await claim(store, B)
    run = await store.keep_copies("run1", [copy(0, A), copy(1, B)], LATER)
    assert run is not None
    assert run.copies == (copy(0, A), copy(1, B))
    run = await store.keep_copies("run1", [copy(1, B)], LATER)
    assert run is not None
    assert run.copies == (copy(1, B),)
    assert await marked_for_deletion(store) == [A]


async def test_object_is_kept_while_any_run_needs_it(store: Store) -> None:
    """Two teams made the same picture; deleting one team's keeps the other's."""
    await run_with_copies(store, "1", copy())
    await run_with_copies(store, "2", copy(5))
    assert await store.output_stats() == OutputStats(1, 100)
    await store.clear_data("run1", b"{}")
    first = await store.run("run1")
    assert first is not None
    assert first.copies == ()
    assert await marked_for_deletion(store) == []
    assert await store.delete_records(LATER, 10) == 2
    assert await marked_for_deletion(store) == [A]
    await store.delete_object_record(A)
    assert await store.output_stats() == OutputStats(0, 0)


async def test_unused_claim_that_expires_marks_the_object_for_deletion(store: Store) -> None:
    """The process died between writing the bytes and recording them."""
    await claim(store, A, now=NOW)
    assert await marked_for_deletion(store, NOW + 59) == []
    assert await marked_for_deletion(store, NOW + 60) == [A]


async def test_claim_that_expires_on_an_owned_object_changes_nothing(store: Store) -> None:
    await run_with_copies(store, "1", copy())
    await claim(store, A, now=NOW + 30)
    assert await marked_for_deletion(store, NOW + 200) == []
    assert await store.output_stats() == OutputStats(1, 100)


async def test_object_marked_for_deletion_cannot_be_claimed_or_owned(store: Store) -> None:
    """While its bytes are being deleted, no run may refer to them."""
    await run_with_copies(store, "1", copy())
    assert await store.drop_object(A)
    assert not await store.drop_object(A)
    assert not await store.claim_object(A, 100, NOW + 30, NOW + 90)
    run = await store.keep_copies("run1", [copy()], LATER)
    assert run is not None
    assert run.copies == ()
    assert await marked_for_deletion(store) == [A]
    await store.delete_object_record(A)
    assert await store.claim_object(A, 100, NOW + 60, NOW + 90)


async def test_only_objects_marked_for_deletion_are_deleted(store: Store) -> None:
    await run_with_copies(store, "1", copy())
    await store.delete_object_record(A)
    assert await store.output_stats() == OutputStats(1, 100)


async def test_marked_objects_are_deleted_by_one_process_at_a_time(store: Store, another) -> None:
    """A slow deletion must not delete a new object of the same bytes."""
    await claim(store, A, B, now=NOW)
    second = another()
    await second.open()
    try:
        taken = await asyncio.gather(*((store, second)[n % 2].claim_deletions(NOW + 60, NOW + 90) for n in range(10)))
    finally:
        await second.close()
    assert sorted(sha256 for each in taken for sha256 in each) == [A, B]
    assert await marked_for_deletion(store, NOW + 89) == []
    assert await marked_for_deletion(store, NOW + 90) == [A, B]
    assert len(await store.claim_deletions(NOW + 200, NOW + 300, limit=1)) == 1


async def test_run_with_a_lost_object_expires_with_upstreams_links(store: Store) -> None:
    """From then on the run can be hit only as long as upstream's links work."""
    await run_with_copies(store, "1", copy(0, A), copy(1, B))
    assert await store.drop_object(A)
    run = await store.run("run1")
    assert run is not None
    assert run.copies == (copy(1, B),)
    assert run.cache_until == END + LINKS_LIVE_SECONDS
    assert await can_hit(store, "1", END + LINKS_LIVE_SECONDS - 1)
    assert not await can_hit(store, "1", END + LINKS_LIVE_SECONDS)
    assert not await store.drop_object("cc" * 32)


async def test_eviction_removes_the_least_recently_used_objects(store: Store) -> None:
    """Objects that were read lately and objects that are being written stay."""
    for number, sha256 in enumerate(("a", "b", "c", "d")):
        await go(store, str(number), fingerprint=f"F{number}")
        await finish(store, str(number), at=END)
        await claim(store, sha256 * 64, now=NOW + 10 + number)
        if sha256 != "d":
            assert await store.keep_copies(f"run{number}", [copy(0, sha256 * 64)], LATER) is not None
    await store.use_object("a" * 64, NOW + 40)
    assert await store.evict_objects(400, NOW + 41) == 0
    assert await store.evict_objects(399, NOW + 41) == 1
    assert await marked_for_deletion(store) == ["b" * 64]
    assert await store.evict_objects(0, NOW + 41, limit=1) == 1
    assert await store.evict_objects(0, NOW + 41) == 1
    assert await store.evict_objects(0, NOW + 41) == 0
    assert await store.output_stats() == OutputStats(1, 100), "one is claimed"
    run = await store.run("run1")
    assert run is not None
    assert run.copies == ()


async def test_last_use_never_moves_back(store: Store) -> None:
    await run_with_copies(store, "1", copy(0, A))
    await run_with_copies(store, "2", copy(0, B))
    await store.use_object(A, NOW + 50)
    await store.use_object(A, NOW + 5)
    await store.use_object("cc" * 32, NOW)
    assert await store.evict_objects(100, NOW + 80) == 1
    assert await marked_for_deletion(store) == [B]


async def test_copies_older_than_the_limit_are_dropped(store: Store) -> None:
    """An object is deleted when the last copy of it is too old."""
    await run_with_copies(store, "1", copy(0, A, stored_at=NOW + 20), copy(1, B, stored_at=NOW + 20))
    await run_with_copies(store, "2", copy(0, A, stored_at=NOW + 30))
    assert await store.drop_old_copies(NOW + 20, 10) == 0
    assert await store.drop_old_copies(NOW + 21, 1) == 1
    assert await store.drop_old_copies(NOW + 21, 10) == 1
    assert await marked_for_deletion(store) == [B]
    first, second = await store.run("run1"), await store.run("run2")
    assert first is not None
    assert second is not None
    assert (first.copies, len(second.copies)) == ((), 1)
    assert first.cache_until == END + LINKS_LIVE_SECONDS
    assert second.cache_until == LATER
    assert await store.drop_old_copies(float("inf"), 10) == 1


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED])
async def test_recently_ended_runs_are_listed_in_order_of_their_end(store: Store, status: Status) -> None:
    """After a restart the copier searches them for files to copy."""
    for name, at in (("1", END), ("3", END + 5), ("2", END + 5), ("4", END - 5), ("5", END + 9)):
        await go(store, name)
        await finish(store, name, at=at, status=status)
    await go(store, "6")
    await store.clear_data("run5", b"{}")

    async def listed(**more: Any) -> list[str]:
        return [run.id for run in await store.runs_ended(**more)]

    assert await listed(since=END) == ["run1", "run2", "run3"]
    assert await listed(since=END, after="run1") == ["run2", "run3"]
    assert await listed(since=END, limit=2) == ["run1", "run2"]
    assert await listed(since=END + 5, after="run2") == ["run3"]


async def test_copies_survive_a_restart(store: Store, another) -> None:
    await run_with_copies(store, "1", copy())
    await claim(store, B)
    await store.close()
    again = another()
    await again.open()
    try:
        run = await again.run("run1")
        assert run is not None
        assert run.copies == (copy(),)
        assert await again.output_stats() == OutputStats(2, 200)
    finally:
        await again.close()
