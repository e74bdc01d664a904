"""The base of every link that a caller sees: `public_url`, else what the caller's request says.

See docs/architecture.md, Invariants 11.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from aiohttp import web

from gateway.domain.links import origin_of
from gateway.errors import BadRequest
from gateway.http.keys import SETTINGS

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")


def base_of(request: web.Request) -> str:
    """Return the gateway's base URL as this caller reaches it, spelled with `/v1`. Raise `BadRequest` without one."""
    public_url = request.app[SETTINGS].value.public_url
    return (public_url or _origin(request)) + "/v1"


def own_origins(request: web.Request) -> frozenset[str]:
    """Return the origins under which this caller may know the gateway."""
    public_url = request.app[SETTINGS].value.public_url
    known = {_origin(request).lower()}
    if public_url:
        known.add(origin_of(public_url))
    return frozenset(known)


def page_of(request: web.Request) -> str | None:
    """Return the origin of the page that asks, or `None` if the request names none.

    A browser names no origin where a page reads from its own; it then says that it does, in a header that pages cannot
    set. Programs can say what they like, here as in `Origin`: this keeps pages from each other, not programs out.
    """
    origin = request.headers.get("Origin")
    if origin is None and request.headers.get("Sec-Fetch-Site") == "same-origin":
        return origin_of(base_of(request))
    return origin


def is_secure(request: web.Request) -> bool:
    """Whether this caller reaches the gateway by https. Raise `BadRequest` for a request without a proper Host."""
    return _origin(request).startswith("https:")


def is_own_page(request: web.Request) -> bool:
    """Whether a form was sent by a page of the origin that it is sent to: what no page of another can claim.

    Browsers say so by themselves (Fetch Metadata), older ones name the origin. What is no browser says neither.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site == "same-origin"
    return origin is None or origin.lower() == _origin(request).lower()


def _origin(request: web.Request) -> str:
    scheme, host = request.scheme, request.headers.get("Host", "")
    if _from_trusted_proxy(request):
        # The nearest proxy wrote the last entry; only it is trusted.
        scheme = request.headers.get("X-Forwarded-Proto", scheme).rpartition(",")[2].strip().lower()
        host = request.headers.get("X-Forwarded-Host", host).rpartition(",")[2].strip()
    if scheme not in ("http", "https") or not _HOST.fullmatch(host):
        raise BadRequest("The Host header is missing or malformed.")
    return f"{scheme}://{host}"


def _from_trusted_proxy(request: web.Request) -> bool:
    return is_trusted(request.remote, request.app[SETTINGS].value.trusted_proxies)


def is_trusted(remote: str | None, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Say whether an address is that of a proxy whose word counts."""
    if not networks or remote is None:
        return False
    try:
        address = ip_address(remote)
    except ValueError:
        return False
    return any(address in network for network in networks)
