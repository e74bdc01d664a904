"""Search of the predictions of all teams, for operators."""

from typing import Protocol

import msgspec

from gateway.domain.admission_record import Admitted
from gateway.domain.cursors import Cursor
from gateway.domain.records import Kind, Source, Status


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which predictions are searched for. `None`: all."""

    team: str | None = None
    key_id: str | None = None
    user: str | None = None
    kind: Kind | None = None
    target: str | None = None
    """A target, with or without its version, or a glob (`*`, `?`)."""
    status: Status | None = None
    """As the caller sees it."""
    source: Source | None = None
    tag: tuple[str, str] | None = None
    """A cost tag: its key and value."""
    since: float | None = None
    """Created at this time or later."""
    until: float | None = None
    """Created before this time."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction with what its run and the ledger say of it, without input and output."""

    id: str
    kind: Kind
    team: str
    key_id: str
    key_name: str | None
    """The name of an issued key."""
    user: str | None
    tags: str
    """As `gateway.domain.tags` writes them."""
    target: str
    status: Status
    """As the caller sees it."""
    source: Source
    created_at: float
    canceled_at: float | None
    ended_at: float | None
    """When its run ended."""
    microusd: int | None
    """What its run cost; `None` while that is not settled, and when the ledger's line was deleted."""
    admitted: Admitted | None
    request_id: str


class FoundPage(msgspec.Struct, frozen=True):
    """A page of a search, the newest first."""

    items: list[Found]
    next: Cursor | None
    """Where the search goes on; `None` at its end. A page can be short, or empty, and the search still goes on."""


class PredictionSearch(Protocol):
    """Searches predictions."""

    async def search(
        self, wanted: Wanted, *, limit: int, most_searched: int, max_bytes: int, position: Cursor | None = None
    ) -> FoundPage:
        """Return at most `limit` predictions, newest first by `created_at`, then id, beginning after `position`.

        Look at no more than `most_searched` predictions of a kind: those of the team, the key, or the user of a team,
        from an index, else all. A page ends with the item whose texts pass `max_bytes`. Predictions whose create was
        not answered yet are left out.
        """
        ...

    async def found(self, prediction_id: str) -> Found | None:
        """Return a prediction of any team as a search returns it."""
        ...
