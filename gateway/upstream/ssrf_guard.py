"""Connections to addresses that callers name: looked up, judged, and connected to, the very address that was judged.

The judgement stands where the socket is made, after any name has been resolved and whatever cache it came from. So a
name that resolves to another address the next time (DNS rebinding) and an address written into the URL meet it alike.
Whoever opens a session on `guarded_connector` still has to refuse redirects, or to follow them by requests of its own.

    connector = guarded_connector(allow_private=False, max_connections=100)
    session = aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar())

A refusal arrives as `aiohttp.ClientConnectorError` whose `os_error` is an `AddressRefused`; `is_refusal` tells.
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

# Threads that look names up. Each can hang for as long as a name server is silent, so callers' names have their own:
# those of the event loop's common pool look up upstream's. As many as one team's share of the webhooks' slots (32),
# and as what such slots have left behind when they gave up, would have to hang before anybody waits for a thread.
# They are made when they are needed.
_LOOKUP_THREADS = 128
_DNS_CACHE_SECONDS = 10
# Kept short: receivers are many, and a connection is judged when it is made.
_KEEPALIVE_SECONDS = 15.0


class AddressRefused(OSError):
    """The address is one that callers may not be led to."""

    def __init__(self) -> None:
        # The same words for each address: who names a host need not be told what it resolves to in here.
        super().__init__(errno.EACCES, "the address is not one that may be connected to")


def is_refusal(error: BaseException) -> bool:
    """Say whether a failure to connect was the guard's doing."""
    return isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, AddressRefused)


def guarded_connector(
    *,
    allow_private: bool,
    max_connections: int,
    max_per_host: int = 0,
    resolver: AbstractResolver | None = None,
    tls: ssl.SSLContext | None = None,
) -> aiohttp.TCPConnector:
    """Make a connector that opens no connection to an address that is not allowed. To be called on the event loop.

    `resolver` and `tls` are for those who know better than the system whom names belong to and who is to be trusted.
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
    """Make sockets for what may be connected to: the address given here is the one that is connected to next."""

    def make(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if not is_allowed(str(address[0]), allow_private=allow_private):
            raise AddressRefused
        return socket.socket(family=family, type=kind, proto=protocol)

    return make


class OwnThreads(AbstractResolver):
    """Asks the system for names, on threads of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="guarded-lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return every address of a host. Raise `OSError` if it has none."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, _look_up, host, port, family)
        return [_result(host, each) for each in found]

    async def close(self) -> None:
        """Let the threads go, without waiting for a name server that is silent."""
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
