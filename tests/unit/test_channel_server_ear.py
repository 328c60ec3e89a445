"""One server's ear, its server played by the test: who hears what is still on its way, and when it is told so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from hiredis import Reader

from actors.adapters.valkey.channel_hearing import Hearing
from actors.adapters.valkey.channel_server_ear import (
    SUBSCRIPTIONS_MAX,
    UNDER_WAY_MAX,
    EarHooks,
    ServerEar,
    Subscription,
)
from actors.adapters.valkey.wire import Wire
from tests.support.channel_store import Noted
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_store_wire import Line, nobody, nothing

PONG = b"+PONG\r\n"


class Played:
    """An ear on a connection whose other end is the test."""

    def __init__(self) -> None:
        self.noted = Noted()
        hooks = EarHooks()
        hooks.hears = self.noted
        self.ear = ServerEar(nobody, nothing, lambda: 0.0, hooks)
        self._line = Line()
        self._wire = Wire(self._line, asyncio.get_running_loop(), self.ear.lane.on_push)
        self.ear.lane._wire = self._wire
        self.ear.lane.up.set()
        self.ear._opened()

    def listen(self, name: str) -> None:
        """Listen to a channel and the one beside it."""
        hearing = Hearing(name, self.noted)
        self.ear.listen(Subscription(name, {name.encode(): hearing.plain, f"side:{name}".encode(): hearing.side}))

    async def sent(self) -> list[list[bytes]]:
        """The commands since the last look."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reader = Reader()
        reader.feed(b"".join(self._line.sent))
        self._line.sent.clear()
        return list(iter(reader.gets, False))

    def says(self, *parts: tuple[bytes, bytes, bytes | int] | bytes) -> None:
        """The server pushes this; bytes are a reply."""
        self._wire.data_received(b"".join(part if isinstance(part, bytes) else _push(*part) for part in parts))

    def end(self) -> None:
        """The connection is over."""
        self._wire.end("the test")
        self.ear._ended()


@contextmanager
def played() -> Iterator[Played]:
    """An ear that is ended with the test."""
    ear = Played()
    try:
        yield ear
    finally:
        ear.end()


def _push(kind: bytes, channel: bytes, said: bytes | int) -> bytes:
    last = b":%d\r\n" % said if isinstance(said, int) else b"$%d\r\n%s\r\n" % (len(said), said)
    return b">3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(kind), kind, len(channel), channel) + last


TAKEN = ((b"subscribe", b"a", 2), (b"subscribe", b"side:a", 3))


@in_virtual_time
async def test_a_channel_is_heard_once_the_server_has_answered_what_came_behind() -> None:
    """Both of its channels in one command; then a ping."""
    with played() as ear:
        ear.listen("a")
        assert await ear.sent() == [[b"SUBSCRIBE", b"buzon:awake", b"a", b"side:a"], [b"PING"]]
        ear.says(*TAKEN, (b"message", b"side:a", b"m|one"))
        await ear.sent()
        assert ear.noted.told == [("marked", "a", "one")]
        ear.says(PONG)
        await ear.sent()
        assert ear.noted.told[1:] == [("listening", "a")]
        assert ear.noted.times_opened == 1


@in_virtual_time
async def test_half_a_message_of_before_is_nobodys() -> None:
    """Its other half went to whoever left, and alone it would pass for a foreign one."""
    with played() as ear:
        ear.listen("a")
        await ear.sent()
        ear.says(*TAKEN, PONG, (b"message", b"side:a", b"p|e|1|3|id"))
        await ear.sent()
        ear.ear.leave("a")
        ear.listen("a")
        assert await ear.sent() == [[b"UNSUBSCRIBE", b"a", b"side:a"], [b"SUBSCRIBE", b"a", b"side:a"], [b"PING"]]
        ear.says((b"message", b"a", b"one"))
        assert ear.noted.told == [("listening", "a")]
        ear.says((b"unsubscribe", b"a", 1), *TAKEN, (b"message", b"a", b"two"), PONG)
        await ear.sent()
        assert ear.noted.told[1:] == [("foreign", "a", b"two"), ("listening", "a")]


@in_virtual_time
async def test_an_answer_for_whoever_left_is_not_told_to_whoever_came() -> None:
    """It is about the subscription before."""
    with played() as ear:
        ear.listen("a")
        await ear.sent()
        ear.ear.leave("a")
        await ear.sent()
        ear.listen("a")
        ear.says(*TAKEN, PONG)
        await ear.sent()
        assert ear.noted.told == []
        ear.says((b"unsubscribe", b"a", 1), *TAKEN, PONG)
        await ear.sent()
        assert ear.noted.told == [("listening", "a")]


@in_virtual_time
async def test_so_many_commands_are_under_way_at_a_time() -> None:
    """A server that is slow is not asked for everything at once: no answer waits for all of it."""
    with played() as ear:
        names = [f"{number:05}" for number in range(SUBSCRIPTIONS_MAX * (UNDER_WAY_MAX + 1))]
        for name in names:
            ear.listen(name)
        assert [command[0] for command in await ear.sent()] == [b"SUBSCRIBE", b"PING"] * UNDER_WAY_MAX
        ear.says(PONG)
        assert [command[0] for command in await ear.sent()] == [b"SUBSCRIBE", b"PING"]
        assert len(ear.noted.heard) == SUBSCRIPTIONS_MAX - 1
        for _ in range(UNDER_WAY_MAX):
            ear.says(PONG)
        assert [command[0] for command in await ear.sent()] == [b"SUBSCRIBE", b"PING"]
        ear.says(PONG)
        await ear.sent()
        assert ear.noted.heard == set(names)


@in_virtual_time
async def test_when_the_connection_ends_only_those_are_told_that_were_listening() -> None:
    """The others still wait."""
    with played() as ear:
        ear.listen("a")
        await ear.sent()
        ear.says(*TAKEN, PONG)
        ear.listen("b")
        await ear.sent()
        ear.end()
        assert ear.noted.told == [("listening", "a"), ("deaf", "a")]
