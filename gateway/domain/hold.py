"""How long one create was held for limits, and by which. Shown to its caller, logged, and kept for its explanation."""

from gateway.domain.quota import LimitStatus


class Hold:
    """Adds up the waits of one create: for a request rate, for limits on runs, and for the account's rate."""

    # Defaults of the class, so that a create that is not held costs no call.
    seconds = 0.0
    longest = 0.0
    limit: LimitStatus | None = None
    """The limit that held it longest."""

    def add(self, seconds: float, limit: LimitStatus) -> None:
        """Add a wait for a limit."""
        self.seconds += seconds
        if seconds > self.longest:
            self.longest, self.limit = seconds, limit

    @property
    def by(self) -> str | None:
        """Name the limit that held it longest, such as `user-predictions-per-minute`."""
        return None if self.limit is None else f"{self.limit.of}-{self.limit.name}".replace("_", "-")
