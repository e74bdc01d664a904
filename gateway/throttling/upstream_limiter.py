"""The account: what upstream allows it a minute, shared fairly by all who ask (docs/architecture.md, Limits).

Two lanes, as upstream counts (docs/replicate-api.md, Rate limits): creates of predictions, and all other calls. Each
has the rate that upstream is known to take and a fair queue over the teams. The gateway's own calls compete in the
second lane as two more: its looks at runs, lists and secrets weigh as much as all teams together, so that they have
half of the lane whenever they want it and no more while others wait; cancels, which end costs, weigh as much again, so
that they stand behind no look. What either leaves is the teams'.

For whom a call is made is a matter of context (`asking`): the edge says it once for each request, and
`InternalUpstream` for what the gateway does of itself.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec

from gateway.domain.limits import SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.domain.ports.upstream import Upstream
from gateway.domain.rates import Rate
from gateway.domain.teams import Teams
from gateway.domain.upstream_response import Answer
from gateway.errors import RateLimited
from gateway.money.rules import refusals
from gateway.runtime.live import LiveSettings
from gateway.throttling.fair_limiter import MAX_WAITING, FairLimiter
from gateway.throttling.ports import CreateLimiter
from gateway.throttling.rules.adaptive_rate import LearnedRate

CREATES = "creates"
REQUESTS = "requests"
# Not a team's name: those have no spaces.
_OWN = "the gateway"
_CANCELS = "the gateway's cancels"
_OWN_PATIENCE = 30.0

_CREATE_OPERATIONS = frozenset({"predictions.create", "models.predictions.create", "deployments.predictions.create"})
# Trainings are counted among all else upstream (docs/replicate-api.md, Rate limits), and take their turn where other
# creates do.
_LED_OPERATIONS = _CREATE_OPERATIONS | {"trainings.create"}


class ThrottlingSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the account may do a minute."""

    creates_per_minute: float
    requests_per_minute: float


class Asker(msgspec.Struct, frozen=True):
    """On whose behalf upstream is called, and how long its calls may wait for a turn."""

    name: str
    max_wait_seconds: float


_GATEWAY = Asker(_OWN, _OWN_PATIENCE)
asking: ContextVar[Asker] = ContextVar("asking", default=_GATEWAY)


class LaneState(msgspec.Struct, frozen=True, kw_only=True):
    """One of the account's rates, for people to look at. Rates are a minute."""

    name: str
    limit: float
    """As configured."""
    learned: float
    """As upstream takes it now."""
    used: int
    """Of what may go at once."""
    remaining: int
    resets_at: float
    waiting: int
    throttled: int
    """How often upstream has refused."""


def state_shown(state: LaneState) -> dict[str, object]:
    """Return one of the account's rates as answers show it."""
    return refusals.rate_shown(
        state.name,
        SubjectKind.ACCOUNT,
        limit=state.limit,
        used=state.used,
        remaining=state.remaining,
        resets_at=state.resets_at,
    )


