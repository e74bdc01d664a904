"""Opens upstream's event streams, on trusted hosts only, and without the token.

A stream's URL is its permission (docs/replicate-api.md, Streaming), so no credentials are sent. Trusted are the hosts
in `trusted_hosts`, and the API's host on any port (docs/architecture.md, Files and outputs).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from yarl import URL

from gateway.domain import urls
from gateway.domain.ports.observers import UpstreamObserver
from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnavailable
from gateway.upstream.hosts import is_trusted


class StreamReaderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Trusted hosts and timeouts. Times in seconds."""

    base_url: str
    trusted_hosts: tuple[str, ...]
    connect_seconds: float = 5.0
    idle_seconds: float = 90.0
    """Longest time without data. Upstream closes a stream after 30 s of it (docs/replicate-api.md, Streaming)."""


class StreamReader:
    """Opens upstream's event streams."""

    def __init__(
        self, session: aiohttp.ClientSession, settings: StreamReaderSettings, observer: UpstreamObserver
    ) -> None:
        self._session = session
        self._settings = settings
        self._observer = observer

    @asynccontextmanager
    async def open(self, url: str, last_event_id: str | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a stream and yield an iterator over its bytes, after the event `last_event_id` if it is given.

        Raise `UpstreamUnavailable`, `UpstreamTimeout`, or `UpstreamBroken` if the response is not an event stream or
        the host is not trusted. Iterating raises the same errors.
        """
        settings = self._settings
        if not is_trusted(url, settings.base_url, settings.trusted_hosts):
            raise UpstreamBroken("Replicate returned a stream URL on a host that the gateway does not trust.")
        try:
            target = urls.as_sent(url)
        except ValueError as exc:
            raise UpstreamBroken(f"Replicate returned a stream URL that {exc}.") from exc
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Accept-Encoding": "identity"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        timeout = aiohttp.ClientTimeout(
            total=None,
            # Includes name resolution, waiting for the pool, and a second address.
            connect=settings.connect_seconds * 2,
            sock_connect=settings.connect_seconds,
            sock_read=settings.idle_seconds,
        )
        outcome = "failed"
        try:
            async with self._session.get(
                URL(target, encoded=True), headers=headers, allow_redirects=False, timeout=timeout
            ) as response:
                outcome = str(response.status)
                if response.status != 200 or response.content_type != "text/event-stream":
                    raise UpstreamBroken(f"Replicate responded with {response.status} and no event stream.")
                yield response.content.iter_any()
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as exc:
            outcome = "unreachable"
            raise UpstreamUnavailable("Replicate's stream could not be reached.") from exc
        except TimeoutError as exc:
            outcome = "timeout"
            raise UpstreamTimeout("Replicate's stream sent nothing for too long.") from exc
        except (aiohttp.ClientError, ValueError) as exc:
            outcome = "broken"
            raise UpstreamBroken("The connection to Replicate's stream was lost.") from exc
        finally:
            self._observer.upstream_answered("streams.read", outcome, 0.0)
