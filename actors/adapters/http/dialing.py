"""Dialing: names and sockets of the egress, both under the address guard.

aiohttp asks the resolver for names only, so literal addresses (`http://127.0.0.1`, `[::ffff:127.0.0.1]`) are seen by
the socket factory alone; it judges every address that is about to be dialled, right before the connect.
Invariants: no SYN leaves for a refused address; a name with one refused address among its addresses is refused whole;
a lookup that hangs costs one thread, never more than `LOOKUPS_MAX` of them, and no caller more than `LOOKUP_S`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Thread

from aiohttp import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

from actors.core.addresses import Guard

LOOKUP_S = 3.0
LOOKUPS_MAX = 64
"""Lookups under way at once, hung ones included (glibc gives up after 10 to 30 s)."""

Lookup = Callable[[str], Sequence[str]]
"""Blocking: a host's addresses, in the order in which they should be tried; OSError when there are none."""


class AddressRefused(OSError):
    """The guard does not let this address through. Carries the errno of an unreachable host, and nothing more."""

    def __init__(self) -> None:
        super().__init__(errno.EHOSTUNREACH, "unreachable")


def guarded_sockets(guard: Guard) -> Callable[[AddrInfoType], socket.socket]:
    """Make the connector's socket factory: a socket for an allowed address, AddressRefused for any other."""

    def make(info: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not guard.allowed(str(address[0])):
            raise AddressRefused
        return socket.socket(family, kind, protocol)

    return make


def system_lookup(host: str) -> list[str]:
    """Ask the system, for the address families that this machine has."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class GuardedResolver(AbstractResolver):
    """Resolves through `lookup`, each name on a daemon thread of its own.

    Not an executor: its threads are few, so a handful of hung names would stop all others, and they are joined when
    the process exits, so one hung name would hold up the shutdown.
    """

    def __init__(self, guard: Guard, lookup: Lookup) -> None:
        self._guard = guard
        self._lookup = lookup
        self._under_way: dict[str, asyncio.Future[Sequence[str]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give all addresses of a name; OSError when there is none, when one is refused, or after `LOOKUP_S`."""
        try:
            async with asyncio.timeout(LOOKUP_S):
                addresses = await asyncio.shield(self._found(host))
        except TimeoutError:
            raise OSError(errno.EHOSTUNREACH, "lookup timed out") from None
        if not addresses or not all(map(self._guard.allowed, addresses)):
            raise AddressRefused
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Let go of the lookups that are under way; their threads end by themselves."""
        for found in self._under_way.values():
            found.cancel()
        self._under_way.clear()

    def _found(self, host: str) -> asyncio.Future[Sequence[str]]:
        """The lookup of this name that is under way, or a new one. A hung one is joined, never doubled."""
        found = self._under_way.get(host)
        if found is None:
            if len(self._under_way) >= LOOKUPS_MAX:
                raise OSError(errno.EAGAIN, "too many lookups")
            loop = asyncio.get_running_loop()
            found = self._under_way[host] = loop.create_future()
            Thread(target=self._look_up, args=(loop, host), name="lookup", daemon=True).start()
        return found

    def _look_up(self, loop: asyncio.AbstractEventLoop, host: str) -> None:
        try:
            addresses = self._lookup(host)
        except (OSError, UnicodeError):  # UnicodeError: a label that the IDNA codec of the socket module refuses
            addresses = ()
        with suppress(RuntimeError):  # the loop closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(self._settle, host, addresses)

    def _settle(self, host: str, addresses: Sequence[str]) -> None:
        found = self._under_way.pop(host, None)
        if found is not None and not found.done():
            found.set_result(addresses)
