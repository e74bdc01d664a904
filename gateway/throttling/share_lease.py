"""Whether this node may use its shares of rates: as long as the store has confirmed its lease."""

import math


class ShareLease:
    """Until when the node's shares are its own, by its monotonic clock.

    The time is counted from when the read that confirmed the lease was sent, so it ends before the store can give the
    shares to other nodes. Shares that were not confirmed in time are not used, also after a pause of the whole process.
    """

    def __init__(self) -> None:
        self.until = -math.inf

    def confirm(self, sent_at: float, seconds: float) -> None:
        """Note that a read that was sent at `sent_at` found the lease valid for `seconds`."""
        if seconds > 0.0:
            self.until = sent_at + seconds

    def end(self) -> None:
        """Use no shares until the next confirmation."""
        self.until = -math.inf

    def is_valid(self, now: float) -> bool:
        """Say whether shares may be used."""
        return now < self.until
