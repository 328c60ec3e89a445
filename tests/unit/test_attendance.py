"""How somebody joins: at once or after a wait, with all that was missed or told that it is gone, and never for ever."""

from __future__ import annotations

import pytest

from actors import attendance as attendances
from actors import topic as topics
from actors.attendance import ORDER_S, PART_S, SERVED_MAX, SETTLE_S, WHOLE_BYTES
from actors.channel_ports import Joined, Position, Recall, Recalled
from actors.core.stream import Answered, Arrived, Deaf, Listening
from actors.ports import Overloaded, StoreAway
from tests.support.attendance_rig import AttendanceRig as Rig
from tests.support.attendance_rig import at
from tests.support.channel_doubles import WHOLE, GuestDouble, publications
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

LATE_S = 0.01


@in_virtual_time
async def test_who_comes_without_a_position_joins_at_once() -> None:
    """In the same turn, without a question; everything after its position is sent."""
    async with Rig() as rig:
        rig.topic(published=3)
        guest = rig.attend({"news": None})
        assert guest.admissions == [(Joined("news", at(3), False),)]
        rig.publish()
        await ticks()
        assert guest.lines == ["news e1/4 m4"]
        assert rig.read_s == []
        assert len(rig.over) == 1
        assert rig.is_over()


@in_virtual_time
async def test_who_comes_before_the_channel_is_followed_waits() -> None:
    """No longer than that; for every one of its channels."""
    async with Rig() as rig:
        rig.topic("a", live=False)
        rig.topic("b", live=False)
        guest = rig.attend({"a": None, "b": None})
        await passing(0.5)
        rig.follow("a")
        await passing(0.1)
        assert guest.told == []
        rig.follow("b")
        await ticks()
        assert guest.admissions == [(Joined("a", at(0), False), Joined("b", at(0), False))]
        assert rig.is_over()


@in_virtual_time
async def test_a_channel_that_is_deaf_again_is_waited_for_again() -> None:
    """Not only until it was followed once."""
    async with Rig() as rig:
        topic = rig.topic(live=False)
        guest = rig.attend({"news": None})
        await ticks()
        rig.follow()
        topic.tell(Deaf())
        await ticks()
        assert guest.told == []
        rig.follow()
        await ticks()
        assert guest.told == ["admit"]


@in_virtual_time
async def test_who_cannot_join_is_told_in_time() -> None:
    """While the channel is not followed: after SETTLE_S, to all of its names, and everything is let go."""
    async with Rig() as rig:
        rig.topic("a")
        rig.topic("b", live=False)
        guest = rig.attend({"a": None, "b": None})
        await passing(SETTLE_S - LATE_S)
        assert guest.told == []
        await passing(2 * LATE_S)
        [(names, error)] = guest.refusals
        assert names == ("a", "b")
        assert isinstance(error, TimeoutError)
        assert rig.is_over()


@in_virtual_time
async def test_who_cannot_be_told_what_it_missed_is_refused() -> None:
    """The store is away, though the channel is followed."""
    async with Rig() as rig:
        rig.topic(published=3)
        rig.store.away = True
        guest = rig.attend({"news": at(1)})
        await ticks()
        [(names, error)] = guest.refusals
        assert (names, type(error)) == (("news",), StoreAway)
        assert rig.is_over()


@in_virtual_time
async def test_however_many_wait_each_is_told_in_bounded_time() -> None:
    """Those who waited too long for their turn are refused at once; nobody is forgotten."""
    async with Rig() as rig:
        rig.topic(live=False)
        guests = [rig.attend({"news": None}) for _ in range(10 * SERVED_MAX)]
        await passing(ORDER_S + SETTLE_S + LATE_S)
        assert [guest.told for guest in guests] == [["refuse"]] * len(guests)
        assert len(rig.over) == len(guests)
        assert rig.is_over()


