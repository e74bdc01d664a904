"""Uploaded files. (Their lists are in test_lists.py.)"""

from gateway.ports import Store
from tests.contract.records import NOW, file


async def test_a_file_comes_back_as_it_was(store: Store) -> None:
    made = file(size=2**40, document=bytes(range(256)))
    await store.add_file(made)
    assert await store.file("f1") == made
    assert await store.file("f2") is None


async def test_a_file_stays_its_owners(store: Store) -> None:
    """A second word on the same id, from whatever team, does not change whose file it is."""
    await store.add_file(file())
    await store.add_file(file())
    await store.add_file(file(team="blue", document=b"other"))
    assert await store.file("f1") == file()


async def test_several_files_are_found_in_one_look(store: Store) -> None:
    for each in ("f1", "f2", "f3"):
        await store.add_file(file(each, team="blue" if each == "f3" else "red"))
    found = await store.files_among(["f3", "nope", "f1", "f3", "", 'x"y'])
    assert sorted(each.id for each in found) == ["f1", "f3"]
    assert await store.files_among([]) == []
    assert len(await store.files_among([f"f{n}" for n in range(5000)])) == 3


async def test_a_deleted_file_is_gone(store: Store) -> None:
    await store.add_file(file())
    await store.delete_file("f1")
    await store.delete_file("f1")
    assert await store.file("f1") is None
    assert (await store.files(team="red", limit=10, now=NOW)).items == []


async def test_a_file_is_listed_until_it_expires(store: Store) -> None:
    await store.add_file(file(expires_at=NOW + 5))
    assert (await store.files(team="red", limit=10, now=NOW + 4)).items == [file(expires_at=NOW + 5)]
    assert (await store.files(team="red", limit=10, now=NOW + 5)).items == []


async def test_expired_files_are_forgotten_in_steps(store: Store) -> None:
    for n in range(5):
        await store.add_file(file(f"f{n}", expires_at=NOW + n))
    assert await store.delete_expired_files(NOW + 3, 2) == 2
    assert [await store.file(f"f{n}") is None for n in range(5)] == [True, True, False, False, False]
    assert await store.delete_expired_files(NOW + 3, 2) == 1
    assert await store.delete_expired_files(NOW + 3, 2) == 0
    assert await store.file("f3") is not None
