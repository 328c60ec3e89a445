"""The supervisor of a node's channels: what it listens to, who is counted, and that nothing is left of who has gone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from actors.channel_ports import Audience, Position, Publication, Recall
from actors.channels import HISTORY_BYTES, RETRY_S
from actors.ports import StoreAway
from actors.publishing import RECENT_S
from tests.support.channel_doubles import LINES, WHOLE, GuestDouble, channel, publications
from tests.support.channel_rig import ChannelRig as Rig
from tests.support.doubles import value
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

LATE_S = 0.05


@in_virtual_time
async def test_a_channel_is_listened_to_once_however_many_join() -> None:
    """From the first wish on, and no more when the last has left."""
    async with Rig() as rig:
        guests = [rig.attend("news"), rig.attend("news", form=WHOLE), rig.attend("news", "other")]
        assert rig.ear.told == [("listen", "news"), ("listen", "other")]
        await rig.listen("news", "other")
        assert rig.people() == (2, 4)
        rig.channels.leave(guests[0], LINES, ["news"])
        rig.channels.leave(guests[2], LINES, ["news", "other"])
        assert rig.ear.told[2:] == [("leave", "other")]
        rig.channels.leave(guests[1], WHOLE, ["news"])
        assert rig.ear.told[2:] == [("leave", "other"), ("leave", "news")]
        assert rig.people() == (0, 0)
        assert rig.channels.idle


@in_virtual_time
async def test_everybody_gets_what_is_published_in_their_format() -> None:
    """On each of their channels, once; who has left gets nothing."""
    async with Rig() as rig:
        one, both = await rig.joined("a"), await rig.joined("a", "b")
        gone = await rig.joined("a")
        rig.channels.leave(gone, LINES, ["a"])
        rig.publish("a")
        rig.publish("b")
        await ticks()
        assert one.lines == ["a e1/1 m1"]
        assert both.lines == ["a e1/1 m1 b=e1/0", "b e1/1 m1 a=e1/1"]
        assert gone.lines == []
        assert value(rig.tallies.channel_deliveries) == 3


@in_virtual_time
async def test_one_seat_has_one_outlet_whatever_the_order_of_its_channels() -> None:
    """And another for each format."""
    async with Rig() as rig:
        first, second = await rig.joined("a", "b"), await rig.joined("b", "a")
        await rig.joined("a", "b", form=WHOLE)
        assert len(rig.channels._topics["a"].outlets) == 2
        rig.channels.leave(first, LINES, ["a", "b"])
        rig.channels.leave(second, LINES, ["b", "a"])
        assert len(rig.channels._topics["a"].outlets) == len(rig.channels._topics["b"].outlets) == 1


@in_virtual_time
async def test_who_leaves_what_it_has_not_changes_nothing() -> None:
    """Another's seat, another format, other channels, twice."""
    async with Rig() as rig:
        guest = await rig.joined("a", "b")
        stranger = GuestDouble()
        rig.channels.leave(stranger, LINES, ["a", "b"])
        rig.channels.leave(guest, WHOLE, ["a", "b"])
        rig.channels.leave(guest, LINES, ["a"])
        rig.channels.leave(guest, LINES, ["unknown"])
        assert rig.people() == (2, 2)
        rig.channels.leave(guest, LINES, ["a", "b"])
        rig.channels.leave(guest, LINES, ["a", "b"])
        assert rig.people() == (0, 0)


@in_virtual_time
async def test_who_leaves_before_it_has_joined_is_not_let_in() -> None:
    """And the channel is let go once its order is over."""
    async with Rig() as rig:
        guest = rig.attend("news")
        rig.channels.leave(guest, LINES, ["news"])
        await rig.listen("news")
        assert guest.told == []
        assert rig.channels.idle
        assert rig.ear.told == [("listen", "news"), ("leave", "news")]


@in_virtual_time
async def test_who_cannot_join_leaves_nothing_behind() -> None:
    """The ear never listened."""
    async with Rig() as rig:
        guest = rig.attend("news")
        await passing(2.0)
        assert guest.told == ["refuse"]
        assert rig.channels.idle
        assert rig.ear.told == [("listen", "news"), ("leave", "news")]
        assert rig.people() == (0, 0)


