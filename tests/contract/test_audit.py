"""The audit log: each change is recorded with it, once; pages and filters; what is old is deleted."""

import asyncio

import pytest
from msgspec.structs import replace

from gateway.domain.audit import AuditedOperation, AuditEntry, AuditFilter
from gateway.errors import Conflict
from gateway.store.interface import Store
from tests.support.audit import BY_TEST
from tests.support.filled_store import delivery
from tests.support.records import NOW, finish, go, key

EVERYTHING = AuditFilter()


async def entries(store: Store, **which: object) -> list[AuditEntry]:
    return (await store.audit_entries(AuditFilter(**which), limit=100)).entries  # type: ignore[arg-type]


async def actions(store: Store) -> list[str]:
    """Return what is recorded, in order."""
    return [each.action for each in reversed(await entries(store))]


async def test_each_change_of_a_key_is_recorded_with_who_made_it(store: Store) -> None:
    await store.add_key(key(scopes=("read",), expires_at=NOW + 90), actor=BY_TEST)
    await store.change_key("k1", None, lambda old: replace(old, models=("acme/*",)), NOW + 1, actor=BY_TEST)
    successor = {"name": "name-k1", "scopes": ("read",), "models": ("acme/*",)}
    await store.rotate_key("k1", key("k2", **successor, created_at=NOW + 1), NOW + 60, actor=BY_TEST)
    await store.revoke_key("k2", NOW + 2, actor=BY_TEST)
    revoked, rotated, changed, created = await entries(store)
    assert {(each.actor, each.team) for each in (revoked, rotated, changed, created)} == {(BY_TEST, "red")}
    assert (created.action, created.subject, created.at, created.before) == ("key.created", "k1", NOW, None)
    assert created.after is not None
    assert created.after["scopes"] == ["read"]
    assert (changed.action, changed.before, changed.after) == ("key.changed", {"models": None}, {"models": ["acme/*"]})
    assert (rotated.action, rotated.subject) == ("key.rotated", "k1")
    assert rotated.before == {"expires_at": "2025-11-24T16:01:30.250Z"}
    assert rotated.after is not None
    assert (rotated.after["expires_at"], rotated.after["successor"]) == ("2025-11-24T16:01:00.250Z", "k2")
    assert (revoked.action, revoked.subject, revoked.before) == ("key.revoked", "k2", {"revoked_at": None})
    assert revoked.after == {"revoked_at": "2025-11-24T16:00:02.250Z"}


async def test_what_changes_nothing_is_not_recorded(store: Store) -> None:
    """A refused key, a second revocation, a correction that is known, an empty purge, an unknown delivery."""
    await store.add_key(key(), actor=BY_TEST)
    await store.revoke_key("k1", NOW, actor=BY_TEST)
    await store.adjust("red", 5, "gift", NOW, adjustment_id="a", actor=BY_TEST)
    made = await actions(store)
    with pytest.raises(Conflict):
        await store.add_key(key(), actor=BY_TEST)
    await store.revoke_key("k1", NOW + 1, actor=BY_TEST)
    await store.revoke_key("none", NOW + 1, actor=BY_TEST)
    await store.rotate_key("k1", key("k2"), NOW, actor=BY_TEST)
    await store.adjust("red", 5, "gift", NOW, adjustment_id="a", actor=BY_TEST)
    await store.purge_cache(AuditedOperation(id="p", at=NOW, actor=BY_TEST))
    await store.redeliver(NOW, "none", actor=BY_TEST)
    await store.redeliver_all(NOW, actor=BY_TEST)
    assert await actions(store) == made == ["key.created", "key.revoked", "usage.adjusted"]


async def test_concurrent_revocations_are_one_change(store: Store) -> None:
    await store.add_key(key(), actor=BY_TEST)
    await asyncio.gather(*(store.revoke_key("k1", NOW + n, actor=BY_TEST) for n in range(8)))
    assert await actions(store) == ["key.created", "key.revoked"]


async def test_corrections_rotations_and_redeliveries_are_recorded(store: Store) -> None:
    await store.adjust("red", -5, "gift", NOW, adjustment_id="a", actor=BY_TEST)
    await store.rotate_secret("webhook:red", b"secret", NOW + 1, NOW + 61, team="red", actor=BY_TEST)
    for name in ("d1", "d2"):
        await store.add_delivery(delivery(name), b"body")
        await store.mark_dead(name, NOW, "gone", b"body")
    assert not await store.redeliver(NOW + 2, "d1", actor=BY_TEST, team="blue")
    assert await store.redeliver(NOW + 2, "d1", actor=BY_TEST, team="red")
    assert await store.redeliver_all(NOW + 3, actor=BY_TEST) == 1
    found = [(each.action, each.subject, each.team, each.after) for each in reversed(await entries(store))]
    assert found == [
        ("usage.adjusted", "red", "red", {"microusd": -5, "reason": "gift", "adjustment": "a"}),
        ("webhook_secret.rotated", "red", "red", {"old_secrets_until": "2025-11-24T16:01:01.250Z"}),
        ("webhooks.redelivered", "d1", "red", {"prediction": None}),
        ("webhooks.redelivered", "all", None, {"deliveries": 1, "dead_only": True}),
    ]


