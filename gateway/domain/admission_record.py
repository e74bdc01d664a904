"""How a run was let in: what was held for it, which limits it passed, and which one kept it waiting.

It is recorded with the prediction that leads, so that what was decided can be explained later, whatever the config has
become since.
"""

import msgspec

from gateway.domain import quota
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus, ReservationRequest


class Limit(msgspec.Struct, frozen=True, array_like=True):
    """A limit as it was then."""

    name: str
    of: SubjectKind
    sort: LimitKind
    limit: float
    """A count; milliseconds of time; micro-dollars."""

    @classmethod
    def of_standing(cls, standing: LimitStatus) -> "Limit":
        """Keep what a standing says of its limit."""
        return cls(standing.name, standing.of, standing.sort, standing.limit)


class Admitted(msgspec.Struct, frozen=True, array_like=True):
    """What was held for a run when it began, and what it had to pass before that."""

    microusd: int
    milliseconds: int
    limits: tuple[Limit, ...] = ()
    waited_seconds: float = 0.0
    waited_for: Limit | None = None
    """The limit that was in the way last, if one was."""


def admitted(
    demand: ReservationRequest, waited_seconds: float = 0.0, waited_for: LimitStatus | None = None
) -> Admitted:
    """Keep what a demand asked for, and what it had to wait for."""
    # What the limits are does not depend on how far they are used, nor on the time.
    passed = tuple(Limit.of_standing(standing) for standing in quota.standings(demand.allowances, {}, 0.0))
    held_by = None if waited_for is None else Limit.of_standing(waited_for)
    return Admitted(demand.microusd, demand.milliseconds, passed, waited_seconds if held_by else 0.0, held_by)
