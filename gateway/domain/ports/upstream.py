"""Replicate's API, as services call it."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from gateway.domain.upstream_response import Answer


class Upstream(Protocol):
    """Replicate's API, with the account's token. See `gateway.upstream.replicate` for what is raised when."""

    async def read(
        self,
        operation: str,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask for something; repeated where that is safe."""
        ...

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Change something; sent once."""
        ...

    async def upload(self, operation: str, path: str, body: AsyncIterator[bytes], content_type: str) -> Answer:
        """Send a body as it comes in."""
        ...
