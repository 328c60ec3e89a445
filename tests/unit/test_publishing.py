"""Messages on their way into their streams: ids, order, what is remembered of them, and for how long."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from actors import publishing as publishings
from actors.channel_ports import Audience, Position, Published, Recall
from actors.core.ids import MESSAGE_PREFIX
from actors.ports import Overloaded, StoreAway
from actors.publishing import RECENT_MAX, RECENT_S, Publishing, derived_id
from actors.runtime.outcome import settle
from tests.support.channel_doubles import StoreDouble, channel
from tests.support.channel_meters import ChannelTallies
from tests.support.doubles import Stage, value
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

A, B = channel("a"), channel("b")


class Rig(Stage):
    """Publishing on a stage; ids are m1, m2 …, marks k1, k2 …"""

    def __init__(self) -> None:
        super().__init__()
        self.store = StoreDouble()
        self.tallies = ChannelTallies()
        self._ids = 0
        self._marks = 0
        self.publishing = Publishing(
            self.store, self.supervisor, self.clock, self.tallies, self._new_id, self._new_mark
        )

    def _new_id(self) -> str:
        self._ids += 1
        return f"m{self._ids}"

    def _new_mark(self) -> str:
        self._marks += 1
        return f"k{self._marks}"

    def full(self, data: bytes) -> bool:
        """Publish once more; true when that is refused."""
        try:
            self.publishing.publish_unheeded(A, data)
        except Overloaded:
            return True
        return False

    async def submitted(self, data: bytes, once: str | None) -> tuple[str, Published]:
        """Publish something; gives its id and what became of it."""
        over: asyncio.Future[Published] = asyncio.get_running_loop().create_future()
        message_id = self.publishing.submit(A, data, once, partial(settle, over))
        return message_id, await over

    def unverified(self) -> list[tuple[str, Position | None, str]]:
        """What a store that came back is asked about."""
        return [(each.channel.name, each.since, each.last_id) for each in self.publishing.unverified()]


@in_virtual_time
async def test_a_message_is_acknowledged_with_its_place() -> None:
    """And with who was there, as the store says; after the store has it."""
    async with Rig() as rig:
        rig.store.heard_by["a"] = Audience(2, 1)
        rig.store.took_s = 0.1
        began = rig.clock.monotonic()
        message_id, published = await rig.submitted(b"1", None)
        assert rig.clock.monotonic() - began >= 0.1
        assert (message_id, published) == ("m1", Published(Position("e1", 1), 2, 1))
        assert value(rig.tallies.channel_publications) == 1


@in_virtual_time
async def test_messages_keep_their_order() -> None:
    """However many are under way, and whether somebody waits for them or not."""
    async with Rig() as rig:
        rig.store.took_s = 0.01
        tasks = []
        for number in range(0, 40, 2):
            tasks.append(asyncio.ensure_future(rig.publishing.publish(A, b"%d" % number, None)))
            await ticks(3)
            rig.publishing.publish_unheeded(A, b"%d" % (number + 1))
        await asyncio.gather(*tasks)
        await rig.publishing.drained()
        assert [each.data for each in rig.store.publishes] == [b"%d" % number for number in range(40)]
        assert [each.offset for each in rig.store.stream("a").kept] == list(range(1, 41))


@in_virtual_time
async def test_a_request_is_published_once() -> None:
    """Its id follows from its name, on every node; what stood there already is neither counted nor remembered."""
    async with Rig() as rig:
        first = await rig.submitted(b"1", "request-1")
        await passing(RECENT_S + 0.1)
        again = await rig.submitted(b"1", "request-1")
        assert first[0] == again[0] == derived_id("request-1")
        assert (first[1].again, again[1].again) == (False, True)
        assert again[1].position == first[1].position
        assert value(rig.tallies.channel_publications) == 1
        assert rig.unverified() == []
        assert [each.once for each in rig.store.publishes] == [True, True]


def test_derived_ids_are_ids_of_messages() -> None:
    """Of one length, different for different requests."""
    assert derived_id("a").startswith(MESSAGE_PREFIX)
    assert derived_id("a") == derived_id("a") != derived_id("b")
    assert len(derived_id("ñ" * 1000)) == len(derived_id(""))


@in_virtual_time
async def test_only_what_is_sent_twice_is_looked_for() -> None:
    """A message without a request's name is new."""
    async with Rig() as rig:
        await rig.publishing.publish(A, b"1", None)
        rig.publishing.publish_unheeded(A, b"1")
        await rig.publishing.drained()
        assert [(each.id, each.once) for each in rig.store.publishes] == [("m1", False), ("m2", False)]


