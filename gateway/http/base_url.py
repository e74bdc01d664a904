"""The base URL of every link in a response: `public_url` if it is configured, else derived from the request.

See docs/architecture.md, Invariants 11.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from aiohttp import web

from gateway.domain.links import origin_of
from gateway.errors import BadRequest
from gateway.http.keys import SETTINGS

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


def base_of(request: web.Request) -> str:
    """Return the gateway's base URL for this caller, ending in `/v1`. Raise `BadRequest` if `Host` is malformed."""
    public_url = request.app[SETTINGS].value.public_url
    return (public_url or _origin(request)) + "/v1"


def addresses_of(request: web.Request) -> tuple[str, frozenset[str]]:
    """Return what `base_of` and `own_origins` return, for a create. Raise `BadRequest` if `Host` is malformed."""
    public_url, origin = request.app[SETTINGS].value.public_url, _origin(request)
    return (public_url or origin) + "/v1", _origins_of(public_url, origin)


def ops_origin(request: web.Request) -> str:
    """Return the origin at which operators reach their listener. Raise `BadRequest` if `Host` is malformed."""
    return request.app[SETTINGS].value.ops_public_url or _origin(request)


def own_origins(request: web.Request) -> frozenset[str]:
    """Return the origins by which this caller may address the gateway, in lower case."""
    return _origins_of(request.app[SETTINGS].value.public_url, _origin(request))


@lru_cache(256)
def _origins_of(public_url: str | None, origin: str) -> frozenset[str]:
    return frozenset({origin.lower(), origin_of(public_url)} if public_url else {origin.lower()})


def page_of(request: web.Request) -> str | None:
    """Return the origin of the page that sent the request, or `None` if the request names none.

    Browsers send no `Origin` with a same-origin GET, but set `Sec-Fetch-Site: same-origin`, which scripts cannot set.
    Programs other than browsers can forge both headers: the check separates pages, it does not authenticate programs.
    """
    origin = request.headers.get("Origin")
    if origin is None and request.headers.get("Sec-Fetch-Site") == "same-origin":
        return origin_of(base_of(request))
    return origin


def is_own_origin(request: web.Request, origin: str) -> bool:
    """Return whether an origin is the gateway's own, by which this caller reaches it."""
    try:
        return origin.lower() in own_origins(request)
    except BadRequest:
        return False


def is_secure(request: web.Request) -> bool:
    """Return whether the caller uses https. Raise `BadRequest` if `Host` is malformed."""
    return _origin(request).startswith("https:")


def is_ops_secure(request: web.Request) -> bool:
    """Return whether an operator uses https. Raise `BadRequest` if `Host` is malformed."""
    public_url = request.app[SETTINGS].value.ops_public_url or ""
    return is_secure(request) or public_url == f"https://{request.host.lower()}"


def is_own_page(request: web.Request) -> bool:
    """Return whether a form comes from a page of this origin, as protection against cross-site request forgery.

    Browsers send `Sec-Fetch-Site` (Fetch Metadata), older ones `Origin`. A request with neither is not from a browser
    and passes.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        return site == "same-origin"
    return origin is None or origin.lower() == _origin(request).lower()


def _origin(request: web.Request) -> str:
    scheme, host = request.scheme, request.headers.get("Host", "")
    networks = request.app[SETTINGS].value.trusted_proxies
    if networks and is_trusted(request.remote, networks):
        # The nearest proxy appends the last entry. Earlier entries may come from the client.
        scheme = request.headers.get("X-Forwarded-Proto", scheme).rpartition(",")[2].strip().lower()
        host = request.headers.get("X-Forwarded-Host", host).rpartition(",")[2].strip()
    return _origin_of(scheme, host)


@lru_cache(256)
def _origin_of(scheme: str, host: str) -> str:
    if scheme not in ("http", "https") or not _HOST.fullmatch(host) or not _is_address_in(host):
        raise BadRequest("The Host header is missing or malformed.")
    return f"{scheme}://{host}"


def _is_address_in(host: str) -> bool:
    """Return whether what is in brackets is an IPv6 address: readers of links refuse anything else."""
    if not host.startswith("["):
        return True
    try:
        IPv6Address(host[1 : host.index("]")])
    except ValueError:
        return False
    return True


def is_trusted(remote: str | None, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    """Return whether an address is in one of the networks of trusted proxies."""
    if not networks or remote is None:
        return False
    try:
        address = ip_address(remote)
    except ValueError:
        return False
    return any(address in network for network in networks)
