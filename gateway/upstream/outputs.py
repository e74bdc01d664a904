"""The fetcher of output files: from upstream's hosts only, without the token, to no private address, with deadlines.

The host of the API itself may be anywhere: it is the operator's word. Every other host is a name in a document, and
what it resolves to is judged when it is connected to (`guard.py`). Redirects lead elsewhere by definition, and are
refused.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from yarl import URL

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
    """Whom to trust, and how long to wait, in seconds."""

    base_url: str
    trusted_hosts: tuple[str, ...]
    connect_seconds: float = 5.0
    silence_seconds: float = 30.0
    transfer_seconds: float = 900.0
    """Longest whole transfer."""
    patience_seconds: float = 30.0
    least_rate: float = 64 * 1024.0
    """Bytes a second that a transfer must come to once it has lasted as long as there is patience for. Few files are
    copied at a time: those that dribble give way to those that wait, and are tried again."""


class OutputFetcher:
    """Opens output files. `guarded` is a session on a guarded connector, `plain` one for the host of the API."""

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
        """Say whether a text is the address of an output file."""
        return hosts.is_output(url, self._settings.base_url, self._settings.trusted_hosts)

    @asynccontextmanager
    async def open(self, url: str) -> AsyncIterator[Fetched]:
        """Open a file. Raise `NotCopied` for whatever goes wrong, until the context ends."""
        settings = self._settings
        if not self.is_output(url):
            raise NotCopied("untrusted", "The file is on a host that the gateway does not trust.", is_final=True)
        session = self._plain if hosts.is_base_host(url, settings.base_url) else self._guarded
        timeout = aiohttp.ClientTimeout(
            total=settings.transfer_seconds, sock_connect=settings.connect_seconds, sock_read=settings.silence_seconds
        )
        began, outcome = self._monotonic(), "failed"
        try:
            async with session.get(
                URL(url, encoded=url.isascii()), headers=_HEADERS, allow_redirects=False, timeout=timeout
            ) as response:
                outcome = str(response.status)
                if response.status != 200:
                    raise NotCopied("refused", f"Replicate's file host answered {response.status}.")
                kind = outputs.content_type(response.headers.get("Content-Type"))
                yield Fetched(kind, response.content_length, self._chunks(response))
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as exc:
            if is_refusal(exc):
                outcome = "refused"
                raise NotCopied("untrusted", "The file's host is at an address of a private network.") from exc
            outcome = "unreachable"
            raise NotCopied("unreachable", "Replicate's file host could not be reached.") from exc
        except TimeoutError as exc:
            outcome = "timeout"
            raise NotCopied("unreachable", "Replicate's file host did not answer in time.") from exc
        except (aiohttp.ClientError, ValueError) as exc:
            outcome = "broken"
            raise NotCopied("broken", "A file broke off.") from exc
        finally:
            self._observer.upstream_answered("outputs.get", outcome, self._monotonic() - began)

    async def _chunks(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        began, size = self._monotonic(), 0
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            size += len(chunk)
            passed = self._monotonic() - began
            if passed > self._settings.patience_seconds and size < passed * self._settings.least_rate:
                raise NotCopied("unreachable", "A file came too slowly.")
            yield chunk


if TYPE_CHECKING:
    _: type[Port] = OutputFetcher
