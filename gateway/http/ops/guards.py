"""Guards of the ops listener: the operators' token, the Host check without one, and the limit on sign-in attempts."""

import hmac
from ipaddress import ip_address
from typing import Final

from aiohttp import web
from cachetools import LRUCache

from gateway.domain import rates
from gateway.domain.ports.clock import Clock
from gateway.domain.quota import seconds_to_wait
from gateway.domain.rates import Rate
from gateway.errors import Forbidden, RateLimited
from gateway.http import base_url, request_limits
from gateway.http.keys import ACCESS

ATTEMPTS: Final = Rate(per_minute=10, burst=10)
"""Failed sign-ins of one address. At this rate a token of the shortest length is not found in a lifetime."""
_MAX_ADDRESSES: Final = 1000
_READING: Final = ("GET", "HEAD", "OPTIONS")


def check_host(request: web.Request) -> None:
    """Raise `Forbidden` if no operators' token is configured and `Host` is not a loopback name.

    Without a token the listener is on loopback and open to every program of the machine, its browsers included. A web
    page whose name is changed to resolve to 127.0.0.1 (DNS rebinding) sends its own name as `Host`.
    """
    if request.app[ACCESS].value.ops_token is not None:
        return
    try:
        # A user name has no place in `Host`: parsers disagree on which host it then names.
        is_local = "@" not in request.host and is_loopback(request.url.host or "")
    except ValueError:
        is_local = False
    if not is_local:
        raise Forbidden("Without an operators' token, this listener is only available at localhost or 127.0.0.1.")


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's own."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_page(request: web.Request) -> None:
    """Raise `Forbidden` for a request of another origin's page that is not a plain read.

    Without a token, or with a session, a browser would send it with all that the listener asks for (cross-site request
    forgery). Programs do not send the headers that tell pages apart.
    """
    if request.method not in _READING and not base_url.is_own_page(request):
        raise Forbidden("A page of another origin cannot use this listener.")


def is_ops_token(request: web.Request, given: str) -> bool:
    """Return whether `given` is the operators' token, compared in constant time. False if none is configured."""
    token = request.app[ACCESS].value.ops_token
    return token is not None and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


class SignInAttempts:
    """Counts failed sign-ins by client address, in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._full_at: LRUCache[str, float] = LRUCache(_MAX_ADDRESSES)

    def begin(self, address: str) -> None:
        """Count an attempt as failed. Raise `RateLimited` if the address has failed too often."""
        full_at, now = self._full_at.get(address, rates.FULL), self._clock.monotonic()
        if (seconds := rates.wait(full_at, ATTEMPTS, now)) > 0:
            raise RateLimited("Too many failed sign-ins. Try again later.", retry_after=seconds_to_wait(seconds))
        self._full_at[address] = rates.take(full_at, ATTEMPTS, now)

    def succeeded(self, address: str) -> None:
        """Forget one attempt of an address, because it succeeded."""
        if (full_at := self._full_at.get(address)) is not None:
            self._full_at[address] = full_at - ATTEMPTS.interval


SIGN_IN_ATTEMPTS = web.AppKey("sign_in_attempts", SignInAttempts)
"""By the form, and by answers of issuers."""
HEADER_ATTEMPTS = web.AppKey("header_attempts", SignInAttempts)
"""By the header `Authorization`. Apart, so that a program with a wrong token does not keep people out."""


def address_of(request: web.Request) -> str:
    """Return the address under which attempts are counted."""
    return request_limits.address_of(request) or "unknown"


def count_wrong_credential(request: web.Request) -> None:
    """Count a wrong credential in the header. Raise `RateLimited` if its address has sent too many.

    A right one is never counted and always accepted: nobody can lock out those who have it.
    """
    request.app[HEADER_ATTEMPTS].begin(address_of(request))
