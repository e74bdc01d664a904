"""What a health check asks of the store."""

from typing import Protocol


class Ping(Protocol):
    """A store that can say whether it works."""

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if the store does not answer, or if it cannot record anything at the moment."""
        ...

    @property
    def recent_failure(self) -> str | None:
        """What failed lately and may fail again, although the store answers."""
        ...
