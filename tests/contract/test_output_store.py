"""Stored bytes of outputs, in every backend: complete or absent, found by their hash."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import obstore
import pytest

from gateway.errors import OutputLost, StoreUnavailable
from gateway.outputs.ports import OutputStore
from gateway.store.objects.bucket import BucketStore
from gateway.store.objects.urls import open_output_store
from tests.support.s3 import CREDENTIALS, make_bucket, outputs_url, s3

__all__ = ["outputs_url", "s3"]

MIB = 1024 * 1024


@pytest.fixture
async def objects(outputs_url: str) -> AsyncIterator[OutputStore]:
    """An output store that is open."""
    store = open_output_store(outputs_url)
    await store.open()
    yield store
    await store.close()


async def put(store: OutputStore, data: bytes, piece: int = 70_000) -> str:
    """Put bytes in, in pieces."""
    async with store.spool() as spool:
        for start in range(0, len(data), piece):
            await spool.write(data[start : start + piece])
        assert spool.size == len(data)
        sha256 = await spool.finish()
        await store.put(spool, sha256)
    return sha256


async def read(store: OutputStore, sha256: str, size: int, start: int = 0, stop: int | None = None) -> bytes:
    """Read a part of an object."""
    async with store.read(sha256, size) as stored:
        return b"".join([block async for block in stored.blocks(start, size if stop is None else stop)])


@pytest.mark.parametrize("size", [0, 1, 70_001, MIB, 9 * MIB + 17], ids=str)
async def test_object_is_read_as_it_was_written(objects: OutputStore, size: int) -> None:
    """Byte for byte, whatever its size; large files are uploaded to a bucket in parts."""
    data = os.urandom(size)
    sha256 = await put(objects, data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert await read(objects, sha256, size) == data
    await put(objects, data)
    assert await read(objects, sha256, size) == data


async def test_ranges_are_read_without_the_rest(objects: OutputStore) -> None:
    """The end of a video is read without its start."""
    data = os.urandom(2 * MIB + 5)
    sha256 = await put(objects, data)
    for start, stop in ((0, 1), (MIB - 1, MIB + 1), (5, 5), (2 * MIB, 2 * MIB + 5), (1, 2 * MIB + 4)):
        assert await read(objects, sha256, len(data), start, stop) == data[start:stop]


async def test_missing_object_raises_output_lost(objects: OutputStore) -> None:
    """Whether it never existed, was deleted, or does not have the expected size."""
    sha256 = await put(objects, b"picture")
    with pytest.raises(OutputLost):
        await read(objects, sha256, 8)
    await objects.delete(sha256)
    await objects.delete(sha256)
    for unknown in (sha256, "ab" * 32):
        with pytest.raises(OutputLost):
            await read(objects, unknown, 7)


async def test_incomplete_write_leaves_no_object(objects: OutputStore, tmp_path: Path) -> None:
    """A copy that fails or is cancelled halfway leaves nothing behind."""
    async with objects.spool() as spool:
        await spool.write(b"x" * 3 * MIB)
        sha256 = await spool.finish()
    with pytest.raises(OutputLost):
        await read(objects, sha256, 3 * MIB)

    written = asyncio.Event()

    async def begin() -> None:
        async with objects.spool() as spool:
            while True:
                await spool.write(b"x" * MIB)
                written.set()

    task = asyncio.create_task(begin())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_concurrent_writes_of_the_same_bytes_store_one_object(objects: OutputStore) -> None:
    """Equal pictures of different teams: one object, complete at all times."""
    data = os.urandom(MIB)
    (sha256,) = set(await asyncio.gather(*(put(objects, data) for _ in range(8))))
    assert await read(objects, sha256, MIB) == data


async def test_objects_survive_a_restart(objects: OutputStore, outputs_url: str) -> None:
    """Another process finds them later by the same URL."""
    sha256 = await put(objects, b"picture")
    again = open_output_store(outputs_url)
    await again.open()
    try:
        assert await read(again, sha256, 7) == b"picture"
    finally:
        await again.close()


async def test_unreachable_store_raises_unavailable(objects: OutputStore, outputs_url: str, tmp_path: Path) -> None:
    """A disk that is not mounted or a missing bucket: its objects are not considered lost."""
    sha256 = await put(objects, b"picture")
    if outputs_url.startswith("s3:"):
        objects = open_output_store(outputs_url.replace("//bucket", "//other"))
    else:
        (tmp_path / "outputs").rename(tmp_path / "unmounted")
    with pytest.raises(StoreUnavailable):
        await read(objects, sha256, 7)
    with pytest.raises(StoreUnavailable):
        await put(objects, b"other")


async def test_unreachable_bucket_is_reported_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong endpoint shows when the gateway starts, not when the first file is copied."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    store = open_output_store("s3://bucket?endpoint=http://127.0.0.1:9&region=us-east-1")
    with pytest.raises(StoreUnavailable, match="bucket"):
        await store.open()


async def test_opening_a_folder_deletes_abandoned_writes(tmp_path: Path) -> None:
    """Partial files of a killed process are deleted; those of a running process stay."""
    first = open_output_store(str(tmp_path))
    await first.open()
    (tmp_path / "incoming" / "left").write_bytes(b"half of a fi")
    async with first.spool() as spool:
        await spool.write(b"picture")
        second = open_output_store(f"file://{tmp_path}")
        await second.open()
        assert len(list((tmp_path / "incoming").iterdir())) == 1
        sha256 = await spool.finish()
        await first.put(spool, sha256)
        assert await read(second, sha256, 7) == b"picture"
    for store in (first, second):
        await store.close()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [sha256]
    assert oct((tmp_path / "incoming").stat().st_mode)[-3:] == "700"


async def test_corrupt_object_in_a_folder_is_not_served(tmp_path: Path) -> None:
    """A bit on the disk flipped: the size is right, the bytes are not. Earlier checks are not trusted either."""
    store = open_output_store(str(tmp_path))
    await store.open()
    sha256 = await put(store, b"picture")
    path = tmp_path / sha256[:2] / sha256
    for is_known in (False, True):
        if is_known:
            assert await read(store, sha256, 7) == b"picture"
        path.write_bytes(b"pictuse")
        os.utime(path, (1, 1))
        with pytest.raises(OutputLost):
            await read(store, sha256, 7)
        await put(store, b"picture")
    assert await read(store, sha256, 7) == b"picture"
    await store.close()


async def test_corrupt_object_in_a_bucket_is_cut_off(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody replaced an object's bytes: a reader of all of it is disconnected before the end."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    url = make_bucket(s3, "spoilt")
    store = open_output_store(url)
    await store.open()
    sha256 = await put(store, b"picture")
    assert isinstance(store, BucketStore)
    await obstore.put_async(store._store, f"{sha256[:2]}/{sha256}", b"pictuse")
    with pytest.raises(OutputLost):
        await read(store, sha256, 7)
    await store.close()


async def test_corrupt_object_is_replaced_by_the_next_copy(tmp_path: Path) -> None:
    """The same picture is copied again: its bytes replace those that the disk corrupted."""
    store = open_output_store(str(tmp_path))
    await store.open()
    sha256 = await put(store, b"picture")
    path = tmp_path / sha256[:2] / sha256
    path.write_bytes(b"pic")
    with pytest.raises(OutputLost):
        await read(store, sha256, 7)
    await put(store, b"picture")
    assert await read(store, sha256, 7) == b"picture"
    async with store.read(sha256, 7) as stored:
        os.truncate(path, 3)
        with pytest.raises(OutputLost):
            assert [block async for block in stored.blocks(0, 7)] == []
    await store.close()
