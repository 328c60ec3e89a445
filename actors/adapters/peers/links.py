"""Links: this node's connections to the others, one to each, made when something is first asked of it.

A connection is let go when the peer's address changes or is gone. After one that could not be made there is a short
pause in which the peer is away at once, so that a dead one costs nobody a wait.
Invariants: at most one connection and one attempt at one for each peer; no caller waits longer than it said.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from actors.adapters.peers.handshake import NONCE_BYTES, hello
from actors.adapters.peers.jobs import Jobs
from actors.adapters.peers.link import Link
from actors.node_ports import PeerAnswer, PeerAway, PeerRequest
from actors.ports import Journal, Overloaded

CONNECT_S = 0.5
PAUSE_S = 0.1
PORT_MAX = 65535
LOOK_S = 1.0
"""How often connections to nodes that are gone are looked for."""


class _Peer:
    """What is known of one peer at one address."""

    __slots__ = ("address", "connecting", "link", "not_before", "reached")

    def __init__(self, address: str) -> None:
        self.address = address
        self.link: Link | None = None
        self.connecting: asyncio.Future[Link] | None = None
        self.not_before = float("-inf")
        """Until then the peer is away, on the loop's clock."""
        self.reached = True
        """Whether the last connection could be made: only a change is logged."""


class PeerLinks:
    """`node_ports.Peers`. `secret` is asked for at each connection: it is known once the store has been reached.
    `address_of` gives a node's `host:port`, "" when it is gone or has none."""

    def __init__(
        self,
        node: str,
        secret: Callable[[], bytes],
        address_of: Callable[[str], str],
        jobs: Jobs,
        boottime: Callable[[], float],
        journal: Journal,
    ) -> None:
        self._node = node
        self._secret = secret
        self._address_of = address_of
        self._jobs = jobs
        self._boottime = boottime
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._peers: dict[str, _Peer] = {}

    async def ask(self, node: str, request: PeerRequest, within_s: float) -> PeerAnswer:
        """Ask a peer. Raises PeerAway; StoreAway and Overloaded when the peer said so, Overloaded also when too much
        is under way to it."""
        ends_at = self._loop.time() + within_s
        peer = self._peer(node)
        link = peer.link
        if link is None or link.ended:
            link = await self._linked(node, peer, ends_at)
            within_s = ends_at - self._loop.time()
            if within_s <= 0:
                raise PeerAway("not connected in time")
        return await link.ask(request, within_s)

    async def run(self) -> None:
        """Let go of connections to nodes that are gone. A service: at its end all are closed."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                for node, peer in list(self._peers.items()):
                    if self._address_of(node) != peer.address:
                        self._let_go(node)
        finally:
            for node in list(self._peers):
                self._let_go(node)

    def _peer(self, node: str) -> _Peer:
        """The peer at the address it has now. Raises PeerAway when it has none."""
        address = self._address_of(node)
        peer = self._peers.get(node)
        if peer is not None and peer.address == address:
            return peer
        if peer is not None:
            self._let_go(node)
        if not address:
            raise PeerAway(f"{node} has no address")
        peer = self._peers[node] = _Peer(address)
        return peer

    def _let_go(self, node: str) -> None:
        peer = self._peers.pop(node)
        if peer.link is not None:
            peer.link.end("the peer has moved or is gone")

    async def _linked(self, node: str, peer: _Peer, ends_at: float) -> Link:
        """A connection; waits for the attempt that is under way or begins one. Raises PeerAway."""
        connecting = peer.connecting
        if connecting is None:
            if self._loop.time() < peer.not_before:
                raise PeerAway(f"{node} could not be reached a moment ago")
            connecting = peer.connecting = self._loop.create_future()
            try:
                self._jobs.spawn("peer-connect", self._connect(node, peer, connecting))
            except Overloaded:
                peer.connecting = None
                raise
        await asyncio.wait([connecting], timeout=ends_at - self._loop.time())
        if not connecting.done():
            raise PeerAway(f"{node} could not be reached in time")
        return connecting.result()

    async def _connect(self, node: str, peer: _Peer, connecting: asyncio.Future[Link]) -> None:
        """Make one attempt. However it ends, whoever waits for it is told."""
        link = Link(hello(self._node, node, os.urandom(NONCE_BYTES)), self._secret(), self._boottime)
        why = "stopped"
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._loop.create_connection(lambda: link, *_host_and_port(peer.address))
                await link.opened
            why = ""
        except TimeoutError:
            why = f"not connected within {CONNECT_S} s"
        except (OSError, UnicodeError, PeerAway) as error:
            why = str(error)
        finally:
            peer.connecting = None
            if why:
                link.end(why)
                peer.not_before = self._loop.time() + PAUSE_S
                connecting.set_exception(PeerAway(f"{node} could not be reached: {why}"))
                connecting.exception()  # nobody may be waiting any more, and that is no error
            else:
                self._take_up(node, peer, link)
                connecting.set_result(link)
            self._note(node, peer, why)

    def _take_up(self, node: str, peer: _Peer, link: Link) -> None:
        if self._peers.get(node) is peer:
            peer.link = link
        else:
            link.end("the peer has moved or is gone")

    def _note(self, node: str, peer: _Peer, why: str) -> None:
        """Log it when a peer cannot be reached any more, or can again."""
        if bool(why) == peer.reached:
            peer.reached = not why
            if why:
                self._journal.warning("peer not reachable", node=node, address=peer.address, reason=why)
            else:
                self._journal.info("peer reachable again", node=node, address=peer.address)


def _host_and_port(address: str) -> tuple[str, int]:
    """Raises PeerAway for what is no `host:port`: it comes from a record that another node wrote."""
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and len(port) <= len("65535") and int(port) <= PORT_MAX):
        raise PeerAway(f"{address!r} is no address")
    return host.strip("[]"), int(port)