async def test_purge_in_several_steps_is_one_entry(store: Store) -> None:
    for name in "123":
        await go(store, name, fingerprint=name)
        await finish(store, name)
    operation, purged = AuditedOperation(id="p", at=NOW, actor=BY_TEST), 0
    while count := await store.purge_cache(operation, limit=2, purged_before=purged):
        purged += count
    (found,) = await entries(store)
    assert (found.action, found.subject, found.after) == ("cache.purged", "all", {"target": None, "purged": 3})


async def test_config_is_recorded_by_the_first_that_reads_it(store: Store, another) -> None:
    """Two nodes reload the same file; later the file is as it was before, which is a change too."""
    second = another()
    await second.open()
    try:
        for number, name in enumerate(("one", "two", "one")):
            made = await asyncio.gather(
                *((store, second)[n % 2].record_config(name, {}, {"n": n}, NOW + number) for n in range(6))
            )
            assert sorted(made) == [False] * 5 + [True]
    finally:
        await second.close()
    assert [each.subject for each in await entries(store)] == ["config:one", "config:two", "config:one"]
    assert {(each.actor, each.team) for each in await entries(store)} == {("config", None)}


async def test_entries_are_listed_by_page_newest_first(store: Store) -> None:
    """Several of one moment too."""
    for number in range(7):
        await store.adjust("red", number, "gift", NOW + number // 3, actor=BY_TEST)
    seen, last = list[int](), None
    while True:
        page = await store.audit_entries(EVERYTHING, limit=3, older_than=last)
        seen += [each.after["microusd"] for each in page.entries if each.after]
        if not page.has_more:
            break
        last = (page.entries[-1].at, page.entries[-1].id)
    assert seen == [6, 5, 4, 3, 2, 1, 0]


async def test_filters(store: Store) -> None:
    await store.adjust("red", 1, "gift", NOW, actor=BY_TEST)
    await store.adjust("blue", 2, "gift", NOW + 1, actor=BY_TEST)
    await store.add_key(key(team="blue", created_at=NOW + 2), actor=BY_TEST)
    await store.record_config("hash", {}, {}, NOW + 3)

    async def found(**which: object) -> list[float]:
        return [each.at - NOW for each in await entries(store, **which)]

    assert await found(team="blue") == [2, 1]
    assert await found(team="blue", action="usage.adjusted") == [1]
    assert await found(team="green") == []
    assert await found(actor="config") == [3]
    assert await found(subject="k1") == [2]
    assert await found(since=NOW + 1, until=NOW + 3) == [2, 1]
    assert await found(action="key.created", team="red") == []


async def test_old_entries_are_deleted_in_steps(store: Store) -> None:
    for number in range(5):
        await store.adjust("red", 1, "gift", NOW + number, actor=BY_TEST)
    assert [await store.delete_old_audit_entries(NOW + 3, 2) for _ in range(3)] == [2, 1, 0]
    assert [each.at - NOW for each in await entries(store)] == [4, 3]


async def test_no_entry_has_a_secret(store: Store) -> None:
    """Whatever callers put into names and reasons."""
    secrets = ["rgw_" + "a" * 12 + "_" + "B" * 32, "r8_" + "c" * 37, "whsec_" + "d" * 32]
    for number, secret in enumerate(secrets):
        await store.adjust("red", 1, f"because of {secret}", NOW, actor=BY_TEST)
        await store.add_key(key(f"k{number}", name=f"for {secret}", models=(f"acme/{secret}",)), actor=BY_TEST)
        successor = key(f"n{number}", name=f"new {secret}", models=(f"acme/{secret}",))
        await store.rotate_key(f"k{number}", successor, NOW, actor=BY_TEST)
        await store.record_config(f"hash{number}", {"a": secret}, {"a": [secret]}, NOW)
    await store.rotate_secret("webhook:red", b"S" * 24, NOW, NOW, team="red", actor=BY_TEST)
    text = repr(await entries(store))
    assert len(await entries(store)) == 13
    assert not [each for each in (*secrets, key().sha256, "S" * 24) if each in text]
