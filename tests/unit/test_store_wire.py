"""A wire in virtual time: when it is thrown away, and that nobody waits on it for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.adapters.valkey.lane import Lane
from actors.adapters.valkey.wire import REPLY_DEADLINE_S, StoreRefused, Wire
from actors.ports import StoreAway
from tests.support.cable import End
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time


class Line(End):
    """A transport with nobody behind it; the server's answers are the test's to give."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Nobody."""


def opened() -> Wire:
    """A wire that was just greeted."""
    return Wire(Line(), asyncio.get_running_loop())


def nobody() -> Any:
    """Nothing is dialled here."""
    raise AssertionError


async def nothing(_connection: object) -> None:
    """Nor greeted."""


@in_virtual_time
async def test_a_connection_that_ended_before_the_wire_took_over_is_noticed_at_the_first_word() -> None:
    """Nobody else says so: the news went to whoever had it before. The caller need not wait for the deadline."""
    line = Line()
    line.close()
    wire = Wire(line, asyncio.get_running_loop())
    with pytest.raises(StoreAway, match="closed"):
        await wire.send(("PING",))
    assert wire.ended.done()


@pytest.mark.parametrize(
    "reply", ["READONLY You can't write against a read only replica.", "LOADING Redis is loading", "MASTERDOWN Link"]
)
@in_virtual_time
async def test_a_server_that_must_be_looked_at_again_is_spoken_to_no_more(reply: str) -> None:
    """What the error says is true of the server: everybody on the wire is told, and the next one is greeted anew."""
    wire = opened()
    first, second = wire.send(("SET", "a", 1)), wire.send(("SET", "b", 1))
    wire.data_received(f"-{reply}\r\n".encode())
    assert wire.ended.done()
    for each in (first, second):
        with pytest.raises(StoreAway, match=reply.split(maxsplit=1)[0]):
            await each


@pytest.mark.parametrize(("reply", "raised"), [("OOM command not allowed", StoreAway), ("WRONGTYPE x", StoreRefused)])
@in_virtual_time
async def test_an_error_of_one_command_is_its_callers_alone(reply: str, raised: type[Exception]) -> None:
    """The wire goes on."""
    wire = opened()
    first, second = wire.send(("SET", "a", 1)), wire.send(("SET", "b", 1))
    wire.data_received(f"-{reply}\r\n+OK\r\n".encode())
    with pytest.raises(raised, match=reply):
        await first
    assert await second in (b"OK", "OK")
    assert not wire.ended.done()
    wire.end("the test is over")


@in_virtual_time
async def test_who_is_told_may_ask_again_at_once() -> None:
    """From within: the next command waits its turn, and replies that came along find their callers."""
    wire = opened()
    heard: list[object] = []

    def again(reply: object) -> None:
        heard.append(reply)
        wire.ask(("GET", "c"), heard.append)

    wire.ask(("GET", "a"), again)
    wire.ask(("GET", "b"), heard.append)
    wire.data_received(b":1\r\n:2\r\n")
    assert heard == [1, 2]
    wire.data_received(b":3\r\n")
    assert heard == [1, 2, 3]
    wire.end("the test is over")


@in_virtual_time
async def test_who_is_told_may_end_the_wire() -> None:
    """Everybody behind it is told that the outcome is unknown, also whoever asks meanwhile; nobody twice."""
    wire = opened()
    heard: list[object] = []
    wire.ask(("GET", "a"), lambda _reply: wire.end("enough"))
    wire.ask(("GET", "b"), heard.append)
    wire.data_received(b":1\r\n:2\r\n")
    assert [str(each) for each in heard] == ["the outcome is unknown: enough"]


@in_virtual_time
async def test_one_who_crashes_at_the_end_takes_no_other_s_news_away() -> None:
    """Whoever it was that ended the wire hears of it."""
    wire = opened()
    heard: list[object] = []

    def hopeless(_reply: object) -> None:
        raise ZeroDivisionError

    wire.ask(("GET", "a"), hopeless)
    wire.ask(("GET", "b"), heard.append)
    last = wire.send(("GET", "c"))
    with pytest.raises(ZeroDivisionError):
        wire.end("enough")
    assert [str(each) for each in heard] == ["the outcome is unknown: enough"]
    with pytest.raises(StoreAway, match="enough"):
        await last


@in_virtual_time
async def test_a_late_reply_ends_the_wire() -> None:
    """A hanging server costs a caller this long and no longer; who asked later is told at the same time."""
    wire = opened()
    first = wire.send(("GET", "a"))
    await passing(REPLY_DEADLINE_S / 2)
    wire.data_received(b"$-1\r\n")
    assert await first is None
    second = wire.send(("GET", "a"))
    await passing(REPLY_DEADLINE_S / 2)
    third = wire.send(("GET", "a"))
    await passing(REPLY_DEADLINE_S / 2 - 0.01)
    assert not wire.ended.done()
    await passing(0.02)
    assert wire.ended.done()
    for each in (second, third):
        assert each.done()
        with pytest.raises(StoreAway, match="no reply within"):
            await each


@in_virtual_time
async def test_a_reply_that_nobody_asked_for_ends_the_wire() -> None:
    """Its place in the stream is lost: what comes next might be given to the wrong caller."""
    wire = opened()
    wire.data_received(b"+OK\r\n")
    assert wire.ended.done()


@in_virtual_time
async def test_who_waits_on_a_wire_that_ends_is_told() -> None:
    """At once, each of them; a caller that went away before is no error."""
    wire = opened()
    first, gone, last = (wire.send(("GET", name)) for name in "abc")
    gone.cancel()
    wire.connection_lost(None)
    for each in (first, last):
        assert each.done()
        with pytest.raises(StoreAway, match="the outcome is unknown: the store closed the connection"):
            await each


@in_virtual_time
async def test_a_lane_refuses_calls_from_the_moment_its_wire_has_ended() -> None:
    """Also in the tick in which that happened, when the lane itself has not been told yet: nobody would answer."""
    lane = Lane(nobody, nothing, lambda: None, lambda: 0.0)
    wire = lane._wire = opened()
    answered = lane.call("PING")
    wire.data_received(b"+PONG\r\n")
    await answered
    wire.end("it broke")
    with pytest.raises(StoreAway, match=lane.why_down):
        lane.call("PING")
