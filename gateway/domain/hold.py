"""How long one create was held for limits, and by which. Shown to its caller, logged, and kept for its explanation."""

from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind, LimitStatus


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


def rate_status(name: str, of: SubjectKind, limit: float) -> LimitStatus:
    """Return a rate that is kept in memory as a limit, without its usage."""
    return LimitStatus(
        name=name, of=of, scope=str(of), kind=LimitKind.RATE, limit=limit, used=0, held=0, remaining=0, resets_at=None
    )
