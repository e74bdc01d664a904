"""Whether this node may use its shares of rates: as long as the store has confirmed its lease."""

import asyncio
import math
from collections.abc import Callable

from gateway.domain.ports.clock import Clock
from gateway.nodes.membership import Membership
from gateway.runtime.sleep import sleep_until_event


class ShareLease:
    """Until when the node's shares are its own.

    The time is counted from when the read that confirmed the lease was sent, so it ends before the store can give the
    shares to other nodes. Shares that were not confirmed in time are not used, also after a pause of the whole process.
    `uptime` is a clock that also counts while the machine sleeps.
    """

    def __init__(self, membership: Membership, uptime: Callable[[], float]) -> None:
        self.now = uptime
        self._membership = membership
        self._until = -math.inf
        self._confirmed = asyncio.Event()

    def confirm(self, sent_at: float, seconds: float) -> None:
        """Note that a read that was sent at `sent_at`, by `now`, found the lease valid for `seconds`."""
        self._until = sent_at + seconds
        self._confirmed.set()

    def end(self) -> None:
        """Use no shares until the next confirmation."""
        self._until = -math.inf
        self._confirmed.clear()

    def is_valid(self) -> bool:
        """Say whether shares may be used. A node that has left may not use them, although its lease goes on."""
        return self.now() < self._until and self._membership.is_alive()

    @property
    def is_fenced(self) -> bool:
        """Whether the node has lost its lease, so that no confirmation will come soon."""
        return not self._membership.is_alive()

    async def wait(self, clock: Clock, seconds: float) -> bool:
        """Wait for a confirmation, for `seconds` at most; return whether shares may be used.

        After the node has joined, one comes within moments.
        """
        if not self.is_valid() and not self.is_fenced:
            self._confirmed.clear()
            await sleep_until_event(clock, seconds, self._confirmed)
        return self.is_valid()
