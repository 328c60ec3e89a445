"""Strangers at a node's internal port: how many, for how long, and who goes when there are more."""

from __future__ import annotations

from actors.adapters.peers.caller import Caller, Service
from actors.adapters.peers.handshake import NONCE_BYTES, hello, session
from actors.adapters.peers.listener import HANDSHAKE_S, PEERS_MAX, STRANGERS_MAX, PeerListener
from actors.node_ports import PeerAnswer, PeerRequest
from tests.support.cable import End, alone
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

SECRET = b"s" * 64
NONCE = b"n" * NONCE_BYTES


class NoDesk:
    """Is never asked."""

    async def serve(self, request: PeerRequest, within_s: float) -> PeerAnswer:
        """Not here."""
        raise AssertionError


class Door:
    """A listener without a port."""

    def __init__(self, stage: Stage) -> None:
        self.service = Service("b", lambda: SECRET, NoDesk(), stage.supervisor, stage.clock.boottime)
        self.listener = PeerListener(self.service)

    def stranger(self) -> tuple[Caller, End]:
        """Somebody who has called."""
        caller = Caller(self.service, self.listener, NONCE)
        return caller, alone(caller)

    def peer(self) -> End:
        """Somebody who has proved itself."""
        caller, end = self.stranger()
        said = hello("a", "b", NONCE)
        caller.data_received(said.said)
        caller.data_received(session(SECRET, said, NONCE).dialler_proof)
        return end


@in_virtual_time
async def test_who_does_not_prove_itself_in_time_is_sent_away() -> None:
    """Whatever it has said by then; a peer stays."""
    async with Stage() as stage:
        door = Door(stage)
        peer = door.peer()
        (half, end), (_, silent) = door.stranger(), door.stranger()
        await passing(HANDSHAKE_S - 0.1)
        half.data_received(hello("a", "b", NONCE).said)
        assert not end.closed
        await passing(0.2)
        assert (end.closed, silent.closed, peer.closed) == (True, True, False)
        await passing(100.0)
        assert not peer.closed


@in_virtual_time
async def test_many_strangers_keep_no_peer_out() -> None:
    """The one who has waited longest makes room; peers are not counted among them."""
    async with Stage() as stage:
        door = Door(stage)
        peers = [door.peer() for _ in range(3)]
        strangers = [door.stranger()[1] for _ in range(STRANGERS_MAX)]
        await ticks(2)
        assert not any(end.closed for end in strangers)
        peers.append(door.peer())
        more = [door.stranger()[1] for _ in range(10)]
        await ticks(2)
        assert [end.closed for end in strangers[:12]] == [True] * 10 + [False] * 2
        assert not any(end.closed for end in (*strangers[10:], *more, *peers))


@in_virtual_time
async def test_peers_are_bounded_too() -> None:
    """A cluster that large needs another design."""
    async with Stage() as stage:
        door = Door(stage)
        peers = [door.peer() for _ in range(PEERS_MAX)]
        one_more = door.peer()
        await ticks(2)
        assert one_more.closed
        assert not any(end.closed for end in peers)
        peers[0].abort()
        await ticks(2)
        assert not door.peer().closed
