"""A guard against server-side request forgery, for connections to hosts that callers name.

The address is checked where the socket is created, after name resolution and DNS caches. So the check applies to the
address that is connected to, whether it comes from a name that resolves differently each time (DNS rebinding) or is
written in the URL. A session on `guarded_connector` must refuse redirects, or follow them with requests of its own.

    connector = guarded_connector(allow_private=False, max_connections=100)
    session = aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar())

A refusal is an `aiohttp.ClientConnectorError` whose `os_error` is an `AddressRefused`; see `is_refusal`.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from gateway.domain.addresses import is_allowed

AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]

# Threads for name lookups, started on demand. A lookup can block for as long as a name server does not respond. So
# callers' names have their own threads, and upstream's are resolved in the event loop's default pool. The number allows
# for one team's share of delivery slots (32) and for several rounds of lookups that timed out and still block.
_LOOKUP_THREADS = 128
_DNS_CACHE_SECONDS = 10
# Short, because receivers are many, and an address is only checked when a connection is made.
_KEEPALIVE_SECONDS = 15.0


class AddressRefused(OSError):
    """The address is not allowed."""

    def __init__(self) -> None:
        # The message does not name the address: callers must not learn how names resolve in this network.
        super().__init__(errno.EACCES, "the address is not one that may be connected to")


def is_refusal(error: BaseException) -> bool:
    """Return whether the guard refused the connection."""
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, AddressRefused)


def guarded_connector(
    *,
    allow_private: bool,
    max_connections: int,
    max_per_host: int = 0,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> aiohttp.TCPConnector:
    """Return a connector that only connects to allowed addresses. Call it on the event loop.

    `resolver` and `tls` replace the system's name resolution and trusted certificates, for example in tests.
    """
    return aiohttp.TCPConnector(
        limit=max_connections,
        limit_per_host=max_per_host,
        resolver=resolver or OwnThreads(),
        socket_factory=_guarded_sockets(allow_private=allow_private),
        ttl_dns_cache=_DNS_CACHE_SECONDS,
        keepalive_timeout=_KEEPALIVE_SECONDS,
        ssl=tls if tls is not None else True,
    )


def _guarded_sockets(*, allow_private: bool) -> Callable[[AddressInfo], socket.socket]:
    """Return a socket factory that raises `AddressRefused`. aiohttp connects to the address that it passes to it."""

    def make(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), allow_private=allow_private):
            raise AddressRefused
        return socket.socket(family=family, type=kind, proto=protocol)

    return make


class OwnThreads(AbstractResolver):
    """Resolves names with the system's resolver, on separate threads."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="guarded-lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return all addresses of a host. Raise `OSError` if it has none."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, _look_up, host, port, family)
        return [_result(host, each) for each in found]

    async def close(self) -> None:
        """Stop the threads, without waiting for lookups that block."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> Sequence[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG)


def _result(host: str, info: Any) -> ResolveResult:
    family, _, protocol, _, address = info
    return ResolveResult(
        hostname=host,
        host=str(address[0]),
        port=int(address[1]),
        family=family,
        proto=protocol,
        flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
    )
