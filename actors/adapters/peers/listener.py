"""Listener: the port on which a node answers its peers; never the public one.

Takes connections and has each prove that it is a node of this cluster that means this node. Says nothing to a
stranger, not even why it hangs up.
Invariants: of a stranger at most one read is held, for HANDSHAKE_S, and at most STRANGERS_MAX at once: the one that
has waited longest goes first.
"""

from __future__ import annotations

import asyncio
import os

from actors.adapters.peers.caller import Caller, Service
from actors.adapters.peers.handshake import NONCE_BYTES

HANDSHAKE_S = 2.0
STRANGERS_MAX = 64
PEERS_MAX = 1024


class PeerListener:
    """The listener of one node."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._server: asyncio.Server | None = None
        self._strangers: dict[Caller, asyncio.TimerHandle] = {}
        """In the order in which they came, and when each is sent away."""
        self._peers: set[Caller] = set()
        self.address = ""
        """`host:port` for the node's record, "" while it does not listen."""

    async def start(self, host: str, port: int = 0, advertised: str = "") -> None:
        """Listen at a numeric address; port 0 is the kernel's choice. Peers are told `advertised`, or the same host.
        Raises OSError."""
        self._server = await self._loop.create_server(self._caller, host, port)
        named = advertised or host
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"[{named}]:{port}" if ":" in named else f"{named}:{port}"

    async def aclose(self) -> None:
        """Stop listening and hang up. What is being done for peers goes on, and nobody is told."""
        self.address = ""
        if self._server is not None:
            self._server.close()
        for caller in [*self._strangers, *self._peers]:
            caller.end()
        if self._server is not None:
            await self._server.wait_closed()

    def came(self, caller: Caller) -> None:
        """A stranger has called."""
        if len(self._strangers) >= STRANGERS_MAX:
            # Not the newest: whoever calls and says nothing must not keep nodes out.
            oldest = next(iter(self._strangers))
            self.gone(oldest)  # at once: its transport tells only in the next tick
            oldest.end()
        self._strangers[caller] = self._loop.call_later(HANDSHAKE_S, caller.end)

    def proved(self, caller: Caller) -> None:
        """A stranger has turned out to be a peer."""
        timer = self._strangers.pop(caller, None)
        if timer is not None:
            timer.cancel()
        if timer is None or len(self._peers) >= PEERS_MAX:
            caller.end()
        else:
            self._peers.add(caller)

    def gone(self, caller: Caller) -> None:
        """A connection has ended."""
        self._peers.discard(caller)
        timer = self._strangers.pop(caller, None)
        if timer is not None:
            timer.cancel()

    def _caller(self) -> Caller:
        return Caller(self._service, self, os.urandom(NONCE_BYTES))
