"""One channel that somebody listens to: what is remembered of it while somebody joins, and who is told what."""

from __future__ import annotations

import asyncio

import pytest

from actors import topic as topics
from actors.channel_ports import Position, Recalled
from actors.core.stream import Answered, Arrived, Ask, Deaf, Listening
from actors.fanout import Fanout, Outlet
from actors.foreign import Foreign
from actors.topic import RECENT_BYTES_MAX, RECENT_MAX, Topic, outlet_key
from tests.support.channel_doubles import LINES, WHOLE, GuestDouble, channel, publications
from tests.support.doubles import Tally
from tests.support.virtual_time import in_virtual_time, ticks


class Rig:
    """A topic of which `asked` are the questions."""

    def __init__(self) -> None:
        self.asked: list[Ask] = []
        self.lost = Tally()
        of = channel()
        self.topic = Topic(
            of,
            Foreign(of, str, lambda _ingest: None),
            lambda _topic, ask: self.asked.append(ask),
            self._places,
            self._on_lost,
        )
        self.fanout = Fanout(Tally())

    def _places(self, names: object) -> list[tuple[str, Position]]:
        assert isinstance(names, list)
        return [(name, Position("e9", 9)) for name in names]

    def _on_lost(self) -> None:
        self.lost.inc()

    def follow(self, offset: int = 0, epoch: str = "e1") -> None:
        """It listens, and its question is answered."""
        self.topic.tell(Listening())
        self.topic.tell(Answered(self.asked[-1].asked, Recalled(Position(epoch, offset), (), False)))

    def hear(self, first: int, last: int, data: bytes = b"1") -> None:
        """These arrive."""
        for publication in publications(first, last, data):
            self.topic.tell(Arrived("e1", publication))

    def guest(self, *names: str) -> GuestDouble:
        """Somebody is there, in a seat of its own."""
        guest = GuestDouble()
        seat = names or ("news",)
        outlet = Outlet(self.fanout, LINES, seat)
        outlet.add(guest)
        self.topic.outlets[f"{len(self.topic.outlets)}", seat] = outlet
        return guest

    def since(self, offset: int, epoch: str = "e1") -> list[int] | None:
        """The offsets that are remembered after one."""
        found = self.topic.since(Position(epoch, offset))
        return None if found is None else [each.offset for each in found]


@in_virtual_time
async def test_nothing_is_remembered_while_nobody_joins() -> None:
    """Neither what came before, nor after the last has joined."""
    rig = Rig()
    rig.follow()
    rig.hear(1, 3)
    rig.topic.hold()
    rig.topic.hold()
    assert (rig.since(2), rig.since(3)) == (None, [])
    rig.hear(4, 5)
    rig.topic.let_go()
    assert (rig.since(2), rig.since(3), rig.since(4), rig.since(5)) == (None, [4, 5], [5], [])
    rig.topic.let_go()
    assert (rig.since(4), rig.since(5)) == (None, [])


@in_virtual_time
async def test_a_position_beyond_what_was_delivered_or_of_another_epoch_is_unknown() -> None:
    """And so is every one before it is known where the stream stands."""
    rig = Rig()
    rig.topic.hold()
    assert rig.since(0) is None
    rig.follow(3)
    rig.hear(4, 4)
    assert (rig.since(5), rig.since(3, "e0"), rig.since(4, ""), rig.since(3)) == (None, None, None, [4])


@in_virtual_time
async def test_what_is_remembered_is_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are."""
    monkeypatch.setattr(topics, "RECENT_MAX", 3)
    assert RECENT_MAX >= 1000
    rig = Rig()
    rig.follow()
    rig.topic.hold()
    rig.hear(1, 10)
    assert (rig.since(6), rig.since(7)) == (None, [8, 9, 10])


@in_virtual_time
async def test_what_is_remembered_is_bounded_in_bytes() -> None:
    """Also when a single message is too large; what is forgotten makes room."""
    rig = Rig()
    rig.follow()
    rig.topic.hold()
    rig.hear(1, 5, b"x" * (RECENT_BYTES_MAX // 3))
    assert (rig.since(1), rig.since(2)) == (None, [3, 4, 5])
    rig.hear(6, 6, b"x" * (RECENT_BYTES_MAX + 1))
    assert (rig.since(5), rig.since(6)) == (None, [])
    rig.hear(7, 9)
    assert rig.since(6) == [7, 8, 9]
    rig.topic.let_go()
    rig.topic.hold()
    rig.hear(10, 12, b"x" * (RECENT_BYTES_MAX // 3))
    assert rig.since(9) == [10, 11, 12]


@in_virtual_time
async def test_a_loss_is_a_loss_of_what_was_remembered() -> None:
    """It is counted once, however many are told."""
    rig = Rig()
    rig.follow()
    rig.topic.hold()
    guests = [rig.guest(), rig.guest("news", "other")]
    rig.hear(1, 2)
    rig.follow(2, "e2")
    assert rig.since(1, "e2") is None
    assert rig.since(2, "e2") == []
    assert rig.lost.value == 1
    assert [guest.told for guest in guests] == [["send", "lost"]] * 2
    assert [guest.losses[0] for guest in guests] == [
        ("news", Position("e2", 2), {}),
        ("news", Position("e2", 2), {"other": Position("e9", 9)}),
    ]


@in_virtual_time
async def test_each_frame_says_where_the_others_of_its_seat_stand() -> None:
    """Not the channel itself; nothing in a seat of one channel."""
    rig = Rig()
    rig.follow()
    alone, two = rig.guest(), rig.guest("news", "other")
    rig.hear(1, 1)
    await ticks()
    assert alone.lines == ["news e1/1 m1"]
    assert two.lines == ["news e1/1 m1 other=e9/9"]


@in_virtual_time
async def test_everybody_who_waits_learns_that_the_stream_is_followed() -> None:
    """At once when it is; who stops waiting leaves nothing behind."""
    rig = Rig()
    waiting = [asyncio.ensure_future(rig.topic.settled()) for _ in range(3)]
    await ticks()
    waiting[0].cancel()
    await ticks()
    assert len(rig.topic._waiting) == 2
    rig.follow()
    await asyncio.gather(*waiting[1:])
    await rig.topic.settled()
    assert not rig.topic._waiting
    rig.topic.tell(Deaf())
    assert not rig.topic.live


@in_virtual_time
async def test_it_is_needed_while_somebody_listens_or_is_about_to() -> None:
    """Either is enough."""
    rig = Rig()
    assert rig.topic.idle
    rig.topic.hold()
    assert not rig.topic.idle
    rig.guest()
    rig.topic.let_go()
    assert not rig.topic.idle
    rig.topic.outlets.clear()
    assert rig.topic.idle


def test_an_outlet_is_known_by_its_format_and_its_channels() -> None:
    """In whatever order."""
    assert outlet_key(LINES, ["b", "a"]) == outlet_key(LINES, ["a", "b"])
    assert outlet_key(LINES, ["a"]) != outlet_key(WHOLE, ["a"])
    assert outlet_key(LINES, ["a"]) != outlet_key(LINES, ["a", "b"])