@in_virtual_time
async def test_a_store_that_is_away_is_said_to_who_waits() -> None:
    """Who does not wait hears nothing; neither is remembered, for nobody was told that it is there."""
    async with Rig() as rig:
        rig.store.away = True
        with pytest.raises(StoreAway):
            await rig.publishing.publish(A, b"1", None)
        rig.publishing.publish_unheeded(A, b"2")
        await rig.publishing.drained()
        assert rig.unverified() == []
        assert value(rig.tallies.channel_publications) == 0
        assert rig.crashes == []


@in_virtual_time
async def test_too_much_at_once_is_refused() -> None:
    """Whether somebody waits or not; what was taken is published."""
    async with Rig() as rig:
        rig.store.took_s = 0.1
        megabyte = b"x" * (1 << 20)
        taken = 0
        while not rig.full(megabyte):
            taken += 1
        with pytest.raises(Overloaded):
            await rig.publishing.publish(A, megabyte, None)
        await rig.publishing.drained()
        assert 1 <= taken <= 20
        assert rig.store.stream("a").top == taken


@in_virtual_time
async def test_where_each_channel_stood_is_remembered_for_a_while() -> None:
    """After the last message of each; RECENT_S later the store can't have lost it any more."""
    async with Rig() as rig:
        await rig.publishing.publish(A, b"1", None)
        await rig.publishing.publish(B, b"2", None)
        await passing(RECENT_S - 1)
        await rig.publishing.publish(A, b"3", None)
        assert rig.publishing.stands("a") == Position("e1", 2)
        assert rig.unverified() == [("b", Position("e1", 1), "m2"), ("a", Position("e1", 2), "m3")]
        await passing(1.1)
        assert rig.publishing.stands("b") is None
        assert rig.unverified() == [("a", Position("e1", 2), "m3")]
        await passing(RECENT_S)
        assert rig.unverified() == []


@in_virtual_time
async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go first; who was heard of again is young."""
    monkeypatch.setattr(publishings, "RECENT_MAX", 3)
    assert RECENT_MAX >= 1000
    async with Rig() as rig:
        for name in ("a", "b", "c", "a", "d"):
            rig.publishing.remember(channel(name), Position("e1", 1), "m1")
        assert [name for name, _, _ in rig.unverified()] == ["c", "a", "d"]


@in_virtual_time
async def test_questions_of_a_join_carry_a_mark_and_their_bounds() -> None:
    """A new mark each; the answer is given to whoever submits it."""
    async with Rig() as rig:
        rig.store.stream("a").add(7)
        answers: list[object] = []
        rig.publishing.join(A, Position("e1", 4), "m4", (2, 1000))(answers.append)
        rig.publishing.join(A, None, "", (2, 1000))(answers.append)
        await passing(0.01)
        assert rig.store.recalls == [
            Recall(channel=A, since=Position("e1", 4), limit=2, bytes_max=1000, mark="k1", last_id="m4"),
            Recall(channel=A, since=None, limit=2, bytes_max=1000, mark="k2", last_id=""),
        ]
        assert answers == [rig.store.recalled(each) for each in rig.store.recalls]


@in_virtual_time
async def test_a_join_without_an_answer_is_told_so() -> None:
    """By the exception that stands for it."""
    async with Rig() as rig:
        rig.store.away = True
        answers: list[object] = []
        rig.publishing.join(A, None, "", (2, 1000))(answers.append)
        await passing(0.01)
        [answer] = answers
        assert isinstance(answer, StoreAway)


@in_virtual_time
async def test_what_is_verified_is_asked_with_a_mark_and_the_id() -> None:
    """So that the store looks at its own, and begins a new epoch where it is not there."""
    async with Rig() as rig:
        await rig.publishing.publish(A, b"1", None)
        [recall] = rig.publishing.unverified()
        assert recall == Recall(channel=A, since=Position("e1", 1), limit=1, bytes_max=1, mark="k1", last_id="m1")
