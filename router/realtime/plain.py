"""Plain: the WebSocket of `/ws`: one JSON object a frame (the HTTP contract, section 6).

A channel is told as `subscribed`, then what was missed, then what is said; `offset` of `subscribed` is that of the last
message before those that follow. Each channel is a seat of its own, so all who listen to it share every frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from actors.channel_ports import Format, Joined, Places, Position, Publication
from actors.core.channel_names import name_fault
from router.edge.body import rejection
from router.edge.errors import BadInput
from router.realtime import frames
from router.realtime.codes import ALREADY_SUBSCRIBED, Fault, bad, fault_of, over_limit
from router.realtime.frames import quoted
from router.realtime.hall import Realtime
from router.realtime.socket import Malformed, Socket, check_message

NOTHING = Raw(b"")
OFFSET_MAX = 2**53
WAITING: Final = 0
"""It has not joined the channel yet."""
TOLD: Final = 1
"""It was told where it joins, and gets what it missed."""
JOINED: Final = 2

PONG = frames.text(b'{"type":"pong"}')


class Since(Struct, frozen=True, gc=False):
    """Where somebody stands in a channel."""

    epoch: str
    offset: Annotated[int, Meta(ge=0, le=OFFSET_MAX)]


class Action(Struct, frozen=True):
    """What a client sends. `since` is looked at when the channel is known."""

    action: str
    channel: str | None = None
    since: Raw = NOTHING


_decode_action = msgspec.json.Decoder(Action).decode
_decode_since = msgspec.json.Decoder(Since).decode


def message(name: str, publication: Publication) -> bytes:
    """A publication as clients are told it."""
    return b'{"type":"message","channel":%b,"id":%b,"offset":%d,"data":%b}' % (
        quoted(name),
        quoted(publication.id),
        publication.offset,
        frames.one_line(publication.data),
    )


def subscribed(name: str, position: Position, *, recovered: bool) -> bytes:
    """What comes next in a channel comes after this position."""
    return b'{"type":"subscribed","channel":%b,"epoch":%b,"offset":%d,"recovered":%b}' % (
        quoted(name),
        quoted(position.epoch),
        position.offset,
        b"true" if recovered else b"false",
    )


def start_of(joined: Joined) -> Position:
    """Where what was missed begins."""
    return Position(joined.position.epoch, joined.position.offset - len(joined.publications))


def _encode(name: str, _epoch: str, publication: Publication, _others: Places) -> bytes:
    return frames.text(message(name, publication))


FORMAT = Format("ws", _encode)


class PlainSocket(Socket):
    """A listener of `/ws`."""

    __slots__ = ("_channels",)

    def __init__(self, hall: Realtime, client: str, first: Sequence[str]) -> None:
        super().__init__(hall, client)
        self._channels: dict[str, int] = dict.fromkeys(first, WAITING)

    def started(self) -> None:
        """Join the channels of the query."""
        super().started()
        for name in list(self._channels):
            self._attend(name, None)

    # Guest.

    def admit(self, joined: Sequence[Joined]) -> None:
        """It has joined a channel."""
        blocks = []
        for each in joined:
            told = self._channels.get(each.name) == TOLD
            if not (told and each.recovered):
                blocks.append(frames.text(subscribed(each.name, start_of(each), recovered=each.recovered)))
            blocks += [frames.text(message(each.name, publication)) for publication in each.publications]
            self._channels[each.name] = JOINED
        if blocks:
            self.send(b"".join(blocks), len(blocks))

    def refuse(self, names: Sequence[str], error: Exception) -> None:
        """It could not join."""
        for name in names:
            self._channels.pop(name, None)
            self._fail(fault_of(error), "subscribe", name)

    def lost(self, name: str, position: Position, others: Places) -> None:
        """Nobody can say what came before this."""
        self.say(subscribed(name, position, recovered=False))

    async def caught_up(self, part: Joined, places: Places) -> None:
        """Write a part of what was missed."""
        if self.closed or part.name not in self._channels:
            return
        blocks = [frames.text(message(part.name, publication)) for publication in part.publications]
        if self._channels[part.name] == WAITING:
            self._channels[part.name] = TOLD
            blocks.insert(0, frames.text(subscribed(part.name, start_of(part), recovered=True)))
        self.send(b"".join(blocks), len(blocks))
        await self.room()

    # Socket.

    def leave_channels(self) -> None:
        """Give every seat up."""
        names, self._channels = self._channels, {}
        for name in names:
            self.hall.channels.leave(self, FORMAT, [name])

    def too_large(self, payload: bytes) -> None:
        """A frame over the limit."""
        self._fail(over_limit(f"a frame has at most {self.hall.limits.message_bytes_max} bytes"))

    def message(self, payload: bytes) -> None:
        """A frame."""
        try:
            check_message(payload)
            wanted = _decode_action(payload)
        except Malformed as error:
            self._fail(bad(str(error)))
        except msgspec.ValidationError as error:
            self._fail(bad(_detail(error, Action)))
        except (msgspec.DecodeError, RecursionError):
            self._fail(bad("the frame is not JSON"))
        else:
            self._act(wanted)

    def _act(self, wanted: Action) -> None:
        match wanted.action:
            case "ping":
                self.send(PONG, 1)
            case "subscribe" | "unsubscribe":
                fault = "is required" if wanted.channel is None else name_fault(wanted.channel)
                if wanted.channel is None or fault:
                    self._fail(bad(f"$.channel: {fault}"), wanted.action, wanted.channel)
                elif wanted.action == "subscribe":
                    self._subscribe(wanted.channel, wanted.since)
                else:
                    self._unsubscribe(wanted.channel)
            case _:
                self._fail(bad("$.action: must be one of subscribe, unsubscribe, ping"), None, wanted.channel)

    def _subscribe(self, name: str, since: Raw) -> None:
        try:
            position = _position(since)
        except msgspec.ValidationError as error:
            self._fail(bad(_detail(error, Since, "$.since")), "subscribe", name)
            return
        channels_max = self.hall.limits.channels_max
        if name in self._channels:
            self._fail(ALREADY_SUBSCRIBED, "subscribe", name)
        elif len(self._channels) >= channels_max:
            self._fail(over_limit(f"a connection has at most {channels_max} channels"), "subscribe", name)
        else:
            self._channels[name] = WAITING
            self._attend(name, position)

    def _attend(self, name: str, since: Position | None) -> None:
        self.hall.channels.attend(self, FORMAT, {name: since})

    def _unsubscribe(self, name: str) -> None:
        if name not in self._channels:
            self._fail(bad("not subscribed"), "unsubscribe", name)
            return
        self.hall.channels.leave(self, FORMAT, [name])
        del self._channels[name]
        self.say(b'{"type":"unsubscribed","channel":%b}' % quoted(name))

    def _fail(self, fault: Fault, action: str | None = None, channel: str | None = None) -> None:
        about: dict[str, object] = {"type": "error", "code": fault.code, "error": fault.message}
        if fault.temporary:
            about["temporary"] = True
        if action is not None:
            about["action"] = action
        if channel is not None and not name_fault(channel):
            about["channel"] = channel
        self.say(quoted(about))
        self.noted(fault)


def _position(since: Raw) -> Position | None:
    """Where a client stands. Nothing, and null, mean nowhere."""
    if bytes(since) in (b"", b"null"):
        return None
    decoded = _decode_since(since)
    return Position(decoded.epoch, decoded.offset)


def _detail(error: msgspec.ValidationError, target: object, top: str = "$") -> str:
    found: BadInput = rejection(error, target, top)
    return found.detail
