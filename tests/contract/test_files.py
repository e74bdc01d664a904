"""Uploaded files. (Their lists are in test_lists.py.)"""

from gateway.store.interface import Store
from tests.support.records import NOW, file


async def test_file_is_returned_as_it_was_added(store: Store) -> None:
    made = file(size=2**40, document=bytes(range(256)))
    await store.add_file(made)
    assert await store.file("f1") == made
    assert await store.file("f2") is None


async def test_file_keeps_its_owner(store: Store) -> None:
    """Adding the same id again, from any team, does not change the owner."""
    await store.add_file(file())
    await store.add_file(file())
    await store.add_file(file(team="blue", document=b"other"))
    assert await store.file("f1") == file()


async def test_several_files_are_found_in_one_query(store: Store) -> None:
    for each in ("f1", "f2", "f3"):
        await store.add_file(file(each, team="blue" if each == "f3" else "red"))
    found = await store.files_among(["f3", "nope", "f1", "f3", "", 'x"y'])
    assert sorted(each.id for each in found) == ["f1", "f3"]
    assert await store.files_among([]) == []
    assert len(await store.files_among([f"f{n}" for n in range(5000)])) == 3


async def test_deleted_file_is_not_found(store: Store) -> None:
    await store.add_file(file())
    await store.delete_file("f1")
    await store.delete_file("f1")
    assert await store.file("f1") is None
    assert (await store.files(team="red", limit=10, now=NOW)).items == []


async def test_file_is_listed_until_it_expires(store: Store) -> None:
    await store.add_file(file(expires_at=NOW + 5))
    assert (await store.files(team="red", limit=10, now=NOW + 4)).items == [file(expires_at=NOW + 5)]
    assert (await store.files(team="red", limit=10, now=NOW + 5)).items == []


async def test_expired_files_are_deleted_in_batches(store: Store) -> None:
    for n in range(5):
        await store.add_file(file(f"f{n}", expires_at=NOW + n))
    assert await store.delete_expired_files(NOW + 3, 2) == 2
    assert [await store.file(f"f{n}") is None for n in range(5)] == [True, True, False, False, False]
    assert await store.delete_expired_files(NOW + 3, 2) == 1
    assert await store.delete_expired_files(NOW + 3, 2) == 0
    assert await store.file("f3") is not None


async def test_files_are_found_by_size_until_they_expire(store: Store) -> None:
    """The gateway checks whether the team may have uploaded these bytes before it reads the upload."""
    await store.add_file(file("f1", size=1000, expires_at=NOW + 10))
    await store.add_file(file("f2", size=5000, team="blue"))
    for smallest, largest, found in [(1000, 1000, True), (900, 1100, True), (1001, 9000, False), (0, 999, False)]:
        assert await store.has_file_of_size("red", smallest, largest, NOW) is found
    assert not await store.has_file_of_size("red", 0, 2000, NOW + 10)
    assert not await store.has_file_of_size("green", 0, 9000, NOW)


async def test_equal_bytes_are_found_within_a_team_only(store: Store) -> None:
    """The files that upstream keeps longest come first."""
    await store.add_file(file("f1", sha256="S", expires_at=NOW + 10))
    await store.add_file(file("f2", sha256="S", expires_at=NOW + 30))
    await store.add_file(file("f3", sha256="T", expires_at=NOW + 20))
    await store.add_file(file("f4", sha256="S", team="blue"))
    assert [each.id for each in await store.files_of_content("red", "S", NOW)] == ["f2", "f1"]
    assert [each.id for each in await store.files_of_content("red", "S", NOW, limit=1)] == ["f2"]
    assert [each.id for each in await store.files_of_content("red", "S", NOW + 10)] == ["f2"]
    assert await store.files_of_content("red", "U", NOW) == []


async def test_last_record_of_an_upstream_file_releases_it(store: Store) -> None:
    """Upstream's file is deleted when the last of them is, and a released one is not used again."""
    for each in ("f1", "f2", "f3"):
        await store.add_file(file(each, upstream_id="f3" if each == "f3" else "f1"))
    assert not await store.delete_file("f1")
    assert not await store.delete_file("f1")
    assert await store.share_file(file("f4", upstream_id="f1"))
    assert not await store.delete_file("f2")
    assert await store.delete_file("f4")
    assert not await store.delete_file("f4")
    assert not await store.share_file(file("f5", upstream_id="f1"))
    assert [each.id for each in await store.files_among(["f1", "f2", "f3", "f4", "f5"])] == ["f3"]
