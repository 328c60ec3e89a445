"""Listening: opens the node's sockets before anything else is told that the node exists.

Owns nothing: the sockets are the caller's to serve and close. Every failure is one line that names the setting.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from actors.core.refusals import CannotStart

BACKLOG = 1024


class CannotListen(CannotStart):
    """An address cannot be listened on."""


def listen(host: str, ports: Sequence[int]) -> list[socket.socket]:
    """Open a listening socket for each port on each address of `host`; all or none. Port 0 is one the kernel picks.

    A name with an IPv4 and an IPv6 address gets both, on the same port.
    """
    with ExitStack() as opened:
        sockets: list[socket.socket] = []
        for port in ports:
            chosen = port
            for family, address in _addresses(host):
                listener = opened.enter_context(_open(family, address, chosen))
                chosen = listener.getsockname()[1]
                sockets.append(listener)
        opened.pop_all()
        return sockets


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


def _open(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a restart waits for TIME_WAIT
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise CannotListen(_reason(error, address, port)) from None
    return listener


def _reason(error: OSError, address: str, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"PORT: port {port} on {address} is taken by another program; end it or set another PORT"
        case errno.EACCES | errno.EPERM:
            return f"PORT: this user may not listen on port {port}; set a PORT from 1024 up"
        case errno.EADDRNOTAVAIL:
            return f"APP_HOST: {address} is not an address of this machine"
        case _:
            return f"PORT: cannot listen on {address} port {port}: {error.strerror}"
