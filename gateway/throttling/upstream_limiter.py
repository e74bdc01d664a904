"""Share the rates of the Replicate account fairly among the teams (docs/architecture.md, Limits).

Upstream counts creates of predictions and all other calls separately (docs/replicate-api.md, Rate limits), so there are
two limiters: `creates` and `requests`. Each follows the rate that upstream currently allows and has a fair queue over
the teams.

In `requests` the gateway's own calls compete as two more queue members. Its reads of runs, lists and secrets weigh as
much as all teams together: they get at least half of the rate when they need it, and no more while teams wait. Cancels,
which stop costs, weigh as much again and have their own member, so they never wait behind reads. What these two leave
unused goes to the teams.

The context variable `asking` says on whose behalf a call is made. `http/pipeline.py` sets it for each request
(`asked_by`), `InternalUpstream` for the gateway's own calls.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

from gateway.domain.hold import Hold
from gateway.domain.limits import SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.quota import rate_status
from gateway.domain.teams import Teams
from gateway.domain.upstream_response import Answer
from gateway.errors import RateLimited
from gateway.money.rules import refusals
from gateway.runtime.live import LiveSettings
from gateway.runtime.tasks import run_until_first
from gateway.throttling.fair_limiter import MAX_WAITING, FairLimiter
from gateway.throttling.ports import CreateLimiter
from gateway.throttling.settings import CANCELS, OWN, Lane, ThrottlingSettings, weights_of

CREATES, REQUESTS = Lane.CREATES, Lane.REQUESTS
_OWN_PATIENCE = 30.0

_CREATE_OPERATIONS = frozenset({"predictions.create", "models.predictions.create", "deployments.predictions.create"})
# Upstream counts a training as an ordinary request, not as a create (docs/replicate-api.md, Rate limits). Its permit is
# taken like a create's: before anything is sent.
_PERMIT_TAKEN_BEFORE = _CREATE_OPERATIONS | {"trainings.create"}


NewLimiter = Callable[[Lane, LiveSettings[ThrottlingSettings], LiveSettings[Teams], Clock], FairLimiter]
"""Makes the limiter of one of the rates."""


class Asker(msgspec.Struct, frozen=True):
    """On whose behalf upstream is called, and how long a call may wait for a permit."""

    name: str
    max_wait_seconds: float


_GATEWAY = Asker(OWN, _OWN_PATIENCE)
asking: ContextVar[Asker] = ContextVar("asking", default=_GATEWAY)


class RateState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one of the account's rates, for display. Rates are per minute."""

    name: str
    limit: float
    """The configured rate."""
    learned: float
    """The rate that upstream currently allows; at most `limit`."""
    used: int
    """Used part of the burst."""
    remaining: int
    """Unused part of the burst."""
    resets_at: float
    """When the burst is fully available again."""
    waiting: int
    """Calls queued for a permit."""
    throttled: int
    """Number of 429s from upstream since the process started."""


def state_shown(state: RateState) -> dict[str, object]:
    """Return one of the account's rates in the JSON form of `GET /gateway/limits`."""
    return refusals.shown(
        rate_status(
            state.name,
            SubjectKind.ACCOUNT,
            state.limit,
            used=state.used,
            remaining=state.remaining,
            resets_at=state.resets_at,
        )
    )


