"""Commands: what a Centrifugo client sends, and what it is answered (protocol version 2, in JSON). Pure.

Only what the router acts on has fields here; the rest is passed over. Messages are spliced in as they were published.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct

from actors.channel_ports import Places, Position, Publication, Recalled
from router.realtime import frames
from router.realtime.codes import Fault
from router.realtime.frames import quoted

NOTHING = Raw(b"")
"""A field that is not there."""
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]
REJECT_UNRECOVERED = 2
"""A flag of subscribe: rather an error than a subscription that has missed something."""
LOST_CODE, LOST_REASON = 2500, "insufficient state"
"""A client that is told this subscribes again by itself."""
PING = frames.text(b"{}")


class Connect(Struct, frozen=True):
    """The first command. Nothing of it matters here yet."""


class Subscribe(Struct, frozen=True):
    """Listen to a channel; with `recover`, from a position on."""

    channel: str
    recover: bool = False
    epoch: str = ""
    offset: Offset = 0
    flag: int = 0
    tf: Raw = NOTHING


class OfChannel(Struct, frozen=True):
    """What is about a channel and nothing else."""

    channel: str


class Publish(Struct, frozen=True):
    """Say something."""

    channel: str
    data: Raw


class StreamPosition(Struct, frozen=True):
    """A place in a channel's stream."""

    offset: Offset = 0
    epoch: str = ""


class History(Struct, frozen=True):
    """Read a stream: up to `limit` messages, none for 0, as many as may be for -1."""

    channel: str
    limit: Annotated[int, Meta(ge=-1, le=2**31 - 1)] = 0
    since: StreamPosition | None = None
    reverse: bool = False


class Command(Struct, frozen=True):
    """One command, or (without any) an answer to a ping."""

    id: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    connect: Connect | None = None
    subscribe: Subscribe | None = None
    unsubscribe: OfChannel | None = None
    publish: Publish | None = None
    history: History | None = None
    presence: Raw = NOTHING
    presence_stats: OfChannel | None = None
    ping: Raw = NOTHING
    send: Raw = NOTHING
    rpc: Raw = NOTHING
    refresh: Raw = NOTHING
    sub_refresh: Raw = NOTHING


class Numbered(Struct, frozen=True):
    """What is wanted of a command that is wrong."""

    id: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0


decode = msgspec.json.Decoder(Command).decode
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""Half of a character: JavaScript writes it, no decoder takes it."""
_decode_numbered = msgspec.json.Decoder(Numbered).decode


def number_of(line: bytes) -> int:
    """The id of a command that is wrong, if only in its characters; 0 when it has none."""
    try:
        return _decode_numbered(_SURROGATE.sub(r"\\u0020", line.decode("utf-8", "replace"))).id
    except (msgspec.DecodeError, RecursionError):
        return 0


def reply(number: int, name: bytes, body: bytes) -> bytes:
    """An answer."""
    return b'{"id":%d,"%b":%b}' % (number, name, body)


def error(number: int, fault: Fault) -> bytes:
    """An answer that says what is wrong."""
    about: dict[str, object] = {"code": fault.code, "message": fault.message}
    if fault.temporary:
        about["temporary"] = True
    body = quoted(about)
    return b'{"id":%d,"error":%b}' % (number, body) if number else b'{"error":%b}' % body


def publication(of: Publication) -> bytes:
    """A message."""
    return b'{"data":%b,"offset":%d}' % (frames.one_line(of.data), of.offset)


def subscribed(position: Position, publications: tuple[Publication, ...], *, asked: bool, recovered: bool) -> bytes:
    """The answer to subscribe. Its offset is where the missed messages begin: each moves the client on."""
    start = position.offset - len(publications)
    body = b'{"recoverable":true,"positioned":true,"epoch":%b,"offset":%d' % (quoted(position.epoch), start)
    if asked:
        body += b',"was_recovering":true'
    if recovered:
        body += b',"recovered":true'
    if publications:
        body += b',"publications":[%b]' % b",".join(map(publication, publications))
    return body + b"}"


def history(recalled: Recalled, publications: tuple[Publication, ...]) -> bytes:
    """The answer to history."""
    return b'{"epoch":%b,"offset":%d,"publications":[%b]}' % (
        quoted(recalled.top.epoch),
        recalled.top.offset,
        b",".join(map(publication, publications)),
    )


def lost(name: str) -> bytes:
    """Tell a client that it has missed something for good."""
    return b'{"push":{"channel":%b,"unsubscribe":{"code":%d,"reason":"%b"}}}' % (
        quoted(name),
        LOST_CODE,
        LOST_REASON.encode(),
    )


def push(name: str, _epoch: str, of: Publication, _others: Places) -> bytes:
    """A frame for everybody who listens to a channel."""
    return frames.text(b'{"push":{"channel":%b,"pub":%b}}' % (quoted(name), publication(of)))
