"""What is kept beside predictions: keys, files, versions, secrets."""

from collections.abc import Sequence
from typing import Protocol

from gateway.domain.cursors import Cursor
from gateway.domain.records import File, Key, Page


class Keys(Protocol):
    """Keys issued at run time. Those of the config are not in here."""

    async def add_key(self, key: Key) -> None:
        """Add a key. Durable.

        Raises `gateway.errors.Conflict` if the id, or an unrevoked key of that team and name, exists already; an
        expired one still holds its name.
        """
        ...

    async def key(self, key_id: str) -> Key | None:
        """Find a key, whether or not it is still valid."""
        ...

    async def keys(self, team: str | None = None) -> list[Key]:
        """List keys by team and creation."""
        ...

    async def revoke_key(self, key_id: str, at: float) -> Key | None:
        """Revoke a key from `at` on. Durable. An earlier revocation stays. `None` for an unknown id."""
        ...

    async def rotate_key(self, key_id: str, successor: Key, expires_at: float) -> Key | None:
        """Add `successor` and let the old key end at `expires_at` (or earlier, if it would anyway), in one step.

        Durable. Return the old key as it is then; `None`, with nothing added, if it is unknown or revoked. Raises
        `gateway.errors.Conflict` if the successor's id, or a name of its own, is taken.
        """
        ...


class Files(Protocol):
    """Files that teams uploaded."""

    async def add_file(self, file: File) -> None:
        """Remember a file. Kept. A known id keeps its first record."""
        ...

    async def file(self, file_id: str) -> File | None:
        """Find a file, of whatever team."""
        ...

    async def files_among(self, file_ids: Sequence[str]) -> list[File]:
        """Find those of the ids that are known, of whatever team, in one look."""
        ...

    async def files(self, *, team: str | None, limit: int, now: float, position: Cursor | None = None) -> Page:
        """List files that have not expired, newest first."""
        ...

    async def has_file_of_size(self, team: str, smallest: int, largest: int, kept_at: float) -> bool:
        """Say whether a team has a file of `smallest` to `largest` bytes that expires after `kept_at`."""
        ...

    async def files_of_content(self, team: str, sha256: str, kept_at: float, limit: int = 10) -> list[File]:
        """Find a team's files of these bytes that expire after `kept_at`, those that live longest first."""
        ...

    async def count_of_upstream_file(self, upstream_id: str) -> int:
        """Count the files, of whatever team, that stand for one of upstream's."""
        ...

    async def delete_file(self, file_id: str) -> None:
        """Forget a file."""
        ...

    async def delete_expired_files(self, before: float, limit: int) -> int:
        """Forget at most `limit` files that expired before that; return how many."""
        ...


class Versions(Protocol):
    """The lasting map from a version id to its model."""

    async def learn_version(self, version: str, model: str) -> None:
        """Remember that `version` (64 hex) is one of `model` (`owner/name`). Kept. The first word stands."""
        ...

    async def model_of(self, version: str) -> str | None:
        """Name the model of a version, if it is known."""
        ...


class Secrets(Protocol):
    """Secrets that the gateway makes for itself: for tickets, browser tokens, webhook signatures."""

    async def secret(self, name: str, proposal: bytes) -> bytes:
        """Return the secret of that name; the first call's `proposal` becomes it, whoever calls. Durable."""
        ...

    async def rotate_secret(self, name: str, successor: bytes, now: float, until: float) -> int:
        """Let `successor` be the secret of that name, and the one before it be in use beside it until then. Durable.

        One step. Earlier secrets whose time is not over stay in use as well. Return how many are in use now, the
        successor included.
        """
        ...

    async def secrets_in_use(self, name: str, now: float) -> list[bytes]:
        """Return the secret of a name, then those before it whose time is not over, newest first; none if it is new."""
        ...
