"""The reader of upstream's event streams: bytes as they come, from trusted hosts only, without the token.

The URL of a stream is its own permission (docs/replicate-api.md, Streaming), so nothing else is sent there. Who may be
asked is settled here: the hosts on `trusted_hosts`, and the host of the API itself on any port (docs/architecture.md,
Files and outputs).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from yarl import URL

from gateway.domain.ports.observers import UpstreamObserver
from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamUnavailable
from gateway.upstream.hosts import is_trusted


class StreamReaderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to trust, and how long to wait, in seconds."""

    base_url: str
    trusted_hosts: tuple[str, ...]
    connect_seconds: float = 5.0
    silence_seconds: float = 90.0
    """Upstream itself gives up after 30 s of silence; longer than that means that it has died.

    See docs/replicate-api.md, Streaming.
    """


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
        """Open a stream and yield an iterator of its bytes, in whatever pieces they arrive.

        Raise `UpstreamUnavailable`, `UpstreamTimeout`, or `UpstreamBroken` for what is no event stream. The iterator
        raises the same when the stream breaks off.
        """
        settings = self._settings
        if not is_trusted(url, settings.base_url, settings.trusted_hosts):
            raise UpstreamBroken("Replicate named a stream on a host that the gateway does not trust.")
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Accept-Encoding": "identity"}
        if last_event_id:
            headers["Last-Event-ID"] = last_event_id
        timeout = aiohttp.ClientTimeout(
            total=None,
            # The name may have two addresses; until one of them is known, and the pool has room, is part of it.
            connect=settings.connect_seconds * 2,
            sock_connect=settings.connect_seconds,
            sock_read=settings.silence_seconds,
        )
        outcome = "failed"
        try:
            async with self._session.get(
                URL(url, encoded=True), headers=headers, allow_redirects=False, timeout=timeout
            ) as response:
                outcome = str(response.status)
                if response.status != 200 or response.content_type != "text/event-stream":
                    raise UpstreamBroken(f"Replicate's stream answered {response.status} without an event stream.")
                yield response.content.iter_any()
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as exc:
            outcome = "unreachable"
            raise UpstreamUnavailable("Replicate's stream could not be reached.") from exc
        except TimeoutError as exc:
            outcome = "timeout"
            raise UpstreamTimeout("Replicate's stream fell silent.") from exc
        except (aiohttp.ClientError, ValueError) as exc:
            outcome = "broken"
            raise UpstreamBroken("Replicate's stream broke off.") from exc
        finally:
            self._observer.upstream_answered("streams.read", outcome, 0.0)