@in_virtual_time
async def test_orders_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused at once; the others are served."""
    monkeypatch.setattr(attendances, "ORDERS_MAX", 5)
    monkeypatch.setattr(attendances, "SERVED_MAX", 2)
    async with Rig() as rig:
        rig.topic(live=False)
        guests = [rig.attend({"news": None}) for _ in range(8)]
        assert [guest.told for guest in guests] == [[]] * 5 + [["refuse"]] * 3
        assert all(isinstance(error, Overloaded) for guest in guests for _, error in guest.refusals)
        await ticks()
        rig.follow()
        await ticks()
        assert [guest.told for guest in guests[:5]] == [["admit"]] * 5
        assert rig.is_over()


@in_virtual_time
async def test_those_served_at_once_are_bounded() -> None:
    """However many come: no more than SERVED_MAX questions are under way."""
    async with Rig() as rig:
        rig.topic(published=1)
        rig.store.took_s = 0.1
        guests = [rig.attend({"news": at(0)}) for _ in range(3 * SERVED_MAX)]
        await passing(0.05)
        assert len(rig.read_s) == SERVED_MAX
        await passing(0.4)
        assert [guest.told for guest in guests] == [["admit"]] * len(guests)
        assert all(guest.admissions[0][0].recovered for guest in guests)


@in_virtual_time
async def test_a_node_without_room_for_a_job_refuses() -> None:
    """Instead of letting them wait for nobody."""
    async with Rig(jobs_max=0) as rig:
        rig.topic(live=False)
        guest = rig.attend({"news": None})
        [(_, error)] = guest.refusals
        assert isinstance(error, Overloaded)
        assert rig.is_over()


@in_virtual_time
async def test_what_was_missed_comes_with_the_admission() -> None:
    """In order, all of it, and what was published while it was read; what follows comes after it, once."""
    async with Rig() as rig:
        rig.topic(published=5)
        rig.store.took_s = 0.1
        guest = rig.attend({"news": at(2)})
        await passing(0.05)
        rig.publish(count=2)
        await passing(0.1)
        rig.publish()
        await ticks()
        assert guest.admissions == [(Joined("news", at(7), True, publications(3, 7)),)]
        assert guest.lines == ["news e1/8 m8"]
        assert rig.is_over()


@in_virtual_time
async def test_what_comes_after_the_answer_left_is_remembered_here() -> None:
    """The ring of what was delivered lately joins the two: nobody asks twice."""
    async with Rig() as rig:
        rig.topic(published=5)
        answered: list[Recalled] = []
        recalled = rig.store.recalled

        def early(recall: Recall) -> Recalled:
            answered.append(recalled(recall))
            rig.publish(count=3)
            return answered[-1]

        rig.store.recalled = early  # type: ignore[method-assign]  # between the answer and its arrival
        guest = rig.attend({"news": at(4)})
        await ticks()
        assert [each.publications for each in answered] == [publications(5, 5)]
        assert guest.admissions == [(Joined("news", at(8), True, publications(5, 8)),)]


@in_virtual_time
async def test_what_the_node_has_not_heard_yet_comes_by_its_ear() -> None:
    """The store knows more than was delivered here: it is not told twice."""
    async with Rig() as rig:
        topic = rig.topic(published=2)
        rig.publish(count=2, heard=False)
        guest = rig.attend({"news": at(1)})
        await ticks()
        assert guest.admissions == [(Joined("news", at(2), True, publications(2, 2)),)]
        for publication in publications(3, 4):
            topic.tell(Arrived("e1", publication))
        await ticks()
        assert guest.lines == ["news e1/3 m3", "news e1/4 m4"]


@in_virtual_time
async def test_who_has_more_than_the_node_waits_for_its_ear() -> None:
    """It comes from another node that had heard more: nothing is told twice, and the store is not asked in a hurry."""
    async with Rig() as rig:
        topic = rig.topic(published=2)
        rig.publish(count=2, heard=False)
        rig.store.took_s = 0.001
        guest = rig.attend({"news": at(4)})
        await passing(0.2)
        for publication in publications(3, 4):
            topic.tell(Arrived("e1", publication))
        await passing(0.1)
        assert guest.admissions == [(Joined("news", at(4), True),)]
        assert len(rig.read_s) <= 30


@in_virtual_time
async def test_who_has_more_than_the_node_will_hear_is_refused() -> None:
    """In the time that a channel which is not followed has: it may come back, also elsewhere, and loses nothing."""
    async with Rig() as rig:
        rig.topic(published=2)
        rig.publish(count=2, heard=False)
        guest = rig.attend({"news": at(4)})
        await passing(SETTLE_S + LATE_S)
        [(_, error)] = guest.refusals
        assert isinstance(error, TimeoutError)
        assert rig.is_over()


@in_virtual_time
async def test_nothing_missed_is_recovered() -> None:
    """Who has the newest message, also of a stream without any."""
    async with Rig() as rig:
        rig.topic("a", published=3)
        rig.topic("b")
        guest = rig.attend({"a": at(3), "b": at(0)})
        await ticks()
        assert guest.admissions == [(Joined("a", at(3), True), Joined("b", at(0), True))]


@in_virtual_time
async def test_much_is_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the node remembers no more; while a reader reads, what is published is not lost."""
    monkeypatch.setattr(attendances, "PART_MESSAGES", 10)
    async with Rig() as rig:
        rig.topic(published=35)
        guest = GuestDouble()
        guest.part_s = 1.0
        rig.attend({"news": at(0)}, guest=guest)
        await passing(0.5)
        rig.publish(count=3)
        await passing(5.0)
        assert guest.told == ["part", "part", "part", "admit"]
        assert [part for part, _ in guest.parts] == [
            Joined("news", at(last), True, publications(last - 9, last)) for last in (10, 20, 30)
        ]
        assert [places for _, places in guest.parts] == [{"news": at(last)} for last in (10, 20, 30)]
        assert guest.admissions == [(Joined("news", at(38), True, publications(31, 38)),)]
        assert rig.is_over()


