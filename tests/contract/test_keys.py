"""API keys that are created, rotated and revoked at run time."""

import asyncio

import pytest

from gateway.errors import Conflict
from gateway.store.interface import Store
from tests.support.audit import BY_TEST
from tests.support.records import NOW, key


async def test_key_is_returned_as_it_was_added(store: Store) -> None:
    narrowed = key(
        "k2",
        expires_at=NOW + 5,
        scopes=("read", "predict"),
        models=("acme/*",),
        origins=(),
    )
    await store.add_key(key(), actor=BY_TEST)
    await store.add_key(narrowed, actor=BY_TEST)
    assert await store.key("k1") == key()
    assert await store.key("k2") == narrowed
    assert await store.key("k3") is None


async def test_keys_are_listed_by_team_and_creation_time(store: Store) -> None:
    made = [key("k1", created_at=NOW + 1), key("k2"), key("k3", team="blue", created_at=NOW + 2)]
    for each in made:
        await store.add_key(each, actor=BY_TEST)
    assert await store.keys() == [made[2], made[1], made[0]]
    assert await store.keys("red") == [made[1], made[0]]
    assert await store.keys("green") == []


async def test_key_id_is_unique(store: Store) -> None:
    await store.add_key(key(), actor=BY_TEST)
    with pytest.raises(Conflict):
        await store.add_key(key(team="blue", name="other"), actor=BY_TEST)
    assert await store.keys() == [key()]


async def test_key_name_is_unique_in_a_team_until_revoked(store: Store) -> None:
    """After revoking the key "ci" a new "ci" can be created; another team's "ci" is no conflict."""
    await store.add_key(key("k1", name="ci"), actor=BY_TEST)
    await store.add_key(key("k2", name="ci", team="blue"), actor=BY_TEST)
    with pytest.raises(Conflict, match="ci"):
        await store.add_key(key("k3", name="ci"), actor=BY_TEST)
    await store.revoke_key("k1", NOW, actor=BY_TEST)
    await store.add_key(key("k3", name="ci"), actor=BY_TEST)
    assert [each.id for each in await store.keys("red")] == ["k1", "k3"]


async def test_concurrent_keys_of_one_name_create_one(store: Store, another) -> None:
    """Two administrators on two machines run the same command at once."""
    second = another()
    await second.open()
    try:
        outcomes = await asyncio.gather(
            *((store, second)[n % 2].add_key(key(f"k{n}", name="ci"), actor=BY_TEST) for n in range(20)),
            return_exceptions=True,
        )
    finally:
        await second.close()
    assert sum(each is None for each in outcomes) == 1
    assert sum(isinstance(each, Conflict) for each in outcomes) == 19
    assert len(await store.keys()) == 1


async def test_name_conflict_fails_no_other_command(store: Store) -> None:
    """One refused command among many: the others succeed."""
    await store.add_key(key("taken"), actor=BY_TEST)
    outcomes = await asyncio.gather(
        *(store.add_key(key(f"k{n}" if n % 5 else "taken", name=f"n{n}"), actor=BY_TEST) for n in range(50)),
        return_exceptions=True,
    )
    assert [isinstance(each, Conflict) for each in outcomes] == [n % 5 == 0 for n in range(50)]
    assert len(await store.keys()) == 41


async def test_second_revocation_keeps_the_first_time(store: Store) -> None:
    await store.add_key(key(), actor=BY_TEST)
    revoked = key(revoked_at=NOW + 1)
    assert await store.revoke_key("k1", NOW + 1, actor=BY_TEST) == revoked
    assert await store.revoke_key("k1", NOW + 2, actor=BY_TEST) == revoked
    assert await store.key("k1") == revoked
    assert await store.revoke_key("k2", NOW, actor=BY_TEST) is None


async def test_rotated_key_overlaps_with_its_successor(store: Store) -> None:
    """The new key has the old one's name; both work until the old one expires."""
    await store.add_key(key("k1", name="ci"), actor=BY_TEST)
    successor = key("k2", name="ci", created_at=NOW + 10)
    assert await store.rotate_key("k1", successor, NOW + 70, actor=BY_TEST) == key("k1", name="ci", expires_at=NOW + 70)
    assert await store.keys("red") == [key("k1", name="ci", expires_at=NOW + 70), successor]


async def test_rotation_never_extends_a_key(store: Store) -> None:
    await store.add_key(key("k1", expires_at=NOW + 5), actor=BY_TEST)
    old = await store.rotate_key("k1", key("k2", name="name-k1"), NOW + 70, actor=BY_TEST)
    assert old is not None
    assert old.expires_at == NOW + 5


async def test_key_can_be_rotated_repeatedly(store: Store) -> None:
    await store.add_key(key("k0", name="ci"), actor=BY_TEST)
    for n in range(1, 4):
        assert (
            await store.rotate_key(f"k{n - 1}", key(f"k{n}", name="ci", created_at=NOW + n), NOW + n, actor=BY_TEST)
            is not None
        )
    assert [each.expires_at for each in await store.keys()] == [NOW + 1, NOW + 2, NOW + 3, None]


async def test_unknown_or_revoked_key_cannot_be_rotated(store: Store) -> None:
    """A revoked key cannot produce a valid one."""
    await store.add_key(key(), actor=BY_TEST)
    await store.revoke_key("k1", NOW, actor=BY_TEST)
    assert await store.rotate_key("k1", key("k2"), NOW + 5, actor=BY_TEST) is None
    assert await store.rotate_key("k9", key("k3"), NOW + 5, actor=BY_TEST) is None
    assert [each.id for each in await store.keys()] == ["k1"]
    assert (await store.keys())[0].expires_at is None


async def test_rotation_needs_an_unused_id_and_name(store: Store) -> None:
    """If the successor cannot be added, the old key is unchanged."""
    for each in (key("k1"), key("k2")):
        await store.add_key(each, actor=BY_TEST)
    for successor in (key("k2", name="name-k1"), key("k1", name="name-k1"), key("k3", name="name-k2")):
        with pytest.raises(Conflict):
            await store.rotate_key("k1", successor, NOW + 5, actor=BY_TEST)
    assert await store.keys() == [key("k1"), key("k2")]


async def test_concurrent_revocation_and_rotation_leave_no_hidden_key(store: Store) -> None:
    """Either there is no successor, or the caller of the rotation received it."""
    for n in range(20):
        old, new = f"old{n}", f"new{n}"
        await store.add_key(key(old), actor=BY_TEST)
        calls = [store.revoke_key(old, NOW, actor=BY_TEST), store.rotate_key(old, key(new), NOW + 5, actor=BY_TEST)]
        outcomes = await asyncio.gather(*(calls if n % 2 else reversed(calls)))
        rotated = outcomes[1] if n % 2 else outcomes[0]
        assert (await store.key(new) is not None) == (rotated is not None)
        revoked = await store.key(old)
        assert revoked is not None
        assert revoked.revoked_at == NOW


async def test_key_changes_are_visible_to_another_process(store: Store, another) -> None:
    """`gateway keys create` and `revoke` beside a running gateway take effect at its next lookup."""
    command_line = another()
    await command_line.open()
    try:
        await command_line.add_key(key(), actor=BY_TEST)
        assert await store.key("k1") == key()
        await command_line.revoke_key("k1", NOW, actor=BY_TEST)
        assert await store.key("k1") == key(revoked_at=NOW)
        await store.add_key(key("k2"), actor=BY_TEST)
        assert await command_line.key("k2") == key("k2")
    finally:
        await command_line.close()
    assert await store.key("k2") == key("k2")
