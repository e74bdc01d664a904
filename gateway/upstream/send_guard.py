"""Hold back what acts upstream when this process may not act any more (docs/architecture.md, Nodes).

The check is made when a connection is open, directly before the first byte is written: to open one can take longer
than the rest of a lease.
"""

from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp.connector import Connection

_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class NotPermitted(aiohttp.ClientError):
    """Nothing was sent: this process may not act upstream now."""


def guarded_request(may_send: Callable[[], bool]) -> type[aiohttp.ClientRequest]:
    """Return a class of requests, of which those that act are sent only while `may_send`."""

    class GuardedRequest(aiohttp.ClientRequest):
        async def send(self, conn: Connection) -> aiohttp.ClientResponse:
            if self.method not in _READS and not may_send():
                raise NotPermitted
            return await super().send(conn)

    return GuardedRequest
