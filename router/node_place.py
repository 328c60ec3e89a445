"""Node place: where a node listens to the other nodes, and under which name they find it there.

Resolves names and asks the kernel for routes, so it may block for a moment: call it before the node serves. Opens
nothing that stays open.
"""

from __future__ import annotations

import socket
from typing import NamedTuple
from urllib.parse import urlsplit

from router.listening import CannotListen
from router.settings import Settings

LOOPBACK = "127.0.0.1"
ANY = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}  # noqa: S104  compared, not bound
DEFAULT_PORT = 6379


class NodePlace(NamedTuple):
    """`host` is numeric and can be bound; port 0 lets the kernel pick; the others are told `advertised`."""

    host: str
    port: int
    advertised: str


def node_place(settings: Settings, store_url: str) -> NodePlace:
    """What NODE_URL says; without it APP_HOST or, when that is all addresses, the one used towards the store.

    `CannotListen` for a name that has no address. A named address that is not this machine's own (it is behind a
    translation of addresses) is listened for on all of them.
    """
    if settings.node_address is not None:
        name, port = settings.node_address
        family, host = _resolved("NODE_URL", name)
        if not _is_ours(family, host):
            host = next(each for each, its_family in ANY.items() if its_family == family)
        return NodePlace(host, port, name)
    host = _towards(store_url) if settings.host in ANY else _resolved("APP_HOST", settings.host)[1]
    return NodePlace(host, 0, host)


def _resolved(setting: str, name: str) -> tuple[int, str]:
    try:
        family, _, _, _, place = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError):
        raise CannotListen(f"{setting}: {name} is not an address or a name that can be resolved here") from None
    return family, str(place[0])


def _is_ours(family: int, host: str) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
        return True


def _towards(store_url: str) -> str:
    """The address of ours that packets to the store carry; loopback for a store on this machine, or out of reach."""
    first = urlsplit(store_url).netloc.rpartition("@")[2].partition(",")[0]
    parts = urlsplit(f"//{first}")
    if not parts.hostname:
        return LOOPBACK  # a Unix socket
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            parts.hostname, parts.port or DEFAULT_PORT, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, kind, protocol) as route:
            route.connect(place)  # sends nothing: only asks for the route
            return str(route.getsockname()[0])
    except OSError:
        return LOOPBACK
