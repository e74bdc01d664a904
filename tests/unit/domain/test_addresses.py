"""Where a URL of a caller may lead."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.addresses import Reach, is_allowed, is_allowed_host, reach_of

PUBLIC = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "100.128.0.1", "169.253.255.255", "2606:4700::1111", "2a00::1"]
PRIVATE = ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "127.0.0.1", "127.9.9.9", "::1",
           "fd12::1", "fc00::1", "fec0::1"]  # fmt: skip
NEVER = [
    "169.254.169.254", "169.254.170.2", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200",
    "168.63.129.16", "192.0.0.192", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "239.255.255.255", "ff02::1", "240.0.0.1",
    "255.255.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1", "2001:db8::1",
    "3fff::1", "2001::1", "2001:20::1", "100::1", "5f00::1", "64:ff9b:1::1", "::7f00:1", "::ffff:0:127.0.0.1",
]  # fmt: skip
DISGUISES = ["::ffff:{}", "64:ff9b::{}"]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_allowed(address: str):
    """A receiver on the internet is reached."""
    assert reach_of(address) is Reach.PUBLIC
    assert is_allowed(address, allow_private=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_networks_are_allowed_by_setting_only(address: str):
    """A caller cannot reach the operator's own services, unless the operator allows it."""
    assert reach_of(address) is Reach.PRIVATE
    assert not is_allowed(address, allow_private=False)
    assert is_allowed(address, allow_private=True)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_multicast_and_reserved_ranges_are_never_allowed(address: str):
    """No setting lets a caller reach the credentials of the machine."""
    assert reach_of(address) is Reach.NEVER
    assert not is_allowed(address, allow_private=True)


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f000001", "2130706433", "127.0.0.1:80", "[::1]", "::g"])
def test_invalid_address_is_not_allowed(text: str):
    """Spellings that some parser takes for an address and another does not are refused."""
    assert not is_allowed(text, allow_private=True)


@given(st.integers(0, 2**32 - 1).map(IPv4Address), st.sampled_from(DISGUISES))
def test_embedded_address_is_judged_as_itself(address: IPv4Address, disguise: str):
    """Writing 127.0.0.1 as an IPv6 address changes nothing."""
    assert reach_of(disguise.format(address)) is reach_of(address)
    assert reach_of(IPv6Address((0x2002 << 112) | int(address) << 80)) is reach_of(address)


@given(st.one_of(st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)))
def test_no_address_that_python_calls_private_is_public(address: IPv4Address | IPv6Address):
    """The rules are never looser than the standard library's."""
    if reach_of(address) is Reach.PUBLIC and address not in ip_network("2002::/16"):
        inner = getattr(address, "ipv4_mapped", None) or address
        assert inner.is_global or address in ip_network("64:ff9b::/96")
        assert not inner.is_multicast


@pytest.mark.parametrize(
    ("host", "allowed", "allowed_where_private"),
    [
        ("hooks.example.com", True, True),
        ("localhost", False, True),
        ("a.LOCALHOST.", False, True),
        ("127.0.0.1", False, True),
        ("[::1]", False, True),
        ("::1", False, True),
        ("169.254.169.254", False, False),
        ("8.8.8.8", True, True),
    ],
)
def test_hosts_are_judged_before_they_are_resolved(host: str, allowed: bool, allowed_where_private: bool):
    """A create with a forbidden address is refused at once; names are judged when they are connected to."""
    assert is_allowed_host(host, allow_private=False) is allowed
    assert is_allowed_host(host, allow_private=True) is allowed_where_private
