"""Fetches output files: from trusted hosts only, without the token, with timeouts, and not from private addresses.

The operator configures the API's host, so it may have any address. All other hosts come from documents of upstream;
their addresses are checked when the connection is made (`ssrf_guard`). Redirects are refused, because they may lead to
any host.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from yarl import URL

from gateway.domain import urls
from gateway.domain.ports.observers import UpstreamObserver
from gateway.outputs.ports import Fetched, NotCopied
from gateway.outputs.rules import outputs
from gateway.upstream import hosts
from gateway.upstream.ssrf_guard import is_refusal

if TYPE_CHECKING:
    from gateway.outputs.ports import OutputFetcher as Port

_HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity"}
_CHUNK_BYTES = 256 * 1024


class FetchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Trusted hosts and timeouts. Times in seconds."""

    base_url: str
    trusted_hosts: tuple[str, ...]
    connect_seconds: float = 5.0
    idle_seconds: float = 30.0
    transfer_seconds: float = 900.0
    """Longest transfer of a file."""
    rate_grace_seconds: float = 30.0
    min_rate: float = 64 * 1024.0
    """Bytes per second that a transfer must average once it has lasted `rate_grace_seconds`. Few files are copied at a
    time, so a slow transfer is given up and retried later."""


class OutputFetcher:
    """Opens output files. `guarded` is a session with the SSRF guard; `plain`, without it, is for the API's host."""

    def __init__(
        self,
        guarded: aiohttp.ClientSession,
        plain: aiohttp.ClientSession,
        settings: FetchSettings,
        observer: UpstreamObserver,
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._guarded = guarded
        self._plain = plain
        self._settings = settings
        self._observer = observer
        self._monotonic = monotonic

    def is_output(self, url: str) -> bool:
        """Return whether a string is the URL of an output file."""
        return hosts.is_output(url, self._settings.base_url, self._settings.trusted_hosts)

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Fetched]:
        """Open a file. Raise `NotCopied` for any failure, also while its chunks are read."""
        settings = self._settings
        if not self.is_output(url):
            raise NotCopied("untrusted", "The file is on a host that the gateway does not trust.", is_final=True)
        session = self._plain if hosts.is_base_host(url, settings.base_url) else self._guarded
        timeout = aiohttp.ClientTimeout(
            total=settings.transfer_seconds, sock_connect=settings.connect_seconds, sock_read=settings.idle_seconds
        )
        started, outcome = self._monotonic(), "failed"
        try:
            async with session.get(
                URL(urls.as_sent(url), encoded=True), headers=_HEADERS, allow_redirects=False, timeout=timeout
            ) as response:
                outcome = str(response.status)
                if response.status != 200:
                    raise NotCopied("refused", f"Replicate's file host responded with {response.status}.")
                kind = outputs.content_type(response.headers.get("Content-Type"))
                yield Fetched(kind, response.content_length, self._chunks(response))
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as exc:
            if is_refusal(exc):
                outcome = "refused"
                raise NotCopied("untrusted", "The file's host has a private address.") from exc
            outcome = "unreachable"
            raise NotCopied("unreachable", "Replicate's file host could not be reached.") from exc
        except TimeoutError as exc:
            outcome = "timeout"
            raise NotCopied("unreachable", "Replicate's file host did not respond in time.") from exc
        except (aiohttp.ClientError, ValueError) as exc:
            outcome = "broken"
            raise NotCopied("broken", "The connection was lost before the file was complete.") from exc
        finally:
            self._observer.upstream_answered("outputs.get", outcome, self._monotonic() - started)

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        started, size = self._monotonic(), 0
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            size += len(chunk)
            elapsed = self._monotonic() - started
            if elapsed > self._settings.rate_grace_seconds and size < elapsed * self._settings.min_rate:
                raise NotCopied("unreachable", "The transfer of the file was too slow.")
            yield chunk


if TYPE_CHECKING:
    _: type[Port] = OutputFetcher