class UpstreamLimiter:
    """Grant permits for calls upstream, and adapt the rates to upstream's responses."""

    def __init__(
        self,
        teams: LiveSettings[Teams],
        clock: Clock,
        observer: LimitObserver,
        settings: LiveSettings[ThrottlingSettings],
        new_limiter: NewLimiter = FairLimiter,
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._askers = _askers(teams.value)
        self._known = frozenset(weights_of(teams.value))
        self.creates = new_limiter(CREATES, settings, teams, clock)
        self.requests = new_limiter(REQUESTS, settings, teams, clock)
        # Not in a function: each call upstream would call it twice.
        self._creating, self._other = (CREATES, self.creates), (REQUESTS, self.requests)
        teams.subscribe(self._learn_teams)

    def _learn_teams(self, teams: Teams) -> None:
        self._askers = _askers(teams)
        # Waiting creates of a removed team keep their places.
        self._known |= frozenset(weights_of(teams))

    def asked_by(self, team: str) -> None:
        """Attribute the calls made in the current context to a team."""
        if asker := self._askers.get(team):
            asking.set(asker)

    # What the client of Replicate asks before each call.

    def take(self, operation: str) -> bool:
        """Take a permit without waiting; return `False` if none is available."""
        return operation in _PERMIT_TAKEN_BEFORE or self.requests.take()

    async def permit(self, operation: str) -> None:
        """Wait for a permit on behalf of the team in `asking`, or of the gateway. Raise `RateLimited` on timeout."""
        asker = asking.get()
        name = CANCELS if asker.name == OWN and operation.endswith(".cancel") else asker.name
        await self._queue(REQUESTS, name, self._clock.monotonic() + asker.max_wait_seconds, returned=False)

    def observe_response(self, operation: str, answer: Answer) -> None:
        """Adapt the rate to upstream's response."""
        name, limiter = self._creating if operation in _CREATE_OPERATIONS else self._other
        if answer.status == 429:
            self._observer.account_throttled(name)
        limiter.rate.observe_response(answer, self._clock.monotonic())

    # `CreateLimiter`, used by creates.

    def take_create(self, operation: str) -> bool:
        """Take a permit to create without waiting; return `False` if none is available."""
        return (self.creates if operation in _CREATE_OPERATIONS else self.requests).take()

    async def create_permit(
        self, operation: str, team: str, until: float, *, returned: bool = False, hold: Hold | None = None
    ) -> bool:
        """Wait for a permit to create; return whether the create had to wait. Raise `RateLimited` on timeout."""
        name, limiter = self._creating if operation in _CREATE_OPERATIONS else self._other
        if limiter.take():
            return False
        began = self._clock.monotonic()
        try:
            await self._queue(name, team if team in self._known else OWN, until, returned=returned)
        finally:
            if hold is not None:
                limit = rate_status(f"{name}_per_minute", SubjectKind.ACCOUNT, limiter.rate.rate.per_minute)
                hold.add(self._clock.monotonic() - began, limit)
        return True

    def give_back(self, operation: str) -> None:
        """Return an unused permit."""
        limiter = self.creates if operation in _CREATE_OPERATIONS else self.requests
        limiter.give_back()

    async def _queue(self, name: str, asker: str, until: float, *, returned: bool) -> None:
        limiter, began = self.creates if name == CREATES else self.requests, self._clock.monotonic()
        if limiter.is_full(asker) and not returned:
            self._observer.permit_refused(name, "queue_full")
            raise self._refusal(name, limiter, f"{MAX_WAITING} requests of your team are already queued.")
        # The gateway's own calls wait all the same: they are made again at once.
        if asker not in (OWN, CANCELS) and limiter.least_wait(asker) > until - began:
            self._observer.permit_refused(name, "too_long")
            raise self._refusal(name, limiter, "Your request cannot be sent within your team's maximum waiting time.")
        if await limiter.permit(asker, until, returned=returned):
            self._observer.permit_waited(name, self._clock.monotonic() - began)
            return
        self._observer.permit_refused(name, "timeout")
        raise self._refusal(name, limiter, "Your request could not be sent within your team's maximum waiting time.")

    def _refusal(self, name: str, limiter: FairLimiter, reason: str) -> RateLimited:
        state, seconds = self._state(name, limiter), limiter.expected_seconds()
        what = "new predictions" if name == CREATES else "requests"
        return RateLimited(
            f"Request was throttled. The account that all teams share is limited to {_number(state.learned)} {what} "
            f"per minute at Replicate. {reason} Your rate limit resets in ~{seconds}s.",
            retry_after=seconds,
            limit=state_shown(state),
        )

    # State for display, and the background task.

    @property
    def limiters(self) -> tuple[FairLimiter, FairLimiter]:
        """The limiters of both rates."""
        return self.creates, self.requests

    def states(self) -> tuple[RateState, RateState]:
        """Return the current state of both rates."""
        return self._state(CREATES, self.creates), self._state(REQUESTS, self.requests)

    def _state(self, name: str, limiter: FairLimiter) -> RateState:
        now, rate = self._clock.monotonic(), limiter.rate
        remaining = rate.remaining(now)
        return RateState(
            name=f"{name}_per_minute",
            limit=rate.configured.per_minute,
            learned=rate.rate.per_minute,
            used=rate.rate.burst - remaining,
            remaining=remaining,
            resets_at=self._clock.now() + rate.reset_seconds(now),
            waiting=len(limiter),
            throttled=rate.throttled,
        )

    async def run(self) -> None:
        """Grant permits until cancelled."""
        await run_until_first(self.creates.run(), self.requests.run())

    async def finish_creates(self, seconds: float) -> None:
        """Wait until no create waits for a permit, for `seconds` at most."""
        await self.creates.finish(seconds)

    def close(self) -> None:
        """Fail all waiters with `UpstreamUnavailable`."""
        self.creates.close()
        self.requests.close()


class InternalUpstream:
    """The `Upstream` for calls that the gateway makes itself: rate-limited as its own, not as a team's."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def read(
        self,
        operation: str,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request that changes nothing."""
        # Not `_by_the_gateway`, which costs more: every poll comes here.
        before = asking.set(_GATEWAY)
        try:
            return await self._upstream.read(operation, path, method=method, query=query, body=body, headers=headers)
        finally:
            asking.reset(before)

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request that changes something."""
        with _by_the_gateway():
            return await self._upstream.send(operation, method, path, body, headers=headers)

    async def upload(self, operation: str, path: str, body: AsyncIterator[bytes], content_type: str) -> Answer:
        """Send a streamed body."""
        with _by_the_gateway():
            return await self._upstream.upload(operation, path, body, content_type)


@contextmanager
def _by_the_gateway() -> Iterator[None]:
    before = asking.set(_GATEWAY)
    try:
        yield
    finally:
        asking.reset(before)


def _askers(teams: Teams) -> Mapping[str, Asker]:
    return {team.name: Asker(team.name, team.max_wait_seconds) for team in teams.values()}


def _number(value: float) -> float:
    return int(value) if value == int(value) else value


if TYPE_CHECKING:
    _create_limiter: type[CreateLimiter] = UpstreamLimiter
    _upstream: type[Upstream] = InternalUpstream
