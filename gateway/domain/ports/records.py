"""What is kept beside predictions: keys, files, versions, secrets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from gateway.domain.audit import Actor
from gateway.domain.cursors import Cursor
from gateway.domain.records import File, Key, Page

KeyPlace = tuple[float, str]
"""The place of a key in a list: when it was created, and its id."""


class Keys(Protocol):
    """API keys that are created at run time. Keys of the config are not stored.

    Each change is recorded in the audit log, as one of `actor`, in the same transaction. With `holder`, the key whose
    holder asks for it as it was when its rights were checked, raise `Conflict` if that key is another one by now.
    """

    async def add_key(self, key: Key, *, actor: Actor, most: int | None = None, holder: Key | None = None) -> None:
        """Add a key. Durable.

        Raise `Conflict` if the id exists, if the team has a key with this name that is not revoked, or `most` valid
        keys. An expired key still occupies its name.
        """
        ...

    async def key(self, key_id: str) -> Key | None:
        """Return a key by its id, valid or not; `None` if it is unknown."""
        ...

    async def keys(self, team: str | None = None) -> list[Key]:
        """List the keys of one team or of all, by team and creation time."""
        ...

    async def newest_keys(
        self, *, team: str | None, created_by: str | None = None, limit: int, older_than: KeyPlace | None = None
    ) -> list[Key]:
        """List the keys of one team or of all, by one creator or by all, newest first, from those before a place on."""
        ...

    async def valid_keys_of(self, creator: str, now: float) -> int:
        """Return the number of valid keys that somebody has created."""
        ...

    async def change_key(
        self,
        key_id: str,
        team: str | None,
        change: Callable[[Key], Key],
        at: float,
        *,
        actor: Actor,
        holder: Key | None = None,
    ) -> Key | None:
        """Replace a key by what `change` makes of it. Durable. Atomic. The id, the team and the digest stay.

        `change` runs in the store's thread, and can run twice. Return the key; `None` if it is unknown or, with `team`,
        of another team. Raise `Conflict` if it was revoked, or if its new name is taken.
        """
        ...

    async def use_keys(self, uses: Mapping[str, float]) -> None:
        """Record when keys were last used. They are named by id, and those of the config are among them."""
        ...

    async def key_uses(self, key_ids: Sequence[str]) -> dict[str, float]:
        """Return when keys were last used, as far as that is known."""
        ...

    async def delete_old_keys(self, before: float, limit: int) -> int:
        """Delete at most `limit` keys that expired or were revoked before a time; return how many.

        The times of use before it go too.
        """
        ...

    async def revoke_key(self, key_id: str, at: float, *, actor: Actor) -> Key | None:
        """Revoke a key from `at` on. Durable. An earlier revocation stays. Return the key; `None` if it is unknown."""
        ...

    async def rotate_key(
        self,
        key_id: str,
        successor: Key,
        expires_at: float,
        *,
        actor: Actor,
        most: int | None = None,
        holder: Key | None = None,
    ) -> Key | None:
        """Add `successor` and set the old key's expiry to `expires_at`, unless it expires earlier. Durable. Atomic.

        Return the updated old key; `None`, with nothing added, if it is unknown or revoked. Raise `Conflict` if the
        successor's id exists, if its name differs from the old key's and is taken, if it has other rights than the old
        key, which was changed meanwhile, or if the team has twice `most` valid keys.
        """
        ...


class Files(Protocol):
    """Records of files that teams uploaded."""

    async def add_file(self, file: File) -> None:
        """Add a file. Kept. If the id exists, nothing changes."""
        ...

    async def file(self, file_id: str) -> File | None:
        """Return a file by its id, of any team."""
        ...

    async def files_among(self, file_ids: Sequence[str]) -> list[File]:
        """Return the known files with these ids, of any team, in one query."""
        ...

    async def files(
        self,
        *,
        team: str | None,
        limit: int,
        now: float,
        owner: str | None = None,
        position: Cursor | None = None,
        max_bytes: int | None = None,
    ) -> Page:
        """List files that have not expired, newest first. `owner` lists only those of one owner in the team.

        A page ends before its rows would pass `max_bytes`, but has one item at least.
        """
        ...

    async def has_file_of_size(self, team: str, smallest: int, largest: int, kept_at: float) -> bool:
        """Return whether a team has a file of `smallest` to `largest` bytes that expires after `kept_at`."""
        ...

    async def files_of_content(self, team: str, sha256: str, kept_at: float, limit: int = 10) -> list[File]:
        """Return a team's files with these bytes that expire after `kept_at`, the latest expiry first."""
        ...

    async def share_file(self, file: File) -> bool:
        """Add a file if another record uses the same upstream file; return whether it was added.

        Atomic with `delete_file`: an upstream file that was released is not used again.
        """
        ...

    async def delete_file(self, file_id: str) -> bool:
        """Delete a file's record. Return whether this released its upstream file.

        `False` if another record, of any team, uses that, or if there is no such record.
        """
        ...

    async def delete_expired_files(self, before: float, limit: int) -> int:
        """Delete at most `limit` records of files that expired before a time; return how many."""
        ...


class Versions(Protocol):
    """The stored map from version ids to models."""

    async def learn_version(self, version: str, model: str) -> None:
        """Record that `version` (64 hex digits) belongs to `model` (`owner/name`). Kept. The first record stays."""
        ...

    async def model_of(self, version: str) -> str | None:
        """Return the model of a version; `None` if it is unknown."""
        ...


class Secrets(Protocol):
    """Secrets that the gateway generates: for tickets, browser tokens and webhook signatures."""

    async def secret(self, name: str, proposal: bytes) -> bytes:
        """Return the secret of a name. If there is none, `proposal` becomes it. Durable. Atomic."""
        ...

    async def rotate_secret(
        self, name: str, successor: bytes, now: float, until: float, *, team: str, actor: Actor
    ) -> int:
        """Make `successor` the secret of a name; the previous one stays in use until `until`. Durable. Atomic.

        Earlier secrets that have not expired stay in use too. Return how many are in use, including the successor. The
        rotation is recorded in the audit log of `team`.
        """
        ...

    async def secrets_in_use(self, name: str, now: float) -> list[bytes]:
        """Return the secret of a name and its predecessors that have not expired, newest first; empty if unknown."""
        ...
