"""Listening: opens the node's sockets before anything else is told that the node exists.

Owns nothing: the sockets are the caller's to serve and close. Every failure is one line that names the setting.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from actors.core.refusals import CannotStart

BACKLOG = 1024


class CannotListen(CannotStart):
    """An address cannot be listened on."""


def listen(host: str, ports: Sequence[int], *, shared: bool = False) -> list[socket.socket]:
    """Open a listening socket for each port on each address of `host`; all or none. Port 0 is one the kernel picks.

    A name with an IPv4 and an IPv6 address gets both, on the same port. `shared`: other workers may listen there too,
    and the kernel gives each new connection to one of them.
    """
    return _open_each(host, ports, lambda place: _listening(_bound(place, shared=shared), place))


def reserve(host: str, ports: Sequence[int]) -> list[socket.socket]:
    """Bind what workers are going to listen on, without listening: no connection comes here, and nobody else gets it.

    Refused like `listen`, also when another program shares its port with everybody.
    """
    return _open_each(host, ports, _reserved)


class _Place(NamedTuple):
    family: socket.AddressFamily
    address: str
    port: int


def _open_each(host: str, ports: Sequence[int], open_one: Callable[[_Place], socket.socket]) -> list[socket.socket]:
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for port in ports:
            chosen = port
            for family, address in _addresses(host):
                each = opened.enter_context(open_one(_Place(family, address, chosen)))
                chosen = each.getsockname()[1]
                sockets.append(each)
        opened.pop_all()
        return sockets


def _reserved(place: _Place) -> socket.socket:
    if place.port:  # not shared, this is refused whenever anybody listens there
        _bound(place, shared=False).close()
    return _bound(place, shared=True)


def addresses(sockets: Sequence[socket.socket]) -> list[tuple[str, int]]:
    """The host and port each socket is bound to."""
    return [listener.getsockname()[:2] for listener in sockets]


def http_url(host: str, port: int) -> str:
    """The URL under which a listening address is reached from this machine."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  shown, not bound
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):  # the latter for names that the DNS could not even be asked for
        raise CannotListen(f"APP_HOST: {host} is not an address or a name of this machine") from None
    return list(dict.fromkeys((family, str(place[0])) for family, _, _, _, place in found))


def _bound(place: _Place, *, shared: bool) -> socket.socket:
    bound = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart waits for TIME_WAIT
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if place.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind((place.address, place.port))
    except OSError as error:
        bound.close()
        raise CannotListen(_reason(error, place)) from None
    return bound


def _listening(bound: socket.socket, place: _Place) -> socket.socket:
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise CannotListen(_reason(error, place)) from None
    bound.setblocking(False)
    return bound


def _reason(error: OSError, place: _Place) -> str:
    _, address, port = place
    match error.errno:
        case errno.EADDRINUSE:
            return f"PORT: port {port} on {address} is taken by another program; end it or set another PORT"
        case errno.EACCES | errno.EPERM:
            return f"PORT: this user may not listen on port {port}; set a PORT from 1024 up"
        case errno.EADDRNOTAVAIL:
            return f"APP_HOST: {address} is not an address of this machine"
        case _:
            return f"PORT: cannot listen on {address} port {port}: {error.strerror}"
