"""The record of how a run was admitted: its reservation, the limits it passed, and the limit it waited for.

Stored with the prediction that started the run, so that the decision can be explained later, after config changes too.
"""

from functools import lru_cache

import msgspec

from gateway.domain import quota
from gateway.domain.hold import Hold
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus, ReservationRequest, RunLimits


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """A limit at the time of the admission."""

    name: str
    of: SubjectKind
    kind: LimitKind
    limit: float
    """A count, milliseconds or micro-dollars, depending on `kind`."""
    tag: str = ""
    """The cost tag and its value whose limit it is: `project=apollo`."""

    @classmethod
    def of_status(cls, status: LimitStatus) -> "Limit":
        """Take the limit from its status."""
        # One of a tag is recorded as one of its team: the version before tags had limits reads these records too.
        of = SubjectKind.TEAM if status.tag else status.of
        return cls(status.name, of, status.kind, status.limit, "=".join(status.tag.values()))

    @property
    def whose(self) -> SubjectKind:
        """Whose limit it is. `of` does not know tags."""
        return SubjectKind.TAG if self.tag else self.of


class Admitted(msgspec.Struct, frozen=True, array_like=True):
    """The reservation of a run, the limits it passed, and how long its create was held."""

    microusd: int
    milliseconds: int
    limits: tuple[Limit, ...] = ()
    waited_seconds: float = 0.0
    waited_for: Limit | None = None
    """The limit that it had to wait for longest; `None` if it did not wait."""

    def with_hold(self, hold: Hold) -> "Admitted":
        """Return the record with all waits of the create so far."""
        if hold.limit is None:
            return self
        return msgspec.structs.replace(self, waited_seconds=hold.seconds, waited_for=Limit.of_status(hold.limit))


def admitted(demand: ReservationRequest, hold: Hold) -> Admitted:
    """Return the record of an admission."""
    record = Admitted(demand.microusd, demand.milliseconds, _limits_of(demand.allowances) if demand.allowances else ())
    return record if hold.limit is None else record.with_hold(hold)


@lru_cache(maxsize=256)
def _limits_of(allowances: tuple[RunLimits, ...]) -> tuple[Limit, ...]:
    # Only the limits matter here, not their usage, so no counters and no time are needed.
    return tuple(map(Limit.of_status, quota.statuses(allowances, {}, 0.0)))


def held(hold: Hold) -> Admitted | None:
    """Return the record of a hit or a join, which reserves nothing; `None` if it did not wait."""
    return Admitted(0, 0).with_hold(hold) if hold.limit is not None else None
