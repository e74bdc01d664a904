"""What operations ask of the store and of those who count."""

from collections.abc import Mapping
from typing import Protocol


class Figures(Protocol):
    """Whoever counts requests and refusals, since the process started."""

    def requests_in_progress(self) -> int:
        """Count the requests that are being answered."""
        ...

    def refusals_by_limit(self) -> Mapping[tuple[str, str], int]:
        """Count creates that limits refused, by team and by `rate`, `concurrency`, `seconds` or `dollars`."""
        ...

    def refusals_by_reason(self) -> Mapping[str, int]:
        """Count requests that the gateway refused, by the name of the error."""
        ...


class Ping(Protocol):
    """A store that can say whether it answers."""

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if the store does not answer."""
        ...
