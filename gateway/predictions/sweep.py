"""One reading of upstream's list of runs, as a search for uncertain creates does it (`adoption.py`)."""

import math

import msgspec
from msgspec import Raw

from gateway.domain import documents, large_bytes, large_json, times
from gateway.domain.documents import Snapshot
from gateway.domain.records import Run


class ListPage(msgspec.Struct):
    """A page of upstream's list."""

    results: list[Raw]
    next: str | None = None


class Sweep:
    """One reading of a list, from the newest run back."""

    def __init__(self, family: documents.Family, back_to: float) -> None:
        self.family = family
        self.back_to = back_to
        """Until which time of creation to read."""
        self.pages = 0
        self.reached = math.inf
        """Time of creation of the oldest run that was read; 0 at the end of the list."""
        self.unread_until = -math.inf
        """No run that was created before is known not to be listed: a part of the list cannot be read."""
        self.disputed: set[str] = set()
        """Intents with a listed run that can also belong to an equal create, whose answer is on its way."""
        self.likely: dict[str, dict[str, Snapshot]] = {}
        """By intent: listed runs that are equal but for secret values, by upstream's id. Two are as good as more."""

    def note_likely(self, run: Run, snapshot: Snapshot) -> None:
        """Remember a run that may be that of an intent."""
        found = self.likely.setdefault(run.id, {})
        if len(found) <= 1:
            found[snapshot.upstream_id] = snapshot


def query_of(after: float, before: float | None) -> str:
    """Return the query for the runs that were created in a time."""
    query = f"created_after={times.render(after)}"
    return query if before is None else f"{query}&created_before={times.render(before)}"


def read_page(body: bytes) -> ListPage:
    """Read a page of a list. Raise the decoder's errors."""
    if len(body) < large_json.WHOLE:
        return msgspec.json.decode(body, type=ListPage)
    fields = large_json.split(body, ListPage.__struct_fields__)
    results = list(large_json.items(large_bytes.copied(fields.get("results", documents.NULL))))
    return ListPage(results, msgspec.json.decode(fields.get("next", documents.NULL), type=str | None))


def read_listed(document: bytes) -> Snapshot | None:
    """Read an item of a list; `None` if it cannot be read."""
    try:
        return documents.read_snapshot(document)
    except ValueError:
        return None
