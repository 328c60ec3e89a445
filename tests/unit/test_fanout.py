"""From what is put into outlets to one block a guest and turn: order, who gets what, and how much in one turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import fanout as fanouts
from actors.fanout import BITE, Fanout, Outlet
from tests.support.channel_doubles import LINES, GuestDouble
from tests.support.doubles import Tally
from tests.support.virtual_time import in_virtual_time, ticks


class Rig:
    """A node's fan-out with some outlets."""

    def __init__(self, outlets: int = 1) -> None:
        self.handed = Tally()
        self.fanout = Fanout(self.handed)
        self.outlets = [Outlet(self.fanout, LINES, (f"c{number}",)) for number in range(outlets)]

    def guests(self, count: int, *outlets: int) -> list[GuestDouble]:
        """So many, each in these outlets."""
        guests = [GuestDouble(f"g{number}") for number in range(count)]
        for outlet in outlets or (0,):
            for guest in guests:
                self.outlets[outlet].add(guest)
        return guests


def blocks(guests: Sequence[GuestDouble]) -> list[list[tuple[bytes, int]]]:
    """What each was sent."""
    return [guest.blocks for guest in guests]


async def turn() -> None:
    """What was asked of the loop is done."""
    await asyncio.sleep(0)


@in_virtual_time
async def test_a_frame_goes_to_everybody_at_the_end_of_the_turn() -> None:
    """Not before; the same bytes for all; each is counted."""
    rig = Rig()
    guests = rig.guests(3)
    rig.outlets[0].put(b"a")
    assert blocks(guests) == [[], [], []]
    await turn()
    assert blocks(guests) == [[(b"a", 1)]] * 3
    assert rig.handed.value == 3
    assert len({id(guest.blocks[0][0]) for guest in guests}) == 1
    await ticks()
    assert blocks(guests) == [[(b"a", 1)]] * 3


@in_virtual_time
async def test_the_frames_of_a_turn_are_one_block() -> None:
    """In the order in which they were put in; the next turn's are another."""
    rig = Rig()
    guests = rig.guests(2)
    for frame in (b"a", b"b", b"c"):
        rig.outlets[0].put(frame)
    await turn()
    rig.outlets[0].put(b"d")
    await turn()
    assert blocks(guests) == [[(b"abc", 3), (b"d", 1)]] * 2
    assert rig.handed.value == 8


@in_virtual_time
async def test_who_is_in_several_outlets_gets_one_block_of_all() -> None:
    """And who is in one of them only what was put into it."""
    rig = Rig(outlets=3)
    [both] = rig.guests(1, 0, 1)
    [first] = rig.guests(1, 0)
    [second] = rig.guests(1, 1)
    [none] = rig.guests(1, 2)
    rig.outlets[0].put(b"a")
    rig.outlets[1].put(b"b")
    rig.outlets[0].put(b"c")
    await turn()
    assert [block for block, _ in both.blocks] == [b"acb"]
    assert [block for block, _ in first.blocks] == [b"ac"]
    assert [block for block, _ in second.blocks] == [b"b"]
    assert none.blocks == []
    assert all(frames >= len(block) for guest in (both, first, second) for block, frames in guest.blocks)
    assert rig.handed.value == 2 + 2 + 1 + 1


@in_virtual_time
async def test_outlets_without_guests_cost_nobody_anything() -> None:
    """Alone or beside others."""
    rig = Rig(outlets=2)
    rig.outlets[0].put(b"a")
    await turn()
    [guest] = rig.guests(1, 1)
    rig.outlets[0].put(b"b")
    rig.outlets[1].put(b"c")
    await turn()
    assert [block for block, _ in guest.blocks] == [b"c"]
    assert rig.handed.value == 1


@in_virtual_time
async def test_who_comes_gets_what_is_put_in_from_now_on() -> None:
    """What was put in before is handed to the others at once."""
    rig = Rig()
    [there] = rig.guests(1)
    rig.outlets[0].put(b"a")
    [late] = rig.guests(1)
    assert there.blocks == [(b"a", 1)]
    rig.outlets[0].put(b"b")
    await turn()
    assert there.blocks == [(b"a", 1), (b"b", 1)]
    assert late.blocks == [(b"b", 1)]


@in_virtual_time
async def test_who_leaves_gets_what_was_put_in_before() -> None:
    """And nothing after it."""
    rig = Rig()
    stays, leaves = rig.guests(2)
    rig.outlets[0].put(b"a")
    rig.outlets[0].remove(leaves)
    rig.outlets[0].put(b"b")
    rig.outlets[0].remove(leaves)
    await turn()
    assert leaves.blocks == [(b"a", 1)]
    assert stays.blocks == [(b"a", 1), (b"b", 1)]
    assert (len(rig.outlets[0]), leaves in rig.outlets[0], rig.outlets[0].guests) == (1, False, [stays])


@in_virtual_time
async def test_who_has_closed_is_handed_nothing_and_hurries_nobody() -> None:
    """The others have to wait for the end of the turn."""
    rig = Rig()
    stays, closed = rig.guests(2)
    rig.outlets[0].put(b"a")
    closed.closed = True
    rig.outlets[0].remove(closed)
    assert stays.blocks == []
    await turn()
    assert stays.blocks == [(b"a", 1)]
    assert closed.blocks == []


