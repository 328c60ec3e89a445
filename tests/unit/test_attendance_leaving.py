"""Somebody leaves before it has joined: nothing is told to it any more, and nothing of it is left."""

from __future__ import annotations

import pytest

from actors.attendance import PART_MESSAGES, SETTLE_S
from actors.channel_ports import Position
from tests.support.attendance_rig import AttendanceRig as Rig
from tests.support.attendance_rig import at
from tests.support.channel_doubles import LINES, GuestDouble
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

LATE_S = 0.01


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("since", [None, at(1)])
@in_virtual_time
async def test_who_leaves_while_it_waits_is_told_nothing(since: Position | None, *, closed: bool) -> None:
    """Neither admitted nor refused, whether it gives up its seat or its connection is gone."""
    async with Rig() as rig:
        topic = rig.topic(live=False, published=3)
        guest = rig.attend({"news": since})
        await ticks()
        guest.closed = closed
        assert rig.attendance.give_up(guest, ("news",))
        rig.follow()
        await passing(SETTLE_S + LATE_S)
        assert guest.told == []
        assert topic.outlets == {}
        assert len(rig.over) == 1
        assert rig.is_over()


@in_virtual_time
async def test_who_leaves_is_not_refused_either() -> None:
    """Nobody waits for an answer."""
    async with Rig() as rig:
        rig.topic(live=False)
        guest = rig.attend({"news": None})
        rig.attendance.give_up(guest, ("news",))
        await passing(SETTLE_S + LATE_S)
        assert guest.told == []
        assert rig.is_over()


@in_virtual_time
async def test_there_is_nothing_to_give_up_for_whoever_has_joined_or_never_wanted_to() -> None:
    """Nor a second time, nor under other names."""
    async with Rig() as rig:
        rig.topic("a")
        rig.topic("b", live=False)
        joined = rig.attend({"a": None})
        waiting = rig.attend({"b": None})
        assert not rig.attendance.give_up(joined, ("a",))
        assert not rig.attendance.give_up(GuestDouble(), ("b",))
        assert not rig.attendance.give_up(waiting, ("a", "b"))
        assert rig.attendance.give_up(waiting, ("b",))
        assert not rig.attendance.give_up(waiting, ("b",))


@in_virtual_time
async def test_who_leaves_while_the_store_is_asked_is_told_no_part() -> None:
    """It was told that it has left."""
    async with Rig() as rig:
        rig.topic(published=3 * PART_MESSAGES)
        rig.store.took_s = 0.1
        guest = rig.attend({"news": at(0)})
        await passing(0.05)
        rig.attendance.give_up(guest, ("news",))
        await passing(1.0)
        assert guest.told == []
        assert len(rig.read_s) == 1
        assert rig.is_over()


@in_virtual_time
async def test_who_leaves_in_the_middle_of_the_parts_is_told_no_more() -> None:
    """And nobody asks for it any more."""
    async with Rig() as rig:
        rig.topic(published=5 * PART_MESSAGES)
        guest = GuestDouble()
        guest.part_s = 1.0
        rig.attend({"news": at(0)}, guest=guest)
        await passing(1.5)
        rig.attendance.give_up(guest, ("news",))
        await passing(10.0)
        assert guest.told == ["part", "part"]
        assert len(rig.read_s) == 2
        assert rig.is_over()


@in_virtual_time
async def test_who_leaves_and_comes_back_at_once_is_admitted_once() -> None:
    """Although both orders wait at the same time, and the first one ends first."""
    async with Rig() as rig:
        topic = rig.topic(live=False)
        guest = rig.attend({"news": None})
        await ticks()
        rig.attendance.give_up(guest, ("news",))
        rig.attend({"news": None}, guest=guest)
        rig.follow()
        await ticks()
        assert guest.told == ["admit"]
        assert sum(len(outlet) for outlet in topic.outlets.values()) == 1
        assert rig.is_over()


@in_virtual_time
async def test_who_comes_back_can_leave_again() -> None:
    """The end of the first order is not that of the second."""
    async with Rig() as rig:
        topic = rig.topic(live=False)
        guest = rig.attend({"news": None})
        await passing(SETTLE_S / 2)
        rig.attendance.give_up(guest, ("news",))
        rig.attend({"news": None}, guest=guest)
        await passing(SETTLE_S / 2 + LATE_S)
        assert len(rig.over) == 1
        assert rig.attendance.give_up(guest, ("news",))
        rig.follow()
        await ticks()
        assert guest.told == []
        assert topic.outlets == {}
        assert rig.is_over()


@in_virtual_time
async def test_who_leaves_takes_no_place_in_the_queue_for_long() -> None:
    """Orders of those who have gone cost no question."""
    async with Rig() as rig:
        rig.topic(published=1)
        rig.store.took_s = 0.1
        guests = [rig.attend({"news": at(0)}) for _ in range(500)]
        for guest in guests[:-1]:
            rig.attendance.give_up(guest, ("news",))
        await passing(0.25)
        assert guests[-1].told == ["admit"]
        assert len(rig.read_s) < 100


@in_virtual_time
async def test_two_guests_are_two_orders() -> None:
    """One that leaves takes no other's seat."""
    async with Rig() as rig:
        rig.topic(live=False)
        leaves, stays = rig.attend({"news": None}), rig.attend({"news": None})
        rig.attendance.give_up(leaves, ("news",))
        rig.follow()
        await ticks()
        assert (leaves.told, stays.told) == ([], ["admit"])
        assert LINES.name in {key[0] for key in rig.topics["news"].outlets}


@in_virtual_time
async def test_a_guest_that_crashes_its_order_is_refused_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody is left waiting for ever, however many were served at once."""
    monkeypatch.setattr("actors.attendance.SERVED_MAX", 1)
    async with Rig() as rig:
        rig.topic(published=2 * PART_MESSAGES)
        broken = GuestDouble("broken")
        monkeypatch.setattr(broken, "caught_up", _crashes)
        rig.attendance.attend(broken, LINES, {"news": at(1)}, [rig.topics["news"]])
        other = rig.attend({"news": at(2 * PART_MESSAGES)})
        await passing(SETTLE_S)
        assert broken.told == ["refuse"]
        assert other.told == ["admit"]
        assert rig.crash_names() == ["join channels"]
        assert rig.is_over()


async def _crashes(*_: object) -> None:
    raise RuntimeError("unforeseen")
