"""Parts of what was missed, told while somebody joins: on `/ws` and as events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from actors.channel_ports import Joined, Position, Publication
from router.realtime.event_ids import positions
from router.realtime.plain import PlainSocket
from router.realtime.sse import EventStream
from tests.unit.test_realtime_bytes import Rig, Wire


def part(name: str, first: int, last: int) -> Joined:
    """What was missed of a channel."""
    publications = tuple(Publication(offset, f"m{offset}", b"%d" % offset) for offset in range(first, last + 1))
    return Joined(name, Position("e1", last), True, publications)


def waiting_socket() -> tuple[Rig, PlainSocket]:
    """A listener of `/ws` who has asked for a channel, and is not admitted yet."""
    rig = Rig(lambda hall: PlainSocket(hall, "client", []))
    rig.service.hold = True
    rig.connection.message(b'{"action":"subscribe","channel":"a","since":{"epoch":"e1","offset":2}}')
    return rig, cast(PlainSocket, rig.connection)


async def test_the_first_part_is_told_where_it_begins() -> None:
    """Later parts and the end go on from there."""
    rig, ws = waiting_socket()
    await ws.caught_up(part("a", 3, 4), ())
    await ws.caught_up(part("a", 5, 5), ())
    ws.admit([part("a", 6, 7)])
    first, *rest = rig.told()
    assert (first["type"], first["offset"], first["recovered"]) == ("subscribed", 2, True)
    assert [each["offset"] for each in rest] == [3, 4, 5, 6, 7]


async def test_a_loss_after_the_first_part_is_told() -> None:
    """The channel goes on elsewhere."""
    rig, ws = waiting_socket()
    await ws.caught_up(part("a", 3, 4), ())
    ws.admit([Joined("a", Position("e2", 9), False)])
    last = rig.told()[-1]
    assert (last["type"], last["epoch"], last["offset"], last["recovered"]) == ("subscribed", "e2", 9, False)


async def test_a_part_for_who_has_left_is_not_told() -> None:
    """It would come after `unsubscribed`."""
    rig, ws = waiting_socket()
    ws.message(b'{"action":"unsubscribe","channel":"a"}')
    before = rig.wire.written
    await ws.caught_up(part("a", 3, 4), ())
    assert rig.wire.written == before


async def test_the_next_part_waits_for_room() -> None:
    """A reader who is slow is not given all of it at once."""
    rig, ws = waiting_socket()
    ws.pause_writing()
    telling = asyncio.create_task(ws.caught_up(part("a", 3, 4), ()))
    await asyncio.sleep(0)
    assert not telling.done()
    assert len(rig.told()) == 3
    ws.resume_writing()
    await telling


def stream_of(wanted: Mapping[str, Position | None]) -> tuple[EventStream, Wire]:
    """A listener of events who is not admitted yet."""
    rig = Rig(lambda hall: PlainSocket(hall, "client", []))
    rig.service.hold = True
    stream, wire = EventStream(rig.hall, "client", wanted), Wire()
    stream.connection_made(cast(asyncio.Transport, wire))
    wire.written = b""
    return stream, wire


def events_of(wire: Wire) -> list[tuple[str, dict[str, Any]]]:
    """Id and data of each event."""
    found = []
    for event in wire.written.split(b"\n\n\r\n")[:-1]:
        lines = dict(line.split(b":", 1) for line in event.split(b"\r\n", 1)[1].split(b"\n"))
        found.append((lines[b"id"].decode(), msgspec.json.decode(lines[b"data"])))
    return found


async def test_the_ids_of_parts_say_where_each_channel_stands() -> None:
    """Whoever loses the connection in the middle goes on from there, in every channel."""
    stream, wire = stream_of({"a": Position("e1", 2), "b": Position("e1", 5)})
    await stream.caught_up(part("a", 3, 4), [("b", Position("e1", 5)), ("a", Position("e1", 4))])
    stream.admit([part("a", 5, 5), part("b", 6, 7)])
    told = events_of(wire)
    assert [(each["type"], each["channel"], each["offset"]) for _, each in told] == [
        ("subscribed", "a", 2),
        ("message", "a", 3),
        ("message", "a", 4),
        ("subscribed", "b", 5),
        ("message", "a", 5),
        ("message", "b", 6),
        ("message", "b", 7),
    ]
    stands = [positions(event_id, ["a", "b"]) for event_id, _ in told]
    offsets = [tuple(at.offset if at else None for at in each.values()) for each in stands]
    assert offsets == [(2, 5), (3, 5), (4, 5), (4, 5), (5, 5), (5, 6), (5, 7)]
