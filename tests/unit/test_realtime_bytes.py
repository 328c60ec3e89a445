"""Whatever a client sends: nothing is ever raised, and each mistake is an error frame or the last word.

The connection is the real one with its parser; only its transport is a list of bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.runtime.clock import ManualClock
from actors.runtime.supervisor import Supervisor
from router.realtime.centrifugo import CentrifugoSocket
from router.realtime.codes import SHUTDOWN, SLOW
from router.realtime.hall import Realtime
from router.realtime.limits import RealtimeLimits
from router.realtime.plain import PlainSocket
from router.realtime.socket import Socket
from tests.bench.channel_frames import walk
from tests.support.listeners import CLOSE, PONG, TEXT, RealtimeTallies, frame
from tests.support.memory_service import MemoryService

ALLOWED_CODES = {1000, 1001, 1002, 1007, 1009, 1011, 3001, 3008, 3012, 3013, 3501, 3502, 3509}


class Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.gone = False
        self.held = 0

    def write(self, data: bytes) -> None:
        """Keep it."""
        assert not self.gone
        self.written += data

    def set_write_buffer_limits(self, high: int) -> None:
        """Nothing here is slow by itself."""

    def get_write_buffer_size(self) -> int:
        """What a test says."""
        return self.held

    def close(self) -> None:
        """No more is written."""
        self.gone = True

    abort = close


class Rig:
    """A connection on a wire."""

    def __init__(self, make: Callable[[Realtime], Socket], **limits: Any) -> None:
        self.clock = ManualClock()
        self.supervisor = Supervisor(self.clock, lambda *_about: None, print)
        self.service = MemoryService()
        self.hall = Realtime(
            self.service, self.supervisor, self.clock, RealtimeTallies(), lambda: 0.0, RealtimeLimits(**limits)
        )
        self.complaints: list[Any] = []
        self.hall.complain = self._complained
        self.wire = Wire()
        self.connection = make(self.hall)
        self.connection.connection_made(cast(asyncio.Transport, self.wire))

    def _complained(self, context: dict[str, Any]) -> None:
        self.complaints.append(context)

    def heard(self) -> list[tuple[int, bytes]]:
        """Every frame that was written."""
        found = walk(self.wire.written)
        assert not found or found[-1].end == len(self.wire.written), "the last frame is not whole"
        return [(each.first & 0x0F, self.wire.written[each.payload : each.end]) for each in found]

    def told(self) -> list[Any]:
        """Every message of them."""
        return [msgspec.json.decode(payload) for opcode, payload in self.heard() if opcode == TEXT]


def plain(hall: Realtime) -> Socket:
    """A listener of `/ws`."""
    return PlainSocket(hall, "client", ["first"])


def centrifugo(hall: Realtime) -> Socket:
    """A Centrifugo client."""
    return CentrifugoSocket(hall, "client")


names = st.sampled_from(["a", "first", "$x", "buzon:x", "", "é" * 200])
channels = names | st.integers() | st.none()
positions = st.fixed_dictionaries({"epoch": st.sampled_from(["e1", ""]), "offset": st.integers(-1, 3)}) | st.text()
actions = st.fixed_dictionaries(
    {"action": st.sampled_from(["subscribe", "unsubscribe", "ping", "fly"])},
    optional={"channel": channels, "since": positions},
)
verbs = ["connect", "subscribe", "unsubscribe", "publish", "history", "presence", "presence_stats", "rpc", "ping"]
commands = st.fixed_dictionaries(
    {"id": st.integers(-1, 9)},
    optional={
        name: st.fixed_dictionaries(
            {}, optional={"channel": channels, "data": st.text(), "recover": st.booleans(), "limit": st.integers(-3, 3)}
        )
        for name in verbs
    },
)
json = st.lists(actions | commands, max_size=3).map(lambda each: b"\n".join(map(msgspec.json.encode, each)))
payloads = json | st.binary(max_size=200)
good_frames = st.builds(frame, st.just(TEXT) | st.just(2), payloads)
any_frames = st.builds(
    lambda opcode, payload, fin: frame(opcode, payload, fin=fin), st.integers(0, 15), payloads, st.booleans()
)
streams = st.lists(good_frames | any_frames | st.binary(max_size=20), max_size=8).map(b"".join)


@pytest.mark.parametrize("make", [plain, centrifugo])
@given(stream=streams, cuts=st.lists(st.integers(0, 2000), max_size=6))
@settings(max_examples=120, deadline=None)
def test_any_bytes(make: Callable[[Realtime], Socket], stream: bytes, cuts: list[int]) -> None:
    """However they are cut: what comes back is whole frames, and nothing follows the last word."""

    async def play() -> None:
        rig = Rig(make)
        at = 0
        for cut in [*sorted(cuts), len(stream)]:
            if not rig.wire.gone:
                rig.connection.data_received(stream[at:cut])
            at = max(at, cut)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        frames = rig.heard()
        assert {opcode for opcode, _ in frames} <= {TEXT, PONG, CLOSE}
        assert [opcode for opcode, _ in frames[:-1]].count(CLOSE) == 0
        assert rig.connection.closed == (bool(frames) and frames[-1][0] == CLOSE)
        if rig.connection.closed and len(frames[-1][1]) >= 2:
            code = int.from_bytes(frames[-1][1][:2], "big")
            assert code in ALLOWED_CODES or code >= 3000 or 1000 <= code <= 1014
        rig.told()
        assert rig.complaints == []
        rig.connection.connection_lost(None)
        await asyncio.sleep(0)
        assert rig.service.seats == rig.service.waiting == []
        assert len(rig.hall) == 0
        await rig.supervisor.stop()

    asyncio.run(play())


@given(payload=payloads)
@settings(max_examples=80, deadline=None)
def test_each_message_has_an_answer(payload: bytes) -> None:
    """On `/ws`, and the connection lives on."""

    async def play() -> None:
        rig = Rig(plain)
        before = len(rig.told())
        rig.connection.data_received(frame(TEXT, payload))
        assert len(rig.told()) > before
        assert not rig.connection.closed

    asyncio.run(play())


async def test_a_crash_of_ours_closes_the_connection_and_is_reported() -> None:
    """It is no mistake of the client."""
    rig = Rig(plain)

    def crash(*_about: object) -> None:
        raise RuntimeError("a bug")

    rig.service.attend = crash  # type: ignore[method-assign, assignment]  # a bug is planted
    rig.connection.data_received(frame(TEXT, b'{"action":"subscribe","channel":"b"}'))
    opcode, payload = rig.heard()[-1]
    assert (opcode, payload) == (CLOSE, (1011).to_bytes(2, "big") + b"internal error")
    assert [str(each["exception"]) for each in rig.complaints] == ["a bug"]


async def test_what_is_written_to_a_slow_reader() -> None:
    """Nothing is asked of its transport before it is crowded; then each block is weighed before it is written."""
    rig = Rig(plain, held_bytes_max=1000)
    rig.connection.send(b"\x81\x01x", 1)
    rig.connection.pause_writing()
    rig.wire.held = 900
    rig.connection.send(b"\x81\x01y", 1)
    assert not rig.connection.closed
    rig.connection.resume_writing()
    rig.connection.pause_writing()
    rig.wire.held = 998
    rig.connection.send(b"\x81\x01z", 1)
    assert rig.connection.closed
    assert rig.heard()[-1] == (CLOSE, (3008).to_bytes(2, "big") + b"slow")
    assert b"z" not in rig.wire.written


async def test_whoever_waits_for_room_is_woken() -> None:
    """By room, or by the end."""
    for wake in (Socket.resume_writing, lambda connection: connection.connection_lost(None)):
        rig = Rig(plain)
        rig.connection.pause_writing()
        waiting = asyncio.create_task(rig.connection.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        wake(rig.connection)
        await waiting


async def test_nothing_follows_the_last_word() -> None:
    """Whatever is still handed out to who has left."""
    rig = Rig(plain)
    rig.connection.end(SHUTDOWN)
    rig.connection.send(b"\x81\x01x", 1)
    rig.connection.end(SLOW)
    assert rig.heard()[-1] == (CLOSE, (3001).to_bytes(2, "big") + b"shutdown")
