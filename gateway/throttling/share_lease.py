"""Whether this node may use its shares of rates: as long as the store has confirmed its lease."""

import math
from collections.abc import Callable

from gateway.nodes.membership import Membership


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

    def confirm(self, sent_at: float, seconds: float) -> None:
        """Note that a read that was sent at `sent_at`, by `now`, found the lease valid for `seconds`."""
        self._until = sent_at + seconds

    def end(self) -> None:
        """Use no shares until the next confirmation."""
        self._until = -math.inf

    def is_valid(self) -> bool:
        """Say whether shares may be used. A node that has left may not use them, although its lease goes on."""
        return self.now() < self._until and self._membership.is_alive()
