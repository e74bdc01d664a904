"""Output store in an S3-compatible bucket: one object per file, named by its SHA-256.

Credentials come from the environment, as with AWS's own tools. An upload is written to an unnamed temporary file first,
because its name, the hash, is known only at its end. Large files are uploaded in parts, small ones in one request. A
download requests one block at a time, so that a slow reader occupies no connection to the bucket, and each request has
a short deadline.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from gateway.errors import OutputLost, StoreUnavailable
from gateway.store.objects.spool import BLOCK, FileSpool
from gateway.store.objects.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore.store import ClientConfig, RetryConfig, S3Config

    from gateway.outputs.ports import OutputStore, Spool, StoredObject

_PART_BYTES = 5 * 1024 * 1024
"""The minimum part size of S3. With the maximum of 10,000 parts, files can have 48 GiB. Up to three are in memory."""
_PARTS_AT_ONCE = 2
_READ_BYTES = 512 * 1024
"""Size of one download request, and memory per reader."""
_REQUEST_SECONDS = 60
_UPLOAD_SECONDS = 1800.0
_RETRIES = 3
_MARK = "replicate-gateway"
"""Name of an object that proves that the bucket exists. S3 answers 404 for a missing bucket and a missing object."""


class BucketStore:
    """Stores objects in a bucket."""

    def __init__(self, bucket: str, prefix: str, *, endpoint: str | None, region: str | None) -> None:
        client: ClientConfig = {
            "allow_http": (endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "timeout": timedelta(seconds=_REQUEST_SECONDS),
        }
        retries: RetryConfig = {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_REQUEST_SECONDS)}
        # Not every S3-compatible service supports bulk deletion.
        config: S3Config = {"disable_bulk_delete": True}
        if endpoint:
            config["endpoint"] = endpoint
        if region:
            config["region"] = region
        self._store = S3Store(bucket, prefix=prefix or None, config=config, client_options=client, retry_config=retries)
        self._threads = Threads()

    async def open(self) -> None:
        """Check that the bucket is writable. Temporary files have no name, so there is nothing to clean up."""
        with _translated_errors():
            await obstore.put_async(self._store, _MARK, b"Copies of output files, by SHA-256.\n")

    async def close(self) -> None:
        """Stop the threads."""
        self._threads.close()

    @asynccontextmanager
    async def spool(self) -> AsyncIterator[FileSpool]:
        """Open a spool for the bytes of one object."""
        file = await self._threads.do(tempfile.TemporaryFile, lambda made: made.close())
        try:
            yield FileSpool(file, self._threads)
        finally:
            await self._threads.do(file.close)

    async def put(self, spool: "Spool", sha256: str) -> None:
        """Upload a finished spool, unless the bucket has an object of that name and size."""
        assert isinstance(spool, FileSpool)
        if await self._size(sha256) == spool.size:
            return
        with _translated_errors():
            async with asyncio.timeout(_UPLOAD_SECONDS):
                await self._upload(spool, _key(sha256))
        if await self._size(sha256) != spool.size:
            raise StoreUnavailable("The bucket stored a file incompletely.", retry_after=5)

    async def _upload(self, spool: FileSpool, key: str) -> None:
        if spool.size <= _PART_BYTES:
            data = await self._threads.do(partial(_read, spool.file, 0, spool.size))
            await obstore.put_async(self._store, key, data, use_multipart=False)
        else:
            await obstore.put_async(
                self._store,
                key,
                self._parts(spool),
                use_multipart=True,
                chunk_size=_PART_BYTES,
                max_concurrency=_PARTS_AT_ONCE,
            )

    async def _parts(self, spool: FileSpool) -> AsyncIterator[bytes]:
        for start in range(0, spool.size, BLOCK):
            yield await self._threads.do(partial(_read, spool.file, start, BLOCK))

    async def _size(self, sha256: str) -> int | None:
        """Return the size of an object; `None` if it does not exist."""
        with _translated_errors():
            try:
                return (await obstore.head_async(self._store, _key(sha256)))["size"]
            except FileNotFoundError:
                return None

    @asynccontextmanager
    async def read(self, sha256: str, size: int) -> AsyncIterator["_OpenObject"]:
        """Open an object for reading. Raise `OutputLost` if it is missing or has another size."""
        actual = await self._size(sha256)
        if actual is None:
            await self._check_bucket_exists()
        if actual != size:
            raise OutputLost
        yield _OpenObject(self._store, sha256, size, self._threads)

    async def _check_bucket_exists(self) -> None:
        with _translated_errors():
            try:
                await obstore.head_async(self._store, _MARK)
            except FileNotFoundError as exc:
                raise StoreUnavailable("The output store's bucket does not exist.", retry_after=5) from exc

    async def delete(self, sha256: str) -> None:
        """Delete an object. Do nothing if it does not exist."""
        with _translated_errors():
            try:
                await obstore.delete_async(self._store, _key(sha256))
            except FileNotFoundError:
                return


class _OpenObject:
    """An existing object."""

    def __init__(self, store: S3Store, sha256: str, size: int, threads: Threads) -> None:
        self.file: BinaryIO | None = None
        self._store = store
        self._key = _key(sha256)
        self._sha256 = sha256
        self._size = size
        self._threads = threads

    async def blocks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to `stop`, block by block. Raise `OutputLost` if they are damaged or missing.

        The hash is checked if the entire object is read, before the last block is yielded.
        """
        digest, is_complete = hashlib.sha256(), (start, stop) == (0, self._size)
        while start < stop:
            length = min(_READ_BYTES, stop - start)
            with _translated_errors():
                try:
                    block = await obstore.get_range_async(self._store, self._key, start=start, length=length)
                except FileNotFoundError as exc:
                    raise OutputLost from exc
            if len(block) < length:
                raise OutputLost
            start += length
            data = bytes(block)
            if is_complete:
                await self._threads.do(partial(digest.update, data))
                if start == stop and digest.hexdigest() != self._sha256:
                    raise OutputLost
            yield data


def _key(sha256: str) -> str:
    return f"{sha256[:2]}/{sha256}"


def _read(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)


@contextmanager
def _translated_errors() -> "Iterator[None]":
    """Turn the library's exceptions into `StoreUnavailable`. Their texts contain addresses: only the log gets them."""
    try:
        yield
    except (BaseError, FileNotFoundError, PermissionError, TimeoutError) as exc:
        raise StoreUnavailable("The output store's bucket does not answer.", retry_after=5) from exc


if TYPE_CHECKING:
    _: type[OutputStore] = BucketStore
    __: type[StoredObject] = _OpenObject