@in_virtual_time
async def test_a_reader_too_slow_for_a_part_is_refused() -> None:
    """PART_S for each, not for all."""
    async with Rig() as rig:
        rig.topic(published=3 * attendances.PART_MESSAGES)
        slow, steady = GuestDouble(), GuestDouble()
        slow.part_s, steady.part_s = PART_S + 1, PART_S - 1
        for guest in (slow, steady):
            rig.attend({"news": at(0)}, guest=guest)
        await passing(PART_S + LATE_S)
        assert slow.told == ["part", "refuse"]
        await passing(2 * PART_S)
        assert steady.told == ["part", "part", "admit"]
        assert rig.is_over()


@in_virtual_time
async def test_a_format_that_wants_all_in_one_answer_gets_it() -> None:
    """No parts, however many questions it takes."""
    async with Rig() as rig:
        count = 3 * attendances.PART_MESSAGES
        rig.topic(published=count)
        guest = rig.attend({"news": at(0)}, WHOLE)
        await ticks(60)
        assert guest.told == ["admit"]
        assert guest.admissions == [(Joined("news", at(count), True, publications(1, count)),)]


@in_virtual_time
async def test_what_is_too_long_for_one_answer_is_not_recovered() -> None:
    """It is said, with no publications."""
    async with Rig() as rig:
        rig.topic()
        rig.publish(count=10, data=b"1" * (WHOLE_BYTES // 9))
        guest = rig.attend({"news": at(0)}, WHOLE)
        await ticks(60)
        assert guest.admissions == [(Joined("news", at(10), False),)]
        assert rig.is_over()


@pytest.mark.parametrize(
    ("since", "evicted"),
    [
        pytest.param(at(2), 3, id="the next is evicted"),
        pytest.param(at(2), 5, id="all is evicted"),
        pytest.param(at(2, "e0"), 0, id="another epoch"),
        pytest.param(at(0, ""), 0, id="no epoch"),
        pytest.param(at(9), 0, id="beyond the top"),
    ],
)
@in_virtual_time
async def test_what_cannot_be_brought_back_is_said(since: Position, evicted: int) -> None:
    """It joins all the same, and gets what comes from now on."""
    async with Rig() as rig:
        rig.topic(published=5)
        del rig.store.stream().kept[:evicted]
        guest = rig.attend({"news": since})
        await ticks()
        assert guest.admissions == [(Joined("news", at(5), False),)]
        rig.publish()
        await ticks()
        assert guest.lines == ["news e1/6 m6"]


@in_virtual_time
async def test_an_epoch_that_begins_while_somebody_joins_is_said() -> None:
    """What was read of the one before is worth nothing."""
    async with Rig() as rig:
        topic = rig.topic(published=5)
        rig.store.took_s = 0.1
        guest = rig.attend({"news": at(2)})
        await passing(0.05)
        topic.tell(Listening())
        topic.tell(Answered(topic.stream.asked, Recalled(at(1, "e2"), (), False, "x")))
        await passing(0.2)
        assert guest.admissions == [(Joined("news", at(1, "e2"), False),)]


@in_virtual_time
async def test_each_channel_of_a_seat_is_recovered_by_itself() -> None:
    """One with all, one whose history is gone, one without a position: one admission, in the order of the guest."""
    async with Rig() as rig:
        for name in ("a", "b", "c"):
            rig.topic(name, published=5)
        rig.store.stream("b").kept.clear()
        guest = rig.attend({"c": None, "b": at(1), "a": at(3)})
        await ticks()
        assert guest.admissions == [
            (Joined("c", at(5), False), Joined("b", at(5), False), Joined("a", at(5), True, publications(4, 5)))
        ]


@in_virtual_time
async def test_while_one_channel_is_read_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further than is remembered here: what was read of them is read on. Nothing is missing from either."""
    monkeypatch.setattr(topics, "RECENT_MAX", 2)
    async with Rig() as rig:
        rig.topic("a", published=3)
        rig.topic("b", published=3)
        rig.store.took_s = 0.1
        guest = rig.attend({"a": at(1), "b": at(1)})
        await passing(0.15)
        rig.publish("a", 5)
        await passing(1.0)
        assert guest.admissions == [
            (Joined("a", at(8), True, publications(2, 8)), Joined("b", at(3), True, publications(2, 3)))
        ]
        assert len(rig.read_s) == 3


@in_virtual_time
async def test_parts_say_where_all_channels_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never beyond what the guest has got: it may come back with that."""
    monkeypatch.setattr(attendances, "PART_MESSAGES", 2)
    async with Rig() as rig:
        for name in ("a", "b", "c"):
            rig.topic(name, published=3)
        guest = rig.attend({"a": at(2), "b": at(0), "c": None})
        await ticks(60)
        assert guest.parts == [
            (Joined("b", at(2), True, publications(1, 2)), {"a": at(2), "b": at(2), "c": at(3)}),
        ]
        [(first, second, third)] = guest.admissions
        assert first == Joined("a", at(3), True, publications(3, 3))
        assert second == Joined("b", at(3), True, publications(3, 3))
        assert third == Joined("c", at(3), False)
