"""A create on its way: what was asked, and what it came to."""

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from gateway.domain.cache_directives import Directives
from gateway.domain.create_body import CreateBody
from gateway.domain.quota import ReservationRequest
from gateway.domain.records import Kind, PredictionView
from gateway.domain.targets import Target
from gateway.domain.teams import Caller
from gateway.domain.upstream_response import Answer
from gateway.errors import GatewayError, PriceUnknown


class CreateCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A create as the caller gave it, its form checked."""

    kind: Kind
    operation: str
    path: str
    """The upstream route below `/v1`."""
    target: Target
    body: CreateBody
    cancel_after: float | None = None
    cancel_after_header: str | None = None
    user: str | None = None
    address: str | None = None
    """Where a caller in public hands asks from."""
    own_origins: frozenset[str] = frozenset()
    directives: Directives = Directives()
    idempotency_key: str | None = None
    hold_until: float = 0.0
    """How long it may wait for its turn at a rate, by the monotonic clock."""
    has_left: Callable[[], bool] = lambda: False
    """Says whether the caller has hung up."""


class Created(msgspec.Struct, frozen=True, kw_only=True):
    """A prediction, and how it came about."""

    view: PredictionView
    cache_status: str
    is_replay: bool = False
    answer: Answer | None = None
    """Upstream's answer, to whoever had it asked."""
    upstream_seconds: float = 0.0


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a create would come to."""

    result: Literal["hit", "join", "run", "refused"]
    deterministic: bool = False
    reason: str
    fingerprint: str | None = None
    refused_by: str | None = None
    """The limit, or the setting, that would refuse it."""
    microusd: int | None = None
    """What it would cost; `None` where it would not be done, or nobody knows."""


class CreateContext(msgspec.Struct, frozen=True):
    """A request as its attempts need it."""

    caller: Caller
    command: CreateCommand
    files: Mapping[str, str]
    price: ReservationRequest | PriceUnknown = ReservationRequest(0, 0)
    """What leading asks for, or why it may not be asked for."""


class RetryCreate(Exception):
    """An attempt came to nothing through no fault of the request."""

    def __init__(self, error: GatewayError | None = None) -> None:
        super().__init__()
        self.error = error
