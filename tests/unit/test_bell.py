"""The bell's messages: what is rung comes out as it went in, and nothing else is ever a hint."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.adapters.valkey.bell import (
    AHEAD_MS_MAX,
    HINTS_MAX,
    MESSAGE_BYTES_MAX,
    ValkeyBell,
    channel,
    decode_hints,
    encode_hints,
)
from actors.core.ids import derived_delivery_id, derived_task_id
from actors.node_ports import Hint, Look
from actors.ports import DueBatch, Ready, StoreAway
from tests.support.doubles import Stage, Tally
from tests.support.virtual_time import in_virtual_time, ticks

KID = "MxlPx4dF16j3Fvb741Gj6w"
DUE = DueBatch(51, KID, 1_800_000_000_000, 300)
READY = Ready(7, derived_delivery_id(7, "x"), "a.example:443", 0)

partitions = st.integers(0, 255)
hints: st.SearchStrategy[Hint] = st.one_of(
    st.builds(
        lambda partition, seed, host, ms: Ready(partition, derived_delivery_id(partition, seed), host, ms),
        *(partitions, st.text(alphabet="abc"), st.text(max_size=100), st.integers(0, AHEAD_MS_MAX)),
    ),
    st.builds(
        lambda partition, seed, ms: Ready(partition, derived_task_id(partition, seed), "evolution:demo", ms),
        *(partitions, st.text(alphabet="abc"), st.integers(0, AHEAD_MS_MAX)),
    ),
    st.builds(DueBatch, partitions, st.just(KID), st.integers(1, 2**53), st.integers(0, AHEAD_MS_MAX)),
    st.builds(Look),
)


@given(st.lists(hints, max_size=20))
def test_what_is_rung_comes_out(rung: list[Hint]) -> None:
    """In its order."""
    assert list(decode_hints(encode_hints(rung))) == rung


@given(st.binary(max_size=300))
def test_garbage_is_no_hint(garbage: bytes) -> None:
    """And no error. By chance it may spell hints; those have the bounds of hints."""
    for hint in decode_hints(garbage):
        assert isinstance(hint, Look) or 0 <= hint.partition <= 255


ABSURD: dict[str, object] = {
    "no list": 7,
    "text": "ring",
    "an unknown kind": [[4, 1]],
    "no partition": [[2, 256, KID, 5, 0]],
    "a negative partition": [[2, -1, KID, 5, 0]],
    "another kid": [[2, 1, "x", 5, 0]],
    "no instant": [[2, 1, KID, 0, 0]],
    "after the end of time": [[2, 1, KID, 2**60, 0]],
    "too far ahead": [[2, 1, KID, 5, AHEAD_MS_MAX + 1]],
    "before now": [[2, 1, KID, 5, -1]],
    "no delivery": [[1, "dlv_x", "a.example", 0]],
    "another's delivery": [[1, "msg_" + "0" * 34, "a.example", 0]],
    "a long host": [[1, READY.delivery_id, "x" * 10_000, 0]],
    "a host of another kind": [[1, READY.delivery_id, 7, 0]],
    "too many": [[3]] * (HINTS_MAX + 1),
    "one bad among good": [[3], [4]],
}


@pytest.mark.parametrize("kind", ABSURD)
def test_what_no_node_rings_is_no_hint(kind: str) -> None:
    """The whole message is ignored."""
    assert list(decode_hints(msgspec.msgpack.encode(ABSURD[kind]))) == []


def test_a_huge_message_is_not_looked_at() -> None:
    """Though all of it are hints; nor one that nests without end."""
    large = [Ready(7, READY.delivery_id, "é" * 512, 0)] * HINTS_MAX
    assert len(encode_hints(large)) > MESSAGE_BYTES_MAX
    assert list(decode_hints(encode_hints(large))) == []
    assert len(decode_hints(encode_hints(large[: HINTS_MAX // 4]))) == HINTS_MAX // 4
    assert list(decode_hints(b"\x91" * 100_000)) == []


class Published:
    """A lane that notes what is sent, or is down."""

    def __init__(self) -> None:
        self.commands: list[tuple[Any, ...]] = []
        self.down = False

    def call(self, *command: Any) -> asyncio.Future[Any]:
        """Lane."""
        if self.down:
            raise StoreAway("down")
        self.commands.append(command)
        return asyncio.get_running_loop().create_future()


@in_virtual_time
async def test_the_hints_of_a_tick_leave_in_one_message_a_node() -> None:
    """In order; the next tick's in the next."""
    async with Stage():
        lane, rings = Published(), Tally()
        bell = ValkeyBell(lane.call, rings)
        for node, hint in (("b", READY), ("c", Look()), ("b", DUE)):
            bell.ring(node, hint)
        assert lane.commands == []
        await ticks(2)
        bell.ring("b", Look())
        await ticks(2)
        assert lane.commands == [
            ("PUBLISH", "buzon:bell:b", encode_hints([READY, DUE])),
            ("PUBLISH", channel("c"), encode_hints([Look()])),
            ("PUBLISH", channel("b"), encode_hints([Look()])),
        ]
        assert rings.value == 4


@in_virtual_time
async def test_a_flood_of_hints_is_cut_off() -> None:
    """The sweep finds the rest."""
    async with Stage():
        lane, rings = Published(), Tally()
        bell = ValkeyBell(lane.call, rings)
        for _ in range(3 * HINTS_MAX):
            bell.ring("b", READY)
        await ticks(2)
        [(_, _, message)] = lane.commands
        assert len(decode_hints(message)) == HINTS_MAX
        assert rings.value == HINTS_MAX


@in_virtual_time
async def test_a_store_that_is_away_hears_nothing_and_nothing_is_kept() -> None:
    """No error, no queue; what is rung afterwards goes out."""
    async with Stage():
        lane, rings = Published(), Tally()
        lane.down = True
        bell = ValkeyBell(lane.call, rings)
        bell.ring("b", READY)
        await ticks(2)
        lane.down = False
        bell.ring("b", DUE)
        await ticks(2)
        assert lane.commands == [("PUBLISH", "buzon:bell:b", encode_hints([DUE]))]
        assert rings.value == 1
