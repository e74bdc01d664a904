"""Decide which IP addresses a caller's URL can lead to: protection against server-side request forgery (SSRF).

See docs/architecture.md, Addresses.

The address that a host resolves to decides, not its name. Public unicast addresses are allowed for everybody. Private
networks are allowed if the operator configures it. Some addresses are never allowed: no caller has a legitimate use for
them, and services there, such as a cloud's metadata service, give credentials to every client.
"""

from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network


class Reach(StrEnum):
    """Class of an address."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Loopback and private networks: allowed if `allow_private_addresses` is set."""
    NEVER = "never"


_Address = IPv4Address | IPv6Address
_Networks = tuple[IPv4Network | IPv6Network, ...]


def _networks(*texts: str) -> _Networks:
    return tuple(ip_network(text) for text in texts)


# Checked first: cloud metadata and control addresses in ranges that are otherwise private or even public.
_METADATA = _networks(
    "169.254.0.0/16",  # link-local (RFC 3927), and the metadata service of most clouds
    "fe80::/10",  # link-local (RFC 4291)
    "fd00:ec2::/32",  # Amazon's metadata, time and name services over IPv6
    "fd20:ce::/32",  # Google's metadata service over IPv6
    "100.100.100.200/32",  # Alibaba's metadata service, inside of RFC 6598
    "168.63.129.16/32",  # Azure's wire server, a public address
    "192.0.0.192/32",  # Oracle's metadata service, inside of RFC 6890
)
_PRIVATE = _networks(
    "10.0.0.0/8",  # private use (RFC 1918)
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",  # shared address space behind carriers' NAT (RFC 6598)
    "127.0.0.0/8",  # loopback (RFC 1122)
    "::1/128",  # loopback (RFC 4291)
    "fc00::/7",  # unique local (RFC 4193)
    "fec0::/10",  # site-local, deprecated and still routed by some (RFC 3879)
)
# In addition to the properties of `ipaddress`, which differ between Python versions.
_UNUSABLE = _networks(
    "0.0.0.0/8",  # "this network" (RFC 791): Linux takes 0.0.0.0 for itself
    "192.0.0.0/24",  # protocol assignments (RFC 6890)
    "192.0.2.0/24",  # documentation (RFC 5737)
    "198.51.100.0/24",
    "203.0.113.0/24",
    "192.88.99.0/24",  # relays of 6to4 (RFC 7526)
    "198.18.0.0/15",  # benchmarks (RFC 2544)
    "224.0.0.0/4",  # multicast (RFC 5771)
    "240.0.0.0/4",  # reserved (RFC 1112), with the broadcast address
    "2001::/23",  # protocol assignments (RFC 2928), Teredo (RFC 4380) among them
    "2001:db8::/32",  # documentation (RFC 3849)
    "3fff::/20",  # documentation (RFC 9637)
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")  # all unicast addresses that IANA assigns (RFC 4291, 2.4)
_NAT64 = IPv6Network("64:ff9b::/96")  # IPv4 addresses as seen from IPv6-only networks (RFC 6052)
_SIX_TO_FOUR = IPv6Network("2002::/16")  # RFC 3056


def reach_of(address: str | _Address) -> Reach:
    """Return the class of an address. A text that is no address is `NEVER`."""
    try:
        known = ip_address(address)
    except ValueError:
        return Reach.NEVER
    if isinstance(known, IPv6Address):
        # Drop the zone ("%eth0"): with it, network membership tests would fail.
        known = IPv6Address(int(known))
        inner = _inner(known)
        if inner is not None:
            return reach_of(inner)
    return _reach(known)


def is_allowed(address: str | _Address, *, allow_private: bool) -> bool:
    """Return whether a caller's URL can lead to an address."""
    reach = reach_of(address)
    return reach is Reach.PUBLIC or (allow_private and reach is Reach.PRIVATE)


def is_allowed_host(host: str, *, allow_private: bool) -> bool:
    """Return whether a URL can name a host: `False` for an address that is not allowed, and for names of this machine.

    Other names are allowed here. Their addresses are checked when the connection is made.
    """
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return allow_private
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return True
    return is_allowed(name.strip("[]"), allow_private=allow_private)


def _inner(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that is embedded in an IPv6 address; `None` if there is none."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.sixtofour if address in _SIX_TO_FOUR else None


def _reach(address: _Address) -> Reach:
    if _is_among(address, _METADATA):
        return Reach.NEVER
    if _is_among(address, _PRIVATE):
        return Reach.PRIVATE
    outside = isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified or not address.is_global
    if outside or is_special or _is_among(address, _UNUSABLE):
        return Reach.NEVER
    return Reach.PUBLIC


def _is_among(address: _Address, networks: _Networks) -> bool:
    return any(address in network for network in networks)
