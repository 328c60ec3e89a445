"""Addresses: which addresses a webhook may reach.

Decides on the numeric address that is about to be dialled, never on a name. Never resolves anything.
Invariants: what is not known to be public is refused; the answer is the same on every Python, because it comes from
the tables here and not from `ipaddress.is_global`, whose opinion changes between releases and calls multicast,
NAT64 and IPv4-compatible addresses global.
Source: the IANA special-purpose registries (RFC 6890 and its successors), plus the metadata addresses of the clouds.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from msgspec import Struct

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

REFUSED_V4 = tuple(
    IPv4Network(name)
    for name in (
        "0.0.0.0/8",  # "this network"; connecting to it reaches the machine itself
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's metadata and wire server, a public address in private use
        "169.254.0.0/16",  # link-local, 169.254.169.254 of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata 192.0.0.192
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relay anycast
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)

GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
"""All that is allocated as global unicast. Outside lie ::/96, 64:ff9b::/96, 64:ff9b:1::/48 (NAT64), 100::/64,
5f00::/16, fc00::/7 (metadata fd00:ec2::254, fd20:ce::254), fe80::/10, fec0::/10 and ff00::/8: all refused."""

REFUSED_V6 = tuple(
    IPv6Network(name)
    for name in (
        "2001::/23",  # protocol assignments: Teredo 2001::/32, benchmarking, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries any IPv4 address
        "3fff::/20",  # documentation
    )
)

MAPPED_BITS = 96  # ::ffff:0:0/96 holds the IPv4 addresses
LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class Guard(Struct, frozen=True, kw_only=True):
    """Lets public addresses through, the networks an operator listed, and loopback when that is allowed."""

    allowed_networks: tuple[Network, ...] = ()
    loopback_allowed: bool = False

    def allowed(self, address: str | Address) -> bool:
        """Say whether a webhook may be sent to this address; what is not an address (or has a zone) is refused."""
        try:
            plain = unmapped(ip_address(address))
        except ValueError:
            return False
        if is_public(plain) or any(plain in network for network in self.allowed_networks):
            return True
        return self.loopback_allowed and any(plain in network for network in LOOPBACK)


def unmapped(address: Address) -> Address:
    """Give the IPv4 address inside ::ffff:a.b.c.d, any other address as it is. The kernel dials the IPv4 one."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError("an address with a zone id")
        return address.ipv4_mapped or address
    return address


def is_public(address: Address) -> bool:
    """Say whether an unmapped address is an ordinary one of the public internet."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in REFUSED_V4)
    return address in GLOBAL_UNICAST_V6 and not any(address in network for network in REFUSED_V6)


def parse_networks(names: Iterable[str]) -> tuple[Network, ...]:
    """Read networks (`10.0.0.0/8`, `fd00::/8`) and single addresses; ValueError names the one that is neither."""
    return tuple(_parse_network(name.strip()) for name in names)


def _parse_network(name: str) -> Network:
    network = ip_network(name)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - MAPPED_BITS))  # addresses are unmapped before they are compared
