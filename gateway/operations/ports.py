"""What operations ask of the store and of those who count."""

from collections.abc import Mapping
from typing import Protocol


class Figures(Protocol):
    """Counters of requests and refusals since the process started."""

    def requests_in_progress(self) -> int:
        """Return the number of requests in progress."""
        ...

    def refusals_by_limit(self) -> Mapping[tuple[str, str], int]:
        """Return the creates refused by limits, by team and `rate`, `concurrency`, `seconds` or `dollars`."""
        ...

    def refusals_by_reason(self) -> Mapping[str, int]:
        """Return the requests that the gateway refused, by the name of the error."""
        ...


class Ping(Protocol):
    """A store that can say whether it answers."""

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if the store does not answer, or if it cannot record anything at the moment."""
        ...

    @property
    def recent_failure(self) -> str | None:
        """What failed lately and may fail again, although the store answers."""
        ...