class UpstreamLimiter:
    """Gives turns to call upstream, and learns from its answers how many there are."""

    def __init__(
        self,
        teams: LiveSettings[Teams],
        clock: Clock,
        observer: LimitObserver,
        settings: LiveSettings[ThrottlingSettings],
    ) -> None:
        self._clock = clock
        self._observer = observer
        self._teams = teams
        self._settings = settings
        everybody, rates = _weights(teams.value), settings.value
        self._askers = _askers(teams.value)
        self._known = frozenset(everybody)
        self.creates = FairLimiter(LearnedRate(Rate.of(rates.creates_per_minute)), everybody, clock)
        self.requests = FairLimiter(LearnedRate(Rate.of(rates.requests_per_minute)), everybody, clock)
        teams.subscribe(lambda _: self._apply())
        settings.subscribe(lambda _: self._apply())

    def _apply(self) -> None:
        everybody, rates = _weights(self._teams.value), self._settings.value
        self._askers = _askers(self._teams.value)
        # Creates of a team that was removed keep their turns.
        self._known |= frozenset(everybody)
        self.creates.configure(Rate.of(rates.creates_per_minute), everybody)
        self.requests.configure(Rate.of(rates.requests_per_minute), everybody)

    def asked_by(self, team: str) -> None:
        """Let the calls that are made in this context count as a team's."""
        if asker := self._askers.get(team):
            asking.set(asker)

    # What the client of Replicate asks before each call.

    def take(self, operation: str) -> bool:
        """Take a permit if there is one at once. Creates have theirs already: see `create_turn`."""
        return operation in _LED_OPERATIONS or self.requests.take()

    async def permit(self, operation: str) -> None:
        """Wait for a permit in the name of the asker of this context.

        Raise `RateLimited` when there is none in time; nothing may be sent then.
        """
        asker = asking.get()
        name = _CANCELS if asker.name == _OWN and operation.endswith(".cancel") else asker.name
        await self._queue(REQUESTS, name, self._clock.monotonic() + asker.max_wait_seconds, returned=False)

    def observe_response(self, operation: str, answer: Answer) -> None:
        """Learn from an answer of upstream."""
        name, lane = self._lane(operation)
        if answer.status == 429:
            self._observer.account_throttled(name)
        lane.rate.observe_response(answer, self._clock.monotonic())

    # What creates ask.

    async def create_turn(self, operation: str, team: str, until: float, *, returned: bool = False) -> bool:
        """Wait for a turn to create; say whether it had to be waited for."""
        name, lane = self._lane(operation)
        if lane.take():
            return False
        await self._queue(name, team if team in self._known else _OWN, until, returned=returned)
        return True

    def give_back(self, operation: str) -> None:
        """Return a turn that was not used."""
        self._lane(operation)[1].give_back()

    async def _queue(self, name: str, asker: str, until: float, *, returned: bool) -> None:
        lane, began = self.creates if name == CREATES else self.requests, self._clock.monotonic()
        if lane.is_full(asker) and not returned:
            self._observer.permit_refused(name, "queue_full")
            raise self._refusal(name, lane, f"{MAX_WAITING} requests of your team wait for their turn already.")
        if await lane.permit(asker, until, returned=returned):
            self._observer.permit_waited(name, self._clock.monotonic() - began)
            return
        self._observer.permit_refused(name, "timeout")
        raise self._refusal(name, lane, "There was no turn for your team in time.")

    def _refusal(self, name: str, lane: FairLimiter, reason: str) -> RateLimited:
        state, seconds = self._state(name, lane), lane.expected_seconds()
        what = "new predictions" if name == CREATES else "calls"
        return RateLimited(
            f"Request was throttled. Replicate takes {_number(state.learned)} {what} a minute from all teams together. "
            f"{reason} Your rate limit resets in ~{seconds}s.",
            retry_after=seconds,
            limit=state_shown(state),
        )

    def _lane(self, operation: str) -> tuple[str, FairLimiter]:
        return (CREATES, self.creates) if operation in _CREATE_OPERATIONS else (REQUESTS, self.requests)

    # For people, and for the gateway's own life.

    def states(self) -> tuple[LaneState, LaneState]:
        """Return both rates as they are now."""
        return self._state(CREATES, self.creates), self._state(REQUESTS, self.requests)

    def _state(self, name: str, lane: FairLimiter) -> LaneState:
        now, rate = self._clock.monotonic(), lane.rate
        remaining = rate.remaining(now)
        return LaneState(
            name=f"{name}_per_minute",
            limit=rate.configured.per_minute,
            learned=rate.rate.per_minute,
            used=rate.rate.burst - remaining,
            remaining=remaining,
            resets_at=self._clock.now() + rate.reset_seconds(now),
            waiting=len(lane),
            throttled=rate.throttled,
        )

    async def run(self) -> None:
        """Give turns for ever."""
        await asyncio.gather(self.creates.run(), self.requests.run())

    def close(self) -> None:
        """Send away all who wait."""
        self.creates.close()
        self.requests.close()


class InternalUpstream:
    """Upstream, as the gateway itself asks it."""

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
        """Ask for something."""
        with _by_the_gateway():
            return await self._upstream.read(operation, path, method=method, query=query, body=body, headers=headers)

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Change something."""
        with _by_the_gateway():
            return await self._upstream.send(operation, method, path, body, headers=headers)

    async def upload(self, operation: str, path: str, body: AsyncIterator[bytes], content_type: str) -> Answer:
        """Send a body as it comes in."""
        with _by_the_gateway():
            return await self._upstream.upload(operation, path, body, content_type)


@contextmanager
def _by_the_gateway() -> Iterator[None]:
    before = asking.set(_GATEWAY)
    try:
        yield
    finally:
        asking.reset(before)


def _weights(teams: Teams) -> Mapping[str, float]:
    weights = {team.name: team.weight for team in teams.values()}
    own = sum(weights.values()) or 1.0
    return {**weights, _OWN: own, _CANCELS: own}


def _askers(teams: Teams) -> Mapping[str, Asker]:
    return {team.name: Asker(team.name, team.max_wait_seconds) for team in teams.values()}


def _number(value: float) -> float:
    return int(value) if value == int(value) else value


if TYPE_CHECKING:
    _turns: type[CreateLimiter] = UpstreamLimiter
    _upstream: type[Upstream] = InternalUpstream