@in_virtual_time
async def test_who_leaves_while_all_are_handed_something_disturbs_nobody() -> None:
    """A reader too slow for a block is closed, and leaves its outlets in the middle of it."""
    rig = Rig(outlets=2)
    guests = rig.guests(4, 0, 1)

    def too_slow(_block: bytes) -> None:
        guests[1].closed = True
        for outlet in rig.outlets:
            outlet.remove(guests[1])

    guests[1].on_send = too_slow
    for number in range(2):
        for outlet in rig.outlets:
            outlet.put(b"%d" % number)
    await turn()
    rig.outlets[0].put(b"2")
    await turn()
    assert [block for block, _ in guests[1].blocks] == [b"0101"]
    for guest in (guests[0], guests[2], guests[3]):
        assert [block for block, _ in guest.blocks] == [b"0101", b"2"]


@in_virtual_time
async def test_nobody_hands_out_more_than_a_bite_a_turn() -> None:
    """What is left comes in the next turns, while others have theirs; nobody is passed over or asked twice."""
    rig = Rig()
    guests = rig.guests(2 * BITE + 10)
    rig.outlets[0].put(b"a")
    seen = []
    for _ in range(5):
        await turn()
        seen.append(sum(len(guest.blocks) for guest in guests))
    assert seen == [BITE, 2 * BITE, 2 * BITE + 10, 2 * BITE + 10, 2 * BITE + 10]
    assert all(guest.blocks == [(b"a", 1)] for guest in guests)


@in_virtual_time
async def test_what_is_put_in_between_bites_comes_after_them() -> None:
    """Each guest keeps its order, also those who were served already."""
    rig = Rig()
    guests = rig.guests(BITE + 10)
    rig.outlets[0].put(b"a")
    await turn()
    rig.outlets[0].put(b"b")
    await turn()
    assert sum(len(guest.blocks) for guest in guests) == 2 * BITE
    await turn()
    assert all(guest.blocks == [(b"a", 1), (b"b", 1)] for guest in guests)


@in_virtual_time
async def test_bites_of_several_outlets_keep_each_guests_block() -> None:
    """A cut through blocks that differ gives each guest its own."""
    rig = Rig(outlets=2)
    both = rig.guests(BITE - 5, 0, 1)
    second = rig.guests(10, 1)
    rig.outlets[0].put(b"a")
    rig.outlets[1].put(b"b")
    for _ in range(3):
        await turn()
    assert {guest.blocks[0][0] for guest in both} == {b"ab"}
    assert {guest.blocks[0][0] for guest in second} == {b"b"}
    assert {len(guest.blocks) for guest in (*both, *second)} == {1}


@in_virtual_time
async def test_handing_out_now_waits_for_no_turn() -> None:
    """Of what is in the outlets, and of what is left of a bite; without frames nothing happens."""
    rig = Rig(outlets=2)
    guests = rig.guests(BITE + 10)
    rig.outlets[1].hand_out()
    rig.outlets[0].put(b"a")
    await turn()
    rig.outlets[0].put(b"b")
    rig.outlets[0].hand_out()
    assert all(guest.blocks == [(b"a", 1), (b"b", 1)] for guest in guests)
    await ticks()
    assert all(len(guest.blocks) == 2 for guest in guests)


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "add", "remove", "turn"]), st.integers(0, 2), st.integers(0, 3)), max_size=40
)


@pytest.mark.parametrize("bite", [1, 2, BITE])
def test_a_guest_gets_what_was_put_in_while_it_was_there(bite: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each outlet, in order, once, and nothing else; however it comes, goes, and turns end."""
    monkeypatch.setattr(fanouts, "BITE", bite)

    @settings(max_examples=100, deadline=None)
    @given(steps=STEPS)
    @in_virtual_time
    async def check(steps: list[tuple[str, int, int]]) -> None:
        await _plays(steps)

    check()


async def _plays(steps: list[tuple[str, int, int]]) -> None:
    rig = Rig(outlets=3)
    guests = [GuestDouble(f"g{number}") for number in range(4)]
    expected: list[list[list[int]]] = [[[] for _ in rig.outlets] for _ in guests]
    for number, (step, at, who) in enumerate(steps):
        outlet, guest = rig.outlets[at], guests[who]
        match step:
            case "put":
                outlet.put(b"%d/%d " % (at, number))
                for there in outlet.guests:
                    expected[guests.index(there)][at].append(number)  # type: ignore[arg-type]  # all are doubles
            case "add":
                if guest not in outlet:
                    outlet.add(guest)
            case "remove":
                outlet.remove(guest)
            case _:
                await turn()
    await ticks(60)
    for guest, wanted in zip(guests, expected, strict=True):
        frames = [frame.split("/") for block, _ in guest.blocks for frame in block.decode().split()]
        assert [[int(number) for at, number in frames if at == str(place)] for place in range(3)] == wanted
    assert rig.handed.value == sum(len(numbers) for wanted in expected for numbers in wanted)


@in_virtual_time
async def test_each_guest_is_told_how_many_frames_its_own_block_holds() -> None:
    """Whatever others get in the same turn: one large frame is judged otherwise than many small ones."""
    rig = Rig(outlets=2)
    [first] = rig.guests(1, 0)
    [both] = rig.guests(1, 0, 1)
    rig.outlets[0].put(b"a")
    for frame in (b"b", b"c"):
        rig.outlets[1].put(frame)
    await turn()
    assert blocks([first, both]) == [[(b"a", 1)], [(b"abc", 3)]]