@in_virtual_time
async def test_nothing_grows() -> None:
    """After a thousand channels that somebody joined and left, with and without messages."""
    async with Rig() as rig:
        for number in range(1000):
            name = f"room {number}"
            guest = rig.attend(name)
            if number % 3:
                rig.channels.listening([name])
                await passing(0.01)
                rig.publish(name)
            guest.closed = bool(number % 2)
            rig.channels.leave(guest, LINES, [name])
            await rig.channels.audience.run_once()
        await passing(RECENT_S + 2)
        channels = rig.channels
        assert channels.unverified() == []
        assert channels.idle
        assert rig.people() == (0, 0)
        assert channels.audience._people == {}
        assert not channels.audience._changed
        assert not channels.audience._unknown
        assert not channels._attendance._pending
        assert not channels._attendance._orders
        assert not channels._fanout._dirty
        assert not channels._fanout._parcels
        told = [each for each, _ in rig.ear.told]
        assert told.count("listen") == told.count("leave") == 1000


@in_virtual_time
async def test_subscribers_are_people_here_and_elsewhere_and_other_clients() -> None:
    """When a message is published and when somebody asks; who is in two seats listens twice."""
    async with Rig() as rig:
        await rig.joined("news")
        await rig.joined("news", "other")
        rig.store.heard_by = {"news": Audience(3, 1), "empty": Audience(0, 2)}
        sent = await rig.channels.publish("news", b"1")
        assert (sent.subscribers, sent.position, sent.again) == (6, Position("e1", 1), False)
        assert await rig.channels.subscribers(["news", "other", "empty", "nobody"]) == [6, 1, 2, 0]


@in_virtual_time
async def test_who_listens_is_told_to_the_store() -> None:
    """As many as there are on this node."""
    async with Rig() as rig:
        guest = await rig.joined("news")
        await rig.joined("news")
        rig.channels.leave(guest, LINES, ["news"])
        await rig.channels.audience.run_once()
        assert [[each.counts for each in reports] for reports in rig.store.reports] == [[((channel().kid, 1),)]]


@in_virtual_time
async def test_a_message_comes_back_by_the_ear_alone() -> None:
    """Whoever published it is told where it stands; listeners hear it in its place."""
    async with Rig() as rig:
        guest = await rig.joined("news")
        sent = await rig.channels.publish("news", b"7", "request")
        again = await rig.channels.publish("news", b"7", "request")
        assert (again.id, again.position, again.again) == (sent.id, sent.position, True)
        await ticks()
        assert guest.lines == []
        rig.channels.arrived("news", "e1", Publication(1, sent.id, b"7"))
        await ticks()
        assert guest.lines == [f"news e1/1 {sent.id}"]


@in_virtual_time
async def test_a_history_is_read_from_a_position_or_the_start() -> None:
    """Whatever epoch it has; within the bounds of a page."""
    async with Rig() as rig:
        rig.store.stream().add(5)
        assert (await rig.channels.history("news", None, 2)).publications == publications(1, 2)
        assert (await rig.channels.history("news", Position("e1", 3), 9)).publications == publications(4, 5)
        assert rig.store.recalls[0] == Recall(
            channel=channel(), since=Position("", 0), limit=2, bytes_max=HISTORY_BYTES
        )
        rig.store.away = True
        with pytest.raises(StoreAway):
            await rig.channels.history("news", None, 2)


@in_virtual_time
async def test_active_channels_are_sorted() -> None:
    """As the store names them."""
    async with Rig() as rig:
        for name in ("b", "c", "a"):
            rig.store.stream(name)
        assert await rig.channels.active("*") == ["a", "b", "c"]


@in_virtual_time
async def test_what_was_missed_while_deaf_comes_before_what_follows() -> None:
    """In one order, without a word of it."""
    async with Rig() as rig:
        guest = await rig.joined("news")
        rig.channels.deaf(["news", "unknown"])
        rig.publish(times=3)
        rig.channels.listening(["news", "unknown"])
        await passing(LATE_S)
        rig.publish()
        await ticks()
        assert guest.lines == [f"news e1/{offset} m{offset}" for offset in (1, 2, 3, 4)]
        assert guest.losses == []


@in_virtual_time
async def test_everybody_is_told_of_what_is_lost() -> None:
    """With where the other channels of their seats stand; after what was published before it, before what follows."""
    async with Rig() as rig:
        guests = [await rig.joined("a"), await rig.joined("a", "b"), await rig.joined("a", form=WHOLE)]
        other = await rig.joined("b")
        rig.publish("b")
        rig.publish("a")
        rig.channels.deaf(["a"])
        rig.store.stream("a").add(4)
        rig.store.stream("a").kept.clear()
        rig.channels.listening(["a"])
        await passing(LATE_S)
        rig.publish("a")
        await ticks()
        assert [guest.told for guest in guests] == [["admit", "send", "lost", "send"]] * 3
        assert guests[0].losses == [("a", Position("e1", 5), {})]
        assert guests[1].losses == [("a", Position("e1", 5), {"b": Position("e1", 1)})]
        assert other.losses == []
        assert value(rig.tallies.channel_lost) == 1


