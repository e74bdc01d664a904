"""Replicate's API as services call it."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

from gateway.domain.upstream_response import Answer


class Upstream(Protocol):
    """Replicate's API, called with the account's token. `gateway.upstream.replicate` documents the errors raised."""

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
        """Send a request that changes nothing. Retried after transient errors."""
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
        """Send a request that changes something. Never retried."""
        ...

    async def upload(self, operation: str, path: str, body: AsyncIterator[bytes], content_type: str) -> Answer:
        """Send a streamed body. Never retried."""
        ...
