"""What a migration of the schema has done, and its entry in the audit log."""

from typing import NamedTuple

from gateway.domain.audit import Action, Actor, Change
from gateway.store.sql.audit import columns_of


class Migration(NamedTuple):
    """The versions of the schema before and afterwards."""

    before: int
    """0 for a store that was created."""
    after: int

    @property
    def is_new(self) -> bool:
        """Whether the store was created."""
        return self.before == 0

    def entry(self, at: float, by: Actor) -> dict[str, object] | None:
        """Return the entry by the columns of its table; `None` for a new store, and if nothing has changed.

        Nothing was there to change, and a store that other records are copied to must be empty.
        """
        if self.is_new or self.before == self.after:
            return None
        before, after = {"schema_version": self.before}, {"schema_version": self.after}
        return columns_of(at, by, Change(action=Action.STORE_MIGRATED, subject="store", before=before, after=after))
