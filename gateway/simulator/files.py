"""Uploaded files of an account, kept for 24 hours, and their signed download links."""

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.simulator import ids
from gateway.simulator.settings import FILE_LIFE_SECONDS
from gateway.simulator.times import exact_time


@dataclass(frozen=True, slots=True)
class File:
    """An upload. `created_us` is unique and orders the list."""

    id: str
    account: str
    name: str
    content_type: str
    data: bytes
    sha256: str
    md5: str
    metadata: dict[str, Any]
    created_us: int

    @property
    def expires_us(self) -> int:
        """When it expires, in epoch microseconds."""
        return self.created_us + int(FILE_LIFE_SECONDS * 1_000_000)

    def render(self, api: str) -> dict[str, Any]:
        """Return it in the format of the API."""
        return {
            "id": self.id,
            "name": self.name,
            "content_type": self.content_type,
            "size": len(self.data),
            "etag": self.md5,
            "checksums": {"sha256": self.sha256, "md5": self.md5},
            "metadata": self.metadata,
            "created_at": exact_time(self.created_us, 3),
            "expires_at": exact_time(self.expires_us, 3),
            "urls": {"get": f"{api}/files/{self.id}"},
        }


def digest(data: bytes) -> tuple[str, str]:
    """Return the SHA-256 and MD5 of a content."""
    return hashlib.sha256(data).hexdigest(), hashlib.md5(data, usedforsecurity=False).hexdigest()


def sign_download(secret: str, owner: str, file_id: str, expiry: int) -> str:
    """Sign a download link: base64 of HMAC-SHA256 over `{owner} {id} {expiry}`."""
    return base64.b64encode(hmac.digest(secret.encode(), f"{owner} {file_id} {expiry}".encode(), "sha256")).decode()


class FileStore:
    """Uploads by id. The oldest are evicted above `max_bytes`."""

    def __init__(self, max_bytes: int, now: Callable[[], float]) -> None:
        self._files: OrderedDict[str, File] = OrderedDict()
        self._max_bytes = max_bytes
        self._now = now
        self._size = 0

    def put(
        self,
        account: str,
        name: str,
        content_type: str,
        data: bytes,
        digests: tuple[str, str],
        metadata: dict[str, Any],
        created_us: int,
    ) -> File:
        """Store an upload."""
        file = File(ids.file_id(), account, name, content_type, data, *digests, metadata, created_us)
        self._files[file.id] = file
        self._size += len(data)
        while self._size > self._max_bytes and len(self._files) > 1:
            self.delete(next(iter(self._files)))
        return file

    def get(self, account: str, file_id: str) -> File | None:
        """Return a file of the account, unless it has expired."""
        file = self._files.get(file_id)
        if file is None or file.account != account or file.expires_us <= self._now() * 1_000_000:
            return None
        return file

    def delete(self, file_id: str) -> None:
        """Delete a file."""
        file = self._files.pop(file_id)
        self._size -= len(file.data)

    def all(self, account: str) -> list[File]:
        """List an account's files, oldest first."""
        now_us = self._now() * 1_000_000
        return [file for file in self._files.values() if file.account == account and file.expires_us > now_us]

    def sweep(self) -> None:
        """Delete expired files."""
        now_us = self._now() * 1_000_000
        for file_id in [file.id for file in self._files.values() if file.expires_us <= now_us]:
            self.delete(file_id)

    def clear(self) -> None:
        """Delete all files."""
        self._files.clear()
        self._size = 0
