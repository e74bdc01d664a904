"""Search of predictions (the `PredictionSearch` role): pages from an index, each with a bound on what it looks at."""

from typing import Final

from gateway.domain.cursors import Cursor
from gateway.domain.records import Kind
from gateway.domain.teams import owner_of_user
from gateway.predictions.ports.search import Found, FoundPage, Wanted
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.paging import Bounds, Place
from gateway.store.sql.rows import Table

FOUND: Final = Table(Found)
_FIRST: Final = 4
"""Predictions that are looked at first, for each one that is asked for."""


class SearchSteps(Connections):
    """Searches predictions."""

    async def search(
        self, wanted: Wanted, *, limit: int, most_searched: int, max_bytes: int, position: Cursor | None = None
    ) -> FoundPage:
        """Return a page of predictions, newest first."""
        return await self._read(lambda db: _search(db, wanted, limit, most_searched, max_bytes, position))

    async def found(self, prediction_id: str) -> Found | None:
        """Return a prediction as a search returns it."""

        def step(db: Database) -> Found | None:
            row = db.execute("found_prediction", {"id": prediction_id}).fetchone()
            return None if row is None else FOUND.record(row)

        return await self._read(step)


def _search(
    db: Database, wanted: Wanted, limit: int, most_searched: int, max_bytes: int, position: Cursor | None
) -> FoundPage:
    # Most pages are full after a few rows, and an engine can choose to sort all that it may look at.
    few = min(_FIRST * limit, most_searched)
    page = _stretch(db, wanted, limit, few, max_bytes, position)
    if page.next is None or few == most_searched or len(page.items) == limit or sum(map(_size, page.items)) > max_bytes:
        return page
    left = max_bytes - sum(map(_size, page.items))
    rest = _stretch(db, wanted, limit - len(page.items), most_searched - few, left, page.next)
    return FoundPage([*page.items, *rest.items], rest.next)


def _stretch(
    db: Database, wanted: Wanted, limit: int, most_searched: int, max_bytes: int, position: Cursor | None
) -> FoundPage:
    low, high = Bounds.between(wanted.since, wanted.until)
    if position is not None:
        high = min(high, (position.at, position.id))
    name, scope = _index_of(db, wanted), _scope(wanted)
    kinds = (wanted.kind,) if wanted.kind is not None else tuple(Kind)
    is_cut = False
    for kind in kinds:
        end = db.execute(f"{name}_end", scope | _within(kind, low, high) | {"skipped": most_searched - 1}).fetchone()
        if end is not None:
            # Nothing before the end of any kind, so that the page is a stretch of the whole list.
            low, is_cut = (end[0], end[1]), True
    found = [
        FOUND.record(row)
        for kind in kinds
        for row in db.execute(
            name, scope | _within(kind, low, high) | {"limit": limit + 1, "searched": most_searched}
        ).fetchall()
    ]
    found.sort(key=_place, reverse=True)
    items: list[Found] = []
    size = 0
    for each in found:
        if len(items) == limit or size > max_bytes:
            return FoundPage(items, Cursor(*_place(items[-1])))
        items.append(each)
        size += _size(each)
    return FoundPage(items, Cursor(*low) if is_cut else None)


def _index_of(db: Database, wanted: Wanted) -> str:
    """Return the statement whose index fits best.

    Within a team never one with predictions of others: the place where a page ends is one of theirs then.
    """
    if wanted.team is not None and wanted.user is not None:
        return "search_of_owner"
    if wanted.key_id is not None and (wanted.team is None or _team_of_key(db, wanted.key_id) == wanted.team):
        return "search_of_key"
    return "search_of_all" if wanted.team is None else "search_of_team"


def _team_of_key(db: Database, key_id: str) -> str | None:
    row = db.execute("search_team_of_key", {"only_key": key_id}).fetchone()
    return None if row is None else str(row[0])


def _scope(wanted: Wanted) -> dict[str, str | None]:
    return {
        "only_team": wanted.team,
        "only_key": wanted.key_id,
        "only_user": wanted.user,
        "only_owner": None if wanted.user is None else owner_of_user(wanted.user),
        "only_target": wanted.target,
        "only_versions": None if wanted.target is None else f"{wanted.target}:*",
        # Neither keys nor values have quotes, nor the wildcards of a glob.
        "only_tag": None if wanted.tag is None else '*"{}":"{}"*'.format(*wanted.tag),
        "only_status": None if wanted.status is None else wanted.status.value,
        "only_source": None if wanted.source is None else wanted.source.value,
    }


def _within(kind: Kind, low: Place, high: Place) -> dict[str, str | float]:
    return {"kind": kind.value, "low_at": low[0], "low_id": low[1], "high_at": high[0], "high_id": high[1]}


def _place(found: Found) -> Place:
    return found.created_at, found.id


def _size(found: Found) -> int:
    return sum(len(text) for text in (found.id, found.team, found.key_id, found.user or "", found.tags, found.target))
