"""The operation of the store that the health check needs."""

from typing import Protocol


class Ping(Protocol):
    """A store that can be checked."""

    async def ping(self) -> None:
        """Write and read a value. Raise `StoreUnavailable` if that fails."""
        ...
