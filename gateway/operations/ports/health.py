"""What a health check asks of the store."""

from typing import Protocol


class Ping(Protocol):
    """A store that can say whether it answers."""

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if the store does not answer."""
        ...
