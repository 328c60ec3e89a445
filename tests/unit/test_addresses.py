"""The address guard: what a webhook may reach, whatever way the address is written."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.addresses import REFUSED_V4, REFUSED_V6, Guard, is_public, parse_networks

STRICT = Guard()
DEFAULT_RUN = Guard(loopback_allowed=True)

REFUSED = {
    "this network": "0.0.0.0 0.1.2.3",
    "private": "10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.1.1",
    "carrier-grade NAT, Alibaba metadata": "100.64.0.1 100.127.255.255 100.100.100.200",
    "loopback": "127.0.0.1 127.255.255.254 ::1",
    "Azure metadata": "168.63.129.16",
    "link-local, cloud metadata": "169.254.169.254 169.254.0.1 169.254.170.2 fe80::1 febf::1 fe80::a9fe:a9fe",
    "protocol assignments": "192.0.0.1 192.0.0.9 192.0.0.192 192.0.0.255",
    "documentation": "192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1 3fff::1 3fff:fff::1",
    "6to4 relay": "192.88.99.1",
    "benchmarking": "198.18.0.1 198.19.255.255 2001:2::1",
    "multicast": "224.0.0.1 239.255.255.255 ff02::1 ff0e::1",
    "reserved and broadcast": "240.0.0.1 255.255.255.255",
    "unspecified and IPv4-compatible": ":: ::7f00:1 ::8.8.8.8",
    "IPv4-mapped": "::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0:0",
    "translated": "::ffff:0:127.0.0.1",
    "NAT64": "64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::1",
    "discard-only": "100::1",
    "Teredo": "2001::1 2001:0:53aa:64c:0:7d2:7f00:1",
    "ORCHID": "2001:10::1 2001:20::1",
    "6to4": "2002:7f00:1:: 2002:808:808::1",
    "segment routing": "5f00::1",
    "unique local, AWS and GCP metadata": "fc00::1 fd00:ec2::254 fd20:ce::254",
    "site-local": "fec0::1 feff::1",
    "not allocated": "4000::1 8000::1 e000::1",
    "with a zone": "fe80::1%eth0 ::1%lo 2606:4700::1%1",
    "not an address": "localhost 2130706433 0x7f.1 127.1 0127.0.0.1 1.2.3 1.2.3.4.5 1.2.3.4/8 [::1]",
}
PUBLIC = (
    "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15"
    " 172.15.255.255 172.32.0.0 192.0.1.0 192.88.98.255 192.167.255.255 198.17.255.255 198.20.0.0 223.255.255.255"
    " 2000::1 2001:200::1 2001:4860:4860::8888 2003::1 2606:4700::1111 2a00:1450::1 3ffe::1 ::ffff:8.8.8.8"
)
NOT_LOOPBACK = "0.0.0.0 :: 10.0.0.1 169.254.169.254 ::7f00:1 64:ff9b::7f00:1"


@pytest.mark.parametrize(
    ("why", "address"), [(why, address) for why, addresses in REFUSED.items() for address in addresses.split()]
)
def test_refuses_what_is_not_public(why: str, address: str) -> None:
    """Each special range is refused in every spelling, for the reason named."""
    assert not STRICT.allowed(address), why


@pytest.mark.parametrize("address", PUBLIC.split())
def test_allows_public_addresses(address: str) -> None:
    """Ordinary addresses pass, also right beside a refused range."""
    assert STRICT.allowed(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_allowed_when_asked_for(address: str) -> None:
    """A default run reaches loopback, also in its mapped form."""
    assert DEFAULT_RUN.allowed(address)
    assert not STRICT.allowed(address)


@pytest.mark.parametrize("address", NOT_LOOPBACK.split())
def test_allowing_loopback_allows_nothing_else(address: str) -> None:
    """0.0.0.0 also reaches this machine, but it is not loopback."""
    assert not DEFAULT_RUN.allowed(address)


@pytest.mark.parametrize(
    ("networks", "inside", "outside"),
    [
        ("10.1.0.0/16", "10.1.255.255 ::ffff:10.1.0.1", "10.2.0.1 127.0.0.1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.2 ::1"),
        ("fd00::/8", "fd12::1", "fc00::1 10.0.0.1"),
        ("::ffff:10.0.0.0/104", "10.9.9.9 ::ffff:10.9.9.9", "127.0.0.1 192.168.0.1"),
        ("192.168.0.0/24, fd00::/8", "192.168.0.9 fd00::1", "192.168.1.1"),
    ],
)
def test_listed_networks_are_let_through(networks: str, inside: str, outside: str) -> None:
    """What an operator lists is allowed, and only that."""
    guard = Guard(allowed_networks=parse_networks(networks.split(",")))
    assert all(guard.allowed(address) for address in inside.split())
    assert not any(guard.allowed(address) for address in outside.split())


@pytest.mark.parametrize("name", ["", "10.0.0.1/8", "10.0.0.0/33", "localhost", "::/129", "10.0.0.0/8/8"])
def test_a_bad_network_is_an_error_that_names_it(name: str) -> None:
    """The start stops with the text that was wrong."""
    with pytest.raises(ValueError, match=name or "''"):
        parse_networks([name])


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_never_laxer_than_python_for_ipv4(address: IPv4Address) -> None:
    """Whatever some Python calls not global, or multicast, is refused; text, object and mapped form agree."""
    if not address.is_global or address.is_multicast:
        assert not is_public(address)
    expected = not any(address in network for network in REFUSED_V4)
    assert STRICT.allowed(address) == STRICT.allowed(str(address)) == STRICT.allowed(f"::ffff:{address}") == expected


EMBEDDINGS = {"compatible": "::", "nat64": "64:ff9b::", "nat64 local": "64:ff9b:1::", "isatap": "fe80::5efe:0:0"}


@given(st.integers(0, 2**32 - 1), st.sampled_from(sorted(EMBEDDINGS.values())))
def test_no_ipv4_address_hides_inside_ipv6(number: int, prefix: str) -> None:
    """Transition addresses are refused whatever they carry: a gateway on the way may unpack them."""
    assert not STRICT.allowed(IPv6Address(int(IPv6Address(prefix)) | number))
    assert not STRICT.allowed(IPv6Address((0x2002 << 112) | (number << 80) | 1))
    assert not STRICT.allowed(IPv6Address((0x20010000 << 96) | number))


@given(st.integers(0, 2**128 - 1) | st.integers(0x2000 << 112, (0x4000 << 112) - 1))
def test_never_laxer_than_python_for_ipv6(number: int) -> None:
    """Outside 2000::/3 nothing passes but mapped addresses; inside, nothing that some Python calls not global."""
    address = IPv6Address(number)
    if address.ipv4_mapped is None and (not address.is_global or address.is_multicast or number >> 125 != 1):
        assert not STRICT.allowed(address)


@pytest.mark.parametrize("network", [*REFUSED_V4, *REFUSED_V6], ids=str)
def test_each_range_is_refused_from_its_first_to_its_last_address(network: IPv4Network | IPv6Network) -> None:
    """Both ends of each range are inside it."""
    assert not STRICT.allowed(network[0])
    assert not STRICT.allowed(network[-1])


@given(st.text(max_size=60))
def test_any_text_gets_an_answer(text: str) -> None:
    """What is not an address is refused, never an exception."""
    try:
        ip_address(text)
    except ValueError:
        assert not DEFAULT_RUN.allowed(text)
