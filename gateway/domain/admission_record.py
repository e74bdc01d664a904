"""The record of how a run was admitted: its reservation, the limits it passed, and the limit it waited for.

Stored with the prediction that started the run, so that the decision can be explained later, after config changes too.
"""

import msgspec

from gateway.domain import quota
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus, ReservationRequest


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """A limit at the time of the admission."""

    name: str
    of: SubjectKind
    kind: LimitKind
    limit: float
    """A count, milliseconds or micro-dollars, depending on `kind`."""

    @classmethod
    def of_status(cls, status: LimitStatus) -> "Limit":
        """Take the limit from its status."""
        return cls(status.name, status.of, status.kind, status.limit)


class Admitted(msgspec.Struct, frozen=True, array_like=True):
    """The reservation of a run, the limits it passed, and how long it waited for a limit."""

    microusd: int
    milliseconds: int
    limits: tuple[Limit, ...] = ()
    waited_seconds: float = 0.0
    waited_for: Limit | None = None
    """The last limit that it had to wait for; `None` if it did not wait."""


def admitted(
    demand: ReservationRequest, waited_seconds: float = 0.0, waited_for: LimitStatus | None = None
) -> Admitted:
    """Return the record of an admission."""
    # Only the limits matter here, not their usage, so no counters and no time are needed.
    limits = quota.statuses(demand.allowances, {}, 0.0) if demand.allowances else ()
    passed = tuple(map(Limit.of_status, limits))
    held_by = None if waited_for is None else Limit.of_status(waited_for)
    return Admitted(demand.microusd, demand.milliseconds, passed, waited_seconds if held_by else 0.0, held_by)
