"""Centrifugo: the WebSocket of `/connection/websocket`, for the official client libraries of Centrifugo, in JSON.

Commands are lines of a frame; each has its answer by its id, in whatever order they are done, but publishing to a
channel keeps its order, and comes after joining it when that was asked for before. What a client missed is all in the
answer that subscribes it. Presence is counted, not listed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from secrets import token_hex

import msgspec
from msgspec import Struct

from actors.channel_ports import ChannelService, Format, Joined, Places, Position
from actors.core.channel_names import is_event_channel, name_fault
from router.__about__ import __version__
from router.edge.body import rejection
from router.realtime import commands, frames
from router.realtime.codes import (
    ABANDONED,
    ALREADY_SUBSCRIBED,
    DENIED,
    NOT_AVAILABLE,
    NOT_CONNECTED,
    STALE,
    TOO_MANY,
    UNRECOVERABLE,
    Fault,
    bad,
    fault_of,
    over_limit,
)
from router.realtime.commands import Command, History, Publish, Subscribe
from router.realtime.hall import Realtime
from router.realtime.socket import Malformed, Socket, check_message

FORMAT = Format("centrifugo", commands.push, whole=True)
HISTORY_MAX = 1000
"""Messages of one answer; there may be fewer, for their size."""


class Waiting(Struct, frozen=True, gc=False):
    """A subscribe that is not answered yet."""

    number: int
    asked: bool
    strict: bool


Held = tuple[Callable[[], Awaitable[bytes | Fault]], Callable[[bytes | Fault], None]]
"""Work, and what is to be done with its outcome."""


class CentrifugoSocket(Socket):
    """A connection of a Centrifugo client."""

    __slots__ = ("_channels", "_connected", "_held")

    ping = commands.PING

    def __init__(self, hall: Realtime, client: str) -> None:
        super().__init__(hall, client)
        self._connected = False
        self._channels: dict[str, Waiting | None] = {}
        """None: it has joined."""
        self._held: dict[str, list[Held]] = {}
        """What is published to a channel once it is known whether it joins."""

    def started(self) -> None:
        """Wait for the first command."""
        self.arm(self.hall.limits.connect_s)

    def on_due(self) -> None:
        """Ping, or close who has not said who it is."""
        if self._connected:
            super().on_due()
        else:
            self.end(STALE)

    # Guest.

    def admit(self, joined: Sequence[Joined]) -> None:
        """It has joined a channel."""
        for each in joined:
            waiting = self._channels.get(each.name)
            if waiting is None:
                continue
            if waiting.strict and waiting.asked and not each.recovered:
                # Not now: who is just being admitted cannot leave yet.
                self.hall.call_soon(self._turn_away, each.name, waiting.number)
                continue
            self._channels[each.name] = None
            body = commands.subscribed(
                each.position, each.publications, asked=waiting.asked, recovered=waiting.asked and each.recovered
            )
            self._answer(waiting.number, b"subscribe", body)
            self._go_on(each.name)

    def refuse(self, names: Sequence[str], error: Exception) -> None:
        """It could not join."""
        for name in names:
            waiting = self._channels.pop(name, None)
            if waiting is not None:
                self._answer(waiting.number, b"subscribe", fault_of(error))
                self._go_on(name)

    def lost(self, name: str, position: Position, others: Places) -> None:
        """Nobody can say what came before this: the client subscribes again and is told so."""
        if name not in self._channels:
            return
        waiting = self._channels.pop(name)
        self.hall.channels.leave(self, FORMAT, [name])
        if waiting is None:
            self.say(commands.lost(name))
        else:
            self._answer(waiting.number, b"subscribe", UNRECOVERABLE)
            self._go_on(name)

    async def caught_up(self, part: Joined, places: Places) -> None:
        """Never called: the format is whole."""

    # Socket.

    def leave_channels(self) -> None:
        """Give every seat up."""
        names, self._channels = self._channels, {}
        for name in names:
            self.hall.channels.leave(self, FORMAT, [name])
            self._go_on(name)

    def too_large(self, payload: bytes) -> None:
        """A frame over the limit."""
        fault = over_limit(f"a frame has at most {self.hall.limits.message_bytes_max} bytes")
        for line in payload.splitlines():
            if not self.closed:
                self._fail(commands.number_of(line), fault)

    def message(self, payload: bytes) -> None:
        """A frame of commands."""
        for at, line in enumerate(payload.split(b"\n")):
            if at and not self.counts():
                return
            if line.strip():
                self._line(line)
            if self.closed:
                return

    def _line(self, line: bytes) -> None:
        try:
            check_message(line)
            command = commands.decode(line)
        except Malformed as error:
            self._fail(commands.number_of(line), bad(str(error)))
        except msgspec.ValidationError as error:
            self._fail(commands.number_of(line), bad(rejection(error, Command).detail))
        except (msgspec.DecodeError, RecursionError):
            self._fail(commands.number_of(line), bad("the command is not JSON"))
        else:
            self._act(command)

    def _act(self, command: Command) -> None:
        number = command.id
        if not self._connected:
            if command.connect is None:
                self.end(NOT_CONNECTED)
            else:
                self._connect(number)
        elif command.publish is not None:
            self._publish(number, command.publish)
        elif command.subscribe is not None:
            self._subscribe(number, command.subscribe)
        elif command.unsubscribe is not None:
            self._unsubscribe(number, command.unsubscribe.channel)
        elif command.history is not None:
            self._ask_history(number, command.history)
        elif command.presence_stats is not None:
            self._ask_presence(number, command.presence_stats.channel)
        elif command.ping != commands.NOTHING:
            self._answer(number, b"ping", b"{}")
        elif command.connect is not None:
            self._fail(number, bad("already connected"))
        elif number or _is_something(command):
            self._fail(number, NOT_AVAILABLE if _is_something(command) else bad("not a command"))

    def _connect(self, number: int) -> None:
        self._connected = True
        limits = self.hall.limits
        self.arm(limits.ping_s)
        body = b'{"client":"%b","version":"buzon %b","ping":%d,"pong":true}' % (
            token_hex(16).encode(),
            __version__.encode(),
            max(1, round(limits.ping_s)),
        )
        self._answer(number, b"connect", body)

    def _subscribe(self, number: int, wanted: Subscribe) -> None:
        name, channels_max = wanted.channel, self.hall.limits.channels_max
        if fault := name_fault(name):
            self._fail(number, bad(f"channel: {fault}"))
        elif name in self._channels:
            self._fail(number, ALREADY_SUBSCRIBED)
        elif len(self._channels) >= channels_max:
            self._fail(number, over_limit(f"a connection has at most {channels_max} channels"))
        elif wanted.tf != commands.NOTHING:
            self._fail(number, NOT_AVAILABLE)
        else:
            strict = bool(wanted.flag & commands.REJECT_UNRECOVERED)
            self._channels[name] = Waiting(number, wanted.recover, strict)
            since = Position(wanted.epoch, wanted.offset) if wanted.recover else None
            self.hall.channels.attend(self, FORMAT, {name: since})

    def _unsubscribe(self, number: int, name: str) -> None:
        if name in self._channels:
            self.hall.channels.leave(self, FORMAT, [name])
            waiting = self._channels.pop(name)
            if waiting is not None:
                self._answer(waiting.number, b"subscribe", ABANDONED)
                self._go_on(name)
        self._answer(number, b"unsubscribe", b"{}")

    def _turn_away(self, name: str, number: int) -> None:
        waiting = self._channels.get(name)
        if waiting is not None and waiting.number == number:
            del self._channels[name]
            self.hall.channels.leave(self, FORMAT, [name])
            self._answer(number, b"subscribe", UNRECOVERABLE)
            self._go_on(name)

    def _publish(self, number: int, wanted: Publish) -> None:
        if fault := name_fault(wanted.channel):
            self._fail(number, bad(f"channel: {fault}"))
        elif is_event_channel(wanted.channel):
            self._fail(number, DENIED)
        else:
            data = frames.one_line(bytes(wanted.data))
            work = partial(_published, self.hall.channels, wanted.channel, data)
            answer = partial(self._answer, number, b"publish")
            if self._channels.get(wanted.channel) is None:
                self.run(work, answer)
            elif sum(map(len, self._held.values())) >= self.hall.limits.jobs_max:
                answer(TOO_MANY)
            else:
                self._held.setdefault(wanted.channel, []).append((work, answer))

    def _go_on(self, name: str) -> None:
        for work, answer in self._held.pop(name, ()):
            self.run(work, answer)

    def _ask_history(self, number: int, wanted: History) -> None:
        if fault := name_fault(wanted.channel):
            self._fail(number, bad(f"channel: {fault}"))
        else:
            self.run(partial(_history, self.hall.channels, wanted), partial(self._answer, number, b"history"))

    def _ask_presence(self, number: int, name: str) -> None:
        if fault := name_fault(name):
            self._fail(number, bad(f"channel: {fault}"))
        else:
            answer = partial(self._answer, number, b"presence_stats")
            self.run(partial(_presence, self.hall.channels, name), answer)

    def _answer(self, number: int, name: bytes, outcome: bytes | Fault) -> None:
        if isinstance(outcome, Fault):
            self._fail(number, outcome)
        elif number:
            self.say(commands.reply(number, name, outcome))

    def _fail(self, number: int, fault: Fault) -> None:
        self.say(commands.error(number, fault))
        self.noted(fault)


def _is_something(command: Command) -> bool:
    """Whether it is a command that the router does not know how to do."""
    unknown = (command.presence, command.send, command.rpc, command.refresh, command.sub_refresh)
    return any(each != commands.NOTHING for each in unknown)


async def _published(channels: ChannelService, name: str, data: bytes) -> bytes:
    await channels.publish(name, data)
    return b"{}"


async def _presence(channels: ChannelService, name: str) -> bytes:
    """The router does not tell users apart: each connection counts as one."""
    (count,) = await channels.subscribers([name])
    return frames.quoted({"num_clients": count, "num_users": count})


async def _history(channels: ChannelService, wanted: History) -> bytes | Fault:
    since = None if wanted.since is None else Position(wanted.since.epoch, wanted.since.offset)
    limit = HISTORY_MAX if wanted.limit < 0 else min(wanted.limit, HISTORY_MAX)
    if wanted.reverse and limit:
        top = (await channels.history(wanted.channel, None, 1)).top
        last = top.offset if since is None else min(since.offset - 1, top.offset)
        found = await channels.history(wanted.channel, Position(top.epoch, max(0, last - limit)), limit)
        publications = tuple(each for each in reversed(found.publications) if each.offset <= last)
    else:
        found = await channels.history(wanted.channel, since, max(limit, 1))
        publications = found.publications[:limit]
    if since is not None and since.epoch and since.epoch != found.top.epoch:
        return UNRECOVERABLE
    return commands.history(found, publications)
