"""What is published to the channels, the frames that come of it, and whether a subscriber got what it should. Pure.

A message is 100 bytes of JSON with its number and the time at which it was due to be sent. Whatever the server, a
subscriber gets the same bytes: one that only passes bodies on is sent the whole text of the node's frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import Struct

Kind: TypeAlias = Literal["node", "plain"]
"""Who makes the frame of a publication: the server, or whoever publishes."""
PATH = "/api/queue/publish"
MESSAGE, CLOSE, PING = 0x81, 0x88, 0x89
"""First bytes of frames: a whole text message, a close, a ping."""
PONG = b"\x8a\x80\x00\x00\x00\x00"
AT = b'"at":"'
AT_CHARACTERS = 15
MESSAGE_BYTES = 100
DATA = '{"at":"%015.6f","n":"%08d","pad":"%s"}'
PAD = "x" * (MESSAGE_BYTES - len(DATA % (0, 0, "")))
FRAME = '{"type":"message","channel":"%s","id":"0190c0de-0000-7000-8000-%012d","offset":%d,"data":%s}'
SHORT_MAX, MEDIUM = 125, 126


class Frame(NamedTuple):
    """Where a whole frame lies in the bytes it was found in, and its first byte."""

    first: int
    at: int
    payload: int
    end: int


def walk(data: bytes) -> list[Frame]:
    """The whole frames of a server at the start of `data`; what follows the last is the start of another."""
    frames: list[Frame] = []
    at, size = 0, len(data)
    while at + 2 <= size:
        length, payload = data[at + 1], at + 2
        if length > SHORT_MAX:
            payload += 2 if length == MEDIUM else 8
            if payload > size:
                break
            length = int.from_bytes(data[at + 2 : payload], "big")
        if payload + length > size:
            break
        frames.append(Frame(data[at], at, payload, payload + length))
        at = payload + length
    return frames


def text_frame(payload: bytes) -> bytes:
    """A server's frame of one text message of up to 64 KiB."""
    size = len(payload)
    head = bytes((MESSAGE, size)) if size <= SHORT_MAX else bytes((MESSAGE, MEDIUM)) + size.to_bytes(2, "big")
    return head + payload


def upgrade(port: int, channels: Sequence[str]) -> bytes:
    """The request that opens a subscriber's connection."""
    return (
        f"GET /ws?channels={','.join(channels)} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def publication(kind: Kind, port: int, channel: str, pad: str = PAD) -> Callable[[int, float], bytes]:
    """A function from a message's number and the time it is due to the request that publishes it."""
    query = "" if kind == "node" else f"?channel={channel}"
    head = (
        f"POST {PATH}{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    )

    def build(number: int, at: float) -> bytes:
        data = DATA % (at, number, pad)
        if kind == "node":
            body = f'{{"channel":"{channel}","message":{data}}}'
        else:
            body = FRAME % (channel, number, number + 1, data)
        return (head % (len(body), body)).encode()

    return build


def sent_times(block: bytes) -> list[float]:
    """When the messages of these frames were due to be sent."""
    found = []
    at = block.find(AT)
    while at >= 0:
        found.append(float(block[at + len(AT) : at + len(AT) + AT_CHARACTERS]))
        at = block.find(AT, at + MESSAGE_BYTES)
    return found


class Data(Struct, frozen=True):
    """What was published, as far as it matters here."""

    n: str


class Got(Struct, frozen=True):
    """The frame of a message."""

    type: Literal["message"]
    channel: str
    id: str
    offset: int
    data: Data


def complaints(payloads: Sequence[bytes], kind: Kind, published: int, *, in_order: bool) -> list[str]:
    """What is wrong with what one subscriber got: every message once, and the node's offsets one after the other.
    `in_order`: they were published one after the other, so that is their order as well."""
    decode = msgspec.json.Decoder(Got).decode
    got = [decode(payload) for payload in payloads]
    numbers = [int(each.data.n) for each in got]
    offsets = [each.offset for each in got]
    wrong = []
    if (numbers if in_order else sorted(numbers)) != list(range(published)):
        wrong.append(f"{len(numbers)} messages, {len(set(numbers))} different ones or not in order, of {published}")
    if offsets and kind == "node" and offsets != list(range(offsets[0], offsets[0] + len(offsets))):
        wrong.append("offsets do not follow each other")
    if len({each.id for each in got}) != len(got):
        wrong.append("an id came twice")
    if len({each.channel for each in got}) > 1:
        wrong.append("messages of several channels")
    return wrong
