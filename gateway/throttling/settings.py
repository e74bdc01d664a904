"""The account's rates, and the weights by which they are shared."""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from gateway.domain.rates import Rate
from gateway.domain.teams import Teams

# Team names contain no spaces, so these cannot collide with one.
OWN = "the gateway"
"""The gateway's own reads, as a member of the queues."""
CANCELS = "the gateway's cancels"


class Lane(StrEnum):
    """The account's two rates."""

    CREATES = "creates"
    REQUESTS = "requests"


class ThrottlingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the account may do a minute."""

    creates_per_minute: float
    requests_per_minute: float

    def rate_of(self, lane: Lane) -> Rate:
        """Return one of the rates."""
        return Rate.of(self.creates_per_minute if lane is Lane.CREATES else self.requests_per_minute)


def weights_of(teams: Teams) -> Mapping[str, float]:
    """Return the weight of each member of the queues: of each team, and of the gateway's own calls."""
    weights = {team.name: team.weight for team in teams.values()}
    own = sum(weights.values()) or 1.0
    return {**weights, OWN: own, CANCELS: own}
