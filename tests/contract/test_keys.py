"""API keys that are created, rotated and revoked at run time."""

import asyncio

import pytest
from msgspec.structs import replace

from gateway.domain.limits import Allowance, Limits
from gateway.errors import Conflict
from gateway.store.interface import Store
from tests.support.audit import BY_TEST
from tests.support.records import NOW, key

ALLOWANCE = Allowance(own=Limits(requests_per_minute=5, microusd_per_day=7), per_user=Limits(seconds_per_day=2.0))


async def test_key_is_returned_as_it_was_added(store: Store) -> None:
    narrowed = key(
        "k2",
        expires_at=NOW + 5,
        scopes=("read", "predict"),
        models=("acme/*",),
        origins=(),
        allowance=ALLOWANCE,
        last_four="abcd",
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


async def test_a_holder_whose_key_changed_meanwhile_changes_nothing(store: Store) -> None:
    """Its rights were checked by the key as it was. The holder's own key can be what it changes."""
    holder = key("holder", scopes=("read", "keys"))
    await store.add_key(holder, actor=BY_TEST)
    await store.add_key(key("k1"), actor=BY_TEST, holder=holder)
    renamed = await store.change_key(
        "holder", "red", lambda old: replace(old, name="own"), NOW, actor=BY_TEST, holder=holder
    )
    before = await store.keys()
    for call in (
        store.add_key(key("k2"), actor=BY_TEST, holder=holder),
        store.change_key("k1", "red", lambda old: replace(old, name="x"), NOW, actor=BY_TEST, holder=holder),
        store.rotate_key("k1", key("k3", name="name-k1"), NOW, actor=BY_TEST, holder=holder),
    ):
        with pytest.raises(Conflict, match="Your key was changed meanwhile"):
            await call
    assert await store.keys() == before
    await store.revoke_key("holder", NOW, actor=BY_TEST)
    with pytest.raises(Conflict, match="Your key was changed meanwhile"):
        await store.add_key(key("k2"), actor=BY_TEST, holder=renamed)


async def test_successor_has_the_rights_of_the_key_that_it_replaces(store: Store) -> None:
    """A key that was narrowed meanwhile is not replaced by one with its former rights."""
    await store.add_key(key(scopes=("read", "predict")), actor=BY_TEST)
    await store.change_key("k1", "red", lambda old: replace(old, scopes=("read",)), NOW, actor=BY_TEST)
    with pytest.raises(Conflict, match="changed meanwhile"):
        await store.rotate_key("k1", key("k2", scopes=("read", "predict")), NOW + 5, actor=BY_TEST)
    assert [each.id for each in await store.keys()] == ["k1"]


async def test_change_replaces_what_a_key_may_do(store: Store) -> None:
    """The id, the team, the digest and the creation stay."""
    await store.add_key(key(scopes=("read",)), actor=BY_TEST)
    wanted = key(name="new", scopes=None, models=("acme/*",), expires_at=NOW + 5, allowance=ALLOWANCE, last_four="abcd")
    changed = await store.change_key("k1", "red", lambda _: replace(wanted, team="blue"), NOW, actor=BY_TEST)
    assert changed == await store.key("k1") == replace(wanted, last_four=None)
    assert await store.change_key("k1", "blue", lambda old: old, NOW, actor=BY_TEST) is None
    assert await store.change_key("k9", None, lambda old: old, NOW, actor=BY_TEST) is None


async def test_change_is_refused_for_a_taken_name_and_a_revoked_key(store: Store) -> None:
    for name in ("k1", "k2"):
        await store.add_key(key(name), actor=BY_TEST)
    with pytest.raises(Conflict, match="name-k1"):
        await store.change_key("k2", None, lambda old: replace(old, name="name-k1"), NOW, actor=BY_TEST)
    await store.revoke_key("k2", NOW, actor=BY_TEST)
    with pytest.raises(Conflict, match="revoked"):
        await store.change_key("k2", None, lambda old: replace(old, name="x"), NOW, actor=BY_TEST)


async def test_concurrent_changes_are_all_applied(store: Store, another) -> None:
    """Each changes the key as the one before left it."""
    await store.add_key(key(models=()), actor=BY_TEST)
    second = another()
    await second.open()

    def adding(name: str):
        return lambda old: replace(old, models=(*old.models, name))

    try:
        names = [f"acme/m{n}" for n in range(12)]
        await asyncio.gather(
            *(
                (store, second)[n % 2].change_key("k1", None, adding(name), NOW, actor=BY_TEST)
                for n, name in enumerate(names)
            )
        )
    finally:
        await second.close()
    found = await store.key("k1")
    assert found is not None
    assert sorted(found.models or ()) == sorted(names)


async def test_number_of_valid_keys_is_bounded(store: Store) -> None:
    """Expired and revoked keys do not count, nor do those of other teams."""
    await store.add_key(key("old", expires_at=NOW), actor=BY_TEST, most=2)
    await store.add_key(key("blue", team="blue"), actor=BY_TEST, most=2)
    for name in ("k1", "k2"):
        await store.add_key(key(name), actor=BY_TEST, most=2)
    with pytest.raises(Conflict, match="2 valid keys"):
        await store.add_key(key("k3"), actor=BY_TEST, most=2)
    await store.revoke_key("k1", NOW, actor=BY_TEST)
    await store.add_key(key("k3"), actor=BY_TEST, most=2)


async def test_rotations_cannot_multiply_keys(store: Store) -> None:
    """One key that is rotated again and again with an overlap would make any number of valid ones."""
    await store.add_key(key("k0", name="ci"), actor=BY_TEST, most=2)
    for number in range(3):
        await store.rotate_key("k0", key(f"n{number}", name="ci"), NOW + 900, actor=BY_TEST, most=2)
    with pytest.raises(Conflict, match="4 valid keys"):
        await store.rotate_key("k0", key("n3", name="ci"), NOW + 900, actor=BY_TEST, most=2)


async def test_keys_are_listed_by_page_newest_first(store: Store) -> None:
    made = [key(f"k{n}", created_at=NOW + n // 2, team=("red", "blue")[n % 2]) for n in range(5)]
    for each in made:
        await store.add_key(each, actor=BY_TEST)
    first = await store.newest_keys(team=None, limit=3)
    assert first == made[:1:-1]
    assert await store.newest_keys(team=None, limit=3, older_than=(first[-1].created_at, first[-1].id)) == made[1::-1]
    assert await store.newest_keys(team="blue", limit=3) == [made[3], made[1]]


async def test_keys_are_listed_and_counted_by_creator(store: Store) -> None:
    """Of one team or of all. Those that are revoked or expired do not count."""
    by_lead, by_cli = {"created_by": "key:k9"}, {"created_by": "cli:ann"}
    made = [
        key("k1", **by_lead),
        key("k2", **by_cli),
        key("k3", team="blue", **by_lead),
        key("k4", expires_at=NOW + 5, **by_lead),
        key("k5"),
    ]
    for each in made:
        await store.add_key(each, actor=BY_TEST)
    assert await store.newest_keys(team=None, created_by="key:k9", limit=9) == [made[3], made[2], made[0]]
    assert await store.newest_keys(team="red", created_by="key:k9", limit=1) == [made[3]]
    older = (made[3].created_at, made[3].id)
    assert await store.newest_keys(team="red", created_by="key:k9", limit=9, older_than=older) == [made[0]]
    assert await store.newest_keys(team="green", created_by="key:k9", limit=9) == []
    assert await store.valid_keys_of("key:k9", NOW) == 3
    await store.revoke_key("k1", NOW, actor=BY_TEST)
    assert await store.valid_keys_of("key:k9", NOW + 5) == 1
    assert await store.valid_keys_of("none", NOW) == 0


async def test_last_use_is_the_latest_of_all_nodes(store: Store) -> None:
    await store.use_keys({"k1": NOW + 5, "red/web": NOW})
    await store.use_keys({"k1": NOW})
    assert await store.key_uses(["k1", "red/web", "none"]) == {"k1": NOW + 5, "red/web": NOW}


async def test_keys_that_ended_long_ago_are_deleted(store: Store) -> None:
    await store.add_key(key("valid"), actor=BY_TEST)
    await store.add_key(key("expired", expires_at=NOW), actor=BY_TEST)
    await store.add_key(key("revoked", expires_at=NOW + 900), actor=BY_TEST)
    await store.revoke_key("revoked", NOW + 1, actor=BY_TEST)
    await store.use_keys({"expired": NOW})
    assert await store.delete_old_keys(NOW, 9) == 0
    assert [await store.delete_old_keys(NOW + 2, 1) for _ in range(3)] == [1, 1, 0]
    assert [each.id for each in await store.keys()] == ["valid"]
    assert await store.key_uses(["expired"]) == {}


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
