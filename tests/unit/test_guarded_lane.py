"""A guarded lane in virtual time: when its breaker opens, what is let through meanwhile, when it closes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.adapters.valkey.guarded_lane import LIMITS, GuardedLane
from actors.adapters.valkey.lane import Begun
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.wire import REPLY_DEADLINE_S, StoreRefused, Wire
from actors.ports import StoreAway
from tests.support.cable import End
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

SCRIPT = Script("any", b"return 1", "0" * 40)
HELD = "the store does not answer"


class Line(End):
    """A transport with nobody behind it."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Nobody."""


class Rig:
    """A lane whose connections come up when the test says so."""

    def __init__(self) -> None:
        self.ups = 0
        self.lane = GuardedLane(self._nobody, self._greet, self._up, lambda: 0.0)
        self.wire: Wire

    def open(self) -> None:
        """A connection was made and greeted."""
        self.wire = Wire(Line(), asyncio.get_running_loop())
        self.wire.ended.add_done_callback(self.lane._went_down)
        self.lane._wire = self.wire
        self.lane.up.set()
        self.lane._on_up()

    def ask(self) -> Begun:
        """Run a script."""
        return self.lane.script(SCRIPT, ("k",), ())

    def answer(self, reply: bytes = b":1\r\n") -> None:
        """The server answers the oldest question."""
        self.wire.data_received(reply)

    async def lose(self, count: int = 1) -> None:
        """So many scripts are under way when the connection breaks."""
        begun = [self.ask() for _ in range(count)]
        self.wire.end("it broke")
        await ticks()
        for each in begun:
            with pytest.raises(StoreAway, match="unknown"):
                await each

    async def opened_breaker(self) -> None:
        """Open, and the lane is up again; the one probe that comes with that has failed."""
        self.open()
        await self.lose(3)
        self.open()
        await self.lose()
        self.lane.up.set()  # as if the connection were there and the greeting had told nothing
        self.lane._wire = self.wire = Wire(Line(), asyncio.get_running_loop())
        self.wire.ended.add_done_callback(self.lane._went_down)

    def end(self) -> None:
        """The test is over."""
        self.wire.end("the test is over")

    def _up(self) -> None:
        self.ups += 1

    def _nobody(self) -> Any:
        raise AssertionError

    async def _greet(self, _connection: object) -> None:
        raise AssertionError


@in_virtual_time
async def test_three_lost_in_a_row_open_it() -> None:
    """Two do not; an answer in between starts the count anew; then callers are refused at once."""
    rig = Rig()
    rig.open()
    await rig.lose(2)
    rig.open()
    begun = rig.ask()
    rig.answer()
    assert await begun == 1
    await ticks()
    await rig.lose(2)
    rig.open()
    assert (await _answered(rig)) == 1
    await rig.opened_breaker()
    with pytest.raises(StoreAway, match=HELD):
        rig.ask()
    rig.end()


async def _answered(rig: Rig) -> object:
    begun = rig.ask()
    rig.answer()
    found: object = await begun
    await ticks()
    return found


@pytest.mark.parametrize("reply", [b"-OOM no memory\r\n", b"-ERR no\r\n", b"-BUSY a script\r\n"])
@in_virtual_time
async def test_a_server_that_refuses_is_alive(reply: bytes) -> None:
    """However often it does."""
    rig = Rig()
    rig.open()
    for _ in range(5):
        begun = rig.ask()
        rig.answer(reply)
        with pytest.raises((StoreAway, StoreRefused)):
            await begun
        await ticks()
    assert await _answered(rig) == 1
    rig.end()


@in_virtual_time
async def test_one_probe_at_a_time_and_longer_waits() -> None:
    """0.5 s after the second failure, then 1 s; never longer. A success lets everybody through."""
    rig = Rig()
    await rig.opened_breaker()
    await passing(2 * LIMITS.open_s_min - 0.01)
    with pytest.raises(StoreAway, match=HELD):
        rig.ask()
    await passing(0.02)
    probe = rig.ask()
    with pytest.raises(StoreAway, match=HELD):
        rig.ask()
    rig.answer()
    assert await probe == 1
    await ticks()
    assert [await _answered(rig) for _ in range(3)] == [1, 1, 1]
    rig.end()


@in_virtual_time
async def test_a_lane_that_comes_up_lets_a_probe_through_at_once() -> None:
    """The server has answered the greeting; one caller, not all of them, finds out whether it answers more."""
    rig = Rig()
    rig.open()
    await rig.lose(3)
    rig.open()
    assert rig.ups == 2
    probe = rig.ask()
    with pytest.raises(StoreAway, match=HELD):
        rig.ask()
    rig.answer()
    await probe
    await ticks()
    assert await _answered(rig) == 1
    rig.end()


@in_virtual_time
async def test_a_probe_whose_caller_went_away_is_one_all_the_same() -> None:
    """Its answer proves the server alive."""
    rig = Rig()
    await rig.opened_breaker()
    await passing(LIMITS.open_s_max)
    probe = asyncio.ensure_future(rig.ask())
    await ticks()
    probe.cancel()
    await ticks()
    with pytest.raises(StoreAway, match=HELD):
        rig.ask()
    rig.answer()
    second = rig.ask()
    rig.answer(b":2\r\n")
    assert await second == 2
    rig.end()


@in_virtual_time
async def test_a_hang_costs_a_deadline_and_no_more() -> None:
    """Those it catches wait a second; those that come later are refused at once, also when a connection is made anew
    and hangs as well."""
    rig = Rig()
    rig.open()
    caught = [rig.ask() for _ in range(3)]
    await passing(REPLY_DEADLINE_S + 0.01)
    for begun in caught:
        with pytest.raises(StoreAway, match="unknown"):
            await begun
    with pytest.raises(StoreAway, match="no reply within"):
        rig.ask()
    rig.open()
    rig.ask()
    with pytest.raises(StoreAway, match=HELD):
        rig.ask()
    rig.end()
