"""Whether this process may act for the runs that it follows.

A node has a lease in the store. It counts the lease on its own monotonic clock from the moment when the renewal was
sent, which is before the store's clock began to count it. So a node knows that its lease has expired before any other
node can take over its runs, also after a pause of the whole process.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError
from gateway.nodes.ports import LEADER, Living, Nodes
from gateway.nodes.rules.clock_readings import TOLERATED_SECONDS, Reading, has_jumped
from gateway.runtime.tasks import run_until_first

logger = logging.getLogger(__name__)


class LeaseTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long leases last, in seconds."""

    lease: float = 10.0
    renew: float = 2.0
    """Time between two renewals."""
    margin: float = 2.0
    """Before the lease expires, nothing that acts is sent upstream for so long."""
    look: float = 1.0
    """Time between two looks for runs to take over."""


class Membership(Protocol):
    """The own process, as one of the nodes."""

    @property
    def number(self) -> int:
        """Its number; 0 where one process serves from a store."""
        ...

    def is_alive(self) -> bool:
        """Say whether its lease is valid."""
        ...

    def is_shut_out(self) -> bool:
        """Say whether its lease is lost although the store answers: callers should go to other nodes."""
        ...

    def is_leader(self) -> bool:
        """Say whether this node does what one node does for all: adoption, deletion of old records, audits."""
        ...

    def may_send(self) -> bool:
        """Say whether the lease is valid for long enough to send upstream what acts: a create or a cancel.

        Ask directly before the first byte is sent.
        """
        ...

    def add_lost_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the lease is lost: its runs are no longer this node's."""
        ...

    def add_joined_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when it has joined again, under a new number."""
        ...


class OnlyNode:
    """The process that alone serves from a store: it owns every run, and cannot lose them."""

    number = 0

    def is_alive(self) -> bool:
        """Return true."""
        return True

    def is_shut_out(self) -> bool:
        """Return false."""
        return False

    def is_leader(self) -> bool:
        """Return true."""
        return True

    def may_send(self) -> bool:
        """Return true."""
        return True

    def add_lost_listener(self, listener: Callable[[], None]) -> None:
        """Do nothing: nothing is lost."""

    def add_joined_listener(self, listener: Callable[[], None]) -> None:
        """Do nothing: it does not join again."""


class LeasedNode:
    """A process that serves together with others."""

    def __init__(
        self,
        nodes: Nodes,
        clock: Clock,
        *,
        name: str,
        place: str = "",
        times: LeaseTimes | None = None,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """Take `place`, where the process runs, and `monotonic`, a clock that also counts while the machine sleeps."""
        self._place = place
        self.times = times or LeaseTimes()
        self.number = 0
        self.clock_skew_seconds = 0.0
        """By how much the store's clock was ahead of this machine's at the last reading."""
        self._reading: Reading | None = None
        """The last reading of the store's clock."""
        self._has_left = False
        self._is_ended = False
        """Whether another node has ended this one."""
        self._is_store_away = False
        self._told_of_loss = 0
        """The last number whose loss was reported to the listeners."""
        self._nodes = nodes
        self._clock = clock
        self._name = name
        self._monotonic = monotonic or clock.monotonic
        self.report: Callable[[], str] = lambda: "{}"
        """Returns what others may know of the node, as JSON."""
        self._renewed_at = self._valid_until = self._leads_until = float("-inf")
        self._counted_from = float("inf")
        """Since when the store has answered every renewal and its clock has not jumped.

        Leases may expire in an outage of it, or by a jump.
        """
        self._lost: list[Callable[[], None]] = []
        self._joined: list[Callable[[], None]] = []

    def is_alive(self) -> bool:
        """Say whether its lease is valid."""
        return self._monotonic() < self._valid_until

    def is_shut_out(self) -> bool:
        """Say whether the lease is lost, and not just because the store is away, which all nodes share."""
        return not self.is_alive() and (self._is_ended or not self._is_store_away)

    def may_send(self) -> bool:
        """Say whether the lease is valid for long enough to send a create or a cancel."""
        return self._monotonic() < self._valid_until - self.times.margin

    def is_leader(self) -> bool:
        """Say whether it does what one node does for all."""
        return self._monotonic() < min(self._valid_until, self._leads_until)

    def may_take_over(self) -> bool:
        """Say whether it may end other nodes: it has renewed its lease for the length of one, without a failure.

        While the store was away nobody could renew, so an expired lease says nothing of a node. Nor does it after
        the store's clock has jumped, until the living nodes have renewed theirs.
        """
        return self.is_alive() and self._monotonic() >= self._counted_from + self.times.lease

    @property
    def lease_age(self) -> float:
        """Seconds since the last renewal was sent."""
        return self._monotonic() - self._renewed_at

    def add_lost_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the lease is lost."""
        self._lost.append(listener)

    def add_joined_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when it has joined again."""
        self._joined.append(listener)

    async def start(self) -> None:
        """Join the nodes. Raise `StoreUnavailable`."""
        sent_at = self._monotonic()
        self.number = await self._nodes.join(self._name, self.times.lease, self._place)
        self._is_ended = self._is_store_away = False
        self._renewed_at, self._counted_from = sent_at, sent_at
        self._valid_until = sent_at + self.times.lease
        self._leads_until = float("-inf")
        await self._check_clock()
        await self.lead()

    async def living(self) -> Living:
        """List the nodes that have not ended, and note the store's clock. Raise `StoreUnavailable`."""
        sent_at = self._monotonic()
        found = await self._nodes.living()
        self._note_clock(sent_at, found.at)
        return found

    async def run(self) -> None:
        """Renew the lease until the node leaves. When it is lost, tell the listeners and join again."""
        while not self._has_left:
            left = self._valid_until - self._monotonic()
            if left <= 0:
                await self._join_again()
                continue
            await self._clock.sleep(min(self.times.renew, left))
            if self.is_alive():
                # The end of the lease is noticed although the store does not answer.
                await run_until_first(self._renew(), self._clock.sleep(self._valid_until - self._monotonic()))

    async def leave(self) -> None:
        """Give up the lease, so that others take over at once. Raises nothing."""
        self._has_left, self._valid_until = True, float("-inf")
        try:
            await self._nodes.leave(self.number)
        except GatewayError as exc:
            logger.warning("the node could not leave; its lease expires", extra={"reason": exc.detail})

    async def _renew(self) -> None:
        number, sent_at = self.number, self._monotonic()
        try:
            is_renewed = await self._nodes.renew(number, self.times.lease, self.report())
        except GatewayError as exc:
            self._counted_from, self._is_store_away = float("inf"), True
            logger.warning("the lease could not be renewed", extra={"node": number, "reason": exc.detail})
            return
        if not is_renewed:
            # Another node has found it expired, and taken its runs.
            self._valid_until, self._is_ended = float("-inf"), True
            return
        if self._has_left:
            return
        self._is_store_away = False
        self._renewed_at, self._valid_until = sent_at, sent_at + self.times.lease
        self._counted_from = min(self._counted_from, sent_at)
        await self.lead()

    async def lead(self) -> None:
        """Become or stay the node that leads, if no other one is."""
        sent_at, was_leader = self._monotonic(), self.is_leader()
        try:
            leads = await self._nodes.lead(LEADER, self.number, self.times.lease)
        except GatewayError:
            return
        self._leads_until = sent_at + self.times.lease if leads else float("-inf")
        if leads and not was_leader:
            logger.info("this node leads", extra={"node": self.number})

    async def _join_again(self) -> None:
        lost, self._valid_until = self.number, float("-inf")
        if self._told_of_loss != lost:
            self._told_of_loss = lost
            logger.error("the lease was lost: other nodes take over the runs of this one", extra={"node": lost})
            _call(self._lost)
        try:
            await self.start()
        except GatewayError as exc:
            self._is_store_away = True
            logger.warning("the node could not join again yet", extra={"reason": exc.detail})
            await self._clock.sleep(self.times.renew)
            return
        logger.warning("the node has joined again", extra={"node": self.number, "before": lost})
        _call(self._joined)
        await self._end(lost)

    async def _end(self, lost: int) -> None:
        """End the number before, so that its runs and shares of rates are free. Nobody knows better that it is dead.

        Otherwise the others would do so, ten seconds after an outage of the store.
        """
        try:
            await self._nodes.leave(lost)
        except GatewayError as exc:
            logger.warning("the lost number could not be ended yet", extra={"node": lost, "reason": exc.detail})

    async def _check_clock(self) -> None:
        sent_at = self._monotonic()
        try:
            at = await self._nodes.clock()
        except GatewayError:
            # It has joined all the same.
            return
        took = self._note_clock(sent_at, at)
        if abs(self.clock_skew_seconds) > TOLERATED_SECONDS + took:
            # Leases do not depend on it. Times in records, expiry of keys and budgets of a day do.
            extra = {"seconds": round(self.clock_skew_seconds, 3)}
            logger.warning("this machine's clock differs from the store's", extra=extra)

    def _note_clock(self, sent_at: float, at: float) -> float:
        """Note a reading of the store's clock, and return how long it took."""
        before, reading = self._reading, Reading(sent_at, self._monotonic(), at)
        took = reading.answered_at - sent_at
        self._reading, self.clock_skew_seconds = reading, at - (self._clock.now() - took / 2)
        if before is None or has_jumped(before, reading):
            self._counted_from = max(self._counted_from, sent_at)
            if before is not None:
                logger.error("the store's clock has jumped", extra={"skew_seconds": round(self.clock_skew_seconds, 3)})
        return took


def _call(listeners: list[Callable[[], None]]) -> None:
    for listener in listeners:
        try:
            listener()
        except Exception:
            logger.exception("a listener of the lease failed")