@in_virtual_time
async def test_who_leaves_when_it_is_told_of_a_loss_disturbs_nobody() -> None:
    """Some clients can only be closed then."""
    async with Rig() as rig:
        guests: list[GuestDouble] = [await rig.joined("news") for _ in range(3)]
        lost = guests[0].lost

        def leaves(name: str, position: Position, others: Sequence[tuple[str, Position]]) -> None:
            lost(name, position, others)
            guests[0].closed = True
            rig.channels.leave(guests[0], LINES, ["news"])

        guests[0].lost = leaves  # type: ignore[method-assign]  # what its edge does
        rig.store.stream().epoch = "e2"
        rig.channels.arrived("news", "e2", publications(1, 1)[0])
        await passing(LATE_S)
        assert [len(guest.losses) for guest in guests] == [1, 1, 1]
        assert rig.people() == (1, 2)


@in_virtual_time
async def test_a_question_without_an_answer_is_asked_again() -> None:
    """After RETRY_S, until there is one: an ear that listens is not enough."""
    async with Rig() as rig:
        rig.store.away = True
        guest = rig.attend("news")
        rig.channels.listening(["news"])
        await passing(3.5 * RETRY_S)
        assert len(rig.store.recalls) == 4
        rig.store.away = False
        await passing(RETRY_S)
        assert guest.told == ["admit"]
        assert len({each.mark for each in rig.store.recalls}) == 5, "each question has a mark of its own"


@in_virtual_time
async def test_nobody_asks_for_a_channel_that_was_left() -> None:
    """Although a question of it had no answer yet, and was to be asked again."""
    async with Rig() as rig:
        guest = await rig.joined("news")
        rig.store.away = True
        rig.channels.listening(["news"])
        await passing(RETRY_S / 2)
        rig.channels.leave(guest, LINES, ["news"])
        assert rig.channels.idle
        asked = len(rig.store.recalls)
        await passing(10 * RETRY_S)
        assert len(rig.store.recalls) == asked


@in_virtual_time
async def test_an_answer_for_those_who_left_is_not_for_those_who_came_after() -> None:
    """The channel was left and joined again while the store was asked."""
    async with Rig() as rig:
        guest = await rig.joined("news")
        rig.store.took_s = 0.1
        rig.channels.listening(["news"])
        rig.channels.leave(guest, LINES, ["news"])
        late = rig.attend("news")
        await passing(0.5)
        assert late.told == []
        rig.store.stream().add(3)
        rig.channels.listening(["news"])
        await passing(0.2)
        assert [joined.position for joined in late.admissions[0]] == [Position("e1", 3)]


@in_virtual_time
async def test_foreign_messages_are_counted_from_the_mark_and_asked_for() -> None:
    """They are told to nobody before they have an offset; then like any other."""
    async with Rig() as rig:
        guest = await rig.joined("news")
        rig.channels.marked("news", "k1")
        rig.channels.foreign("news", b"hola")
        rig.channels.foreign("unknown", b"1")
        await passing(LATE_S)
        [ingest] = rig.store.ingests
        assert (ingest.mark, ingest.number, [data for _, data in ingest.messages]) == ("k1", 1, [b'"hola"'])
        assert guest.lines == []
        rig.channels.ingested("news", "k1", 1)
        rig.publish()
        await ticks()
        assert guest.lines == ["news e1/1 m1"]
        assert value(rig.tallies.channel_foreign) == 1


@in_virtual_time
async def test_a_foreign_message_is_asked_for_until_it_has_an_offset() -> None:
    """The store is away for a while; another node's question counts as well."""
    async with Rig() as rig:
        await rig.joined("news")
        rig.channels.marked("news", "k1")
        rig.store.away = True
        rig.channels.foreign("news", b"1")
        await passing(2.5 * RETRY_S)
        assert len(rig.store.ingests) == 3
        rig.channels.ingested("news", "k1", 1)
        await passing(5 * RETRY_S)
        assert len(rig.store.ingests) == 3


@pytest.mark.parametrize("heard", ["deaf", "listening"])
@in_virtual_time
async def test_foreign_messages_are_not_counted_over_an_interruption(heard: str) -> None:
    """Nobody knows what number they have until the next mark, whichever of the two is told first."""
    async with Rig() as rig:
        await rig.joined("news")
        rig.channels.marked("news", "k1")
        getattr(rig.channels, heard)(["news"])
        rig.channels.foreign("news", b"1")
        rig.channels.marked("news", "k2")
        rig.channels.foreign("news", b"2")
        await passing(LATE_S)
        assert [(each.mark, each.number, len(each.messages)) for each in rig.store.ingests] == [("k2", 1, 1)]
