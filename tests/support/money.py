"""Reservations and settlements of team red, with defaults for what a test does not name."""

from typing import Any

from gateway.domain.ledger import Settlement
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import ReservationRequest, RunLimits
from tests.support.records import NOW

TEAM = "team/red"


def demand(microusd: int = 100, milliseconds: int = 1000, **limits: Any) -> ReservationRequest:
    """Return a request to reserve money and time under the team's `limits`."""
    return ReservationRequest(microusd, milliseconds, (RunLimits(of=SubjectKind.TEAM, scope=TEAM, **limits),))


def settlement(microusd: int = 70, milliseconds: int = 900, at: float = NOW + 9, **fields: Any) -> Settlement:
    """Return what a run has cost."""
    return Settlement(microusd=microusd, milliseconds=milliseconds, target="acme/toy", at=at, **fields)
