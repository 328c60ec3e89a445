"""One connection between two peers, both ends in virtual time: who is let in, who is answered, and when nobody is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.adapters.peers import caller as answering
from actors.adapters.peers.caller import Caller, Service
from actors.adapters.peers.frames import MESSAGES_BYTES_MAX, UNWRITTEN_BYTES_MAX
from actors.adapters.peers.handshake import HELLO_BYTES_MAX, MAGIC, NONCE_BYTES, WELCOME_BYTES, hello
from actors.adapters.peers.link import QUESTIONS_MAX, SILENT_S, Link
from actors.node_ports import PeerAnswer, PeerAppend, PeerAway, PeerDrop, PeerFlush, PeerRequest
from actors.ports import ClosedBatch, NothingOpen, Overloaded, StoreAway
from tests.support.cable import End, alone, plug
from tests.support.doubles import Stage, make_entry
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time, ticks

SECRET = b"0123456789abcdef" * 4
CLOSED = ClosedBatch("dlv_1", 3, "a.example", "manual", True)
DROP = PeerDrop("k")


class Desk:
    """Answers `answer` after `takes_s`, or raises it."""

    def __init__(self) -> None:
        self.answer: PeerAnswer | Exception = 7
        self.takes_s = 0.0
        self.served: list[tuple[PeerRequest, float]] = []
        self.finished = 0

    async def serve(self, request: PeerRequest, within_s: float) -> PeerAnswer:
        """Take a request."""
        self.served.append((request, within_s))
        await passing(self.takes_s)
        self.finished += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Pair:
    """A link and a caller on one cable. `strangers` and `peers` are what the caller's door counts."""

    def __init__(self, stage: Stage, *, secret: bytes = SECRET, expected: str = "b", jobs: Any = None) -> None:
        self.stage = stage
        self.desk = Desk()
        service = Service("b", lambda: SECRET, self.desk, jobs or stage.supervisor, stage.clock.boottime)
        self.events: list[str] = []
        self.link = Link(hello("a", expected, b"n" * NONCE_BYTES), secret, stage.clock.boottime)
        self.caller = Caller(service, self, b"l" * NONCE_BYTES)
        self.near: End
        self.far: End

    def plugged(self) -> Pair:
        """Begin."""
        self.near, self.far = plug(self.link, self.caller)
        return self

    def came(self, caller: Caller) -> None:
        """Door."""
        self.events.append("came")

    def proved(self, caller: Caller) -> None:
        """Door."""
        self.events.append("proved")

    def gone(self, caller: Caller) -> None:
        """Door."""
        self.events.append("gone")

    async def open(self) -> Pair:
        """Begin, and wait for the end of the handshake."""
        self.plugged()
        await self.link.opened
        await ticks(3)
        return self


@in_virtual_time
async def test_what_is_asked_is_done_and_answered() -> None:
    """With what remains of its time."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        assert pair.events == ["came", "proved"]
        pair.desk.answer = CLOSED
        assert await pair.link.ask(PeerFlush("k", "dlv_1"), 1.0) == CLOSED
        assert pair.desk.served == [(PeerFlush("k", "dlv_1"), 1.0)]


@in_virtual_time
async def test_many_questions_of_a_tick_leave_in_one_write() -> None:
    """And their answers come back in one; each is given to who asked."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        before = len(pair.near.sent), len(pair.far.sent)
        assert await asyncio.gather(*(pair.link.ask(DROP, 1.0) for _ in range(50))) == [7] * 50
        assert (len(pair.near.sent) - before[0], len(pair.far.sent) - before[1]) == (1, 1)


@in_virtual_time
async def test_a_slow_question_does_not_hold_up_the_others() -> None:
    """Answers come in any order."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.takes_s = 0.5
        slow = pair.link.ask(DROP, 1.0)
        await passing(0.1)
        pair.desk.takes_s, pair.desk.answer = 0.0, NothingOpen()
        assert await pair.link.ask(DROP, 1.0) == NothingOpen()
        assert not slow.done()
        await slow


@in_virtual_time
@pytest.mark.parametrize("trouble", [StoreAway("the store is away"), Overloaded("full")], ids=repr)
async def test_trouble_over_there_is_told(trouble: StoreAway | Overloaded) -> None:
    """As what it is."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.answer = trouble
        with pytest.raises(type(trouble), match=str(trouble)):
            await pair.link.ask(DROP, 1.0)


@in_virtual_time
async def test_an_answer_that_is_late_is_nobodys() -> None:
    """The asker goes on in time, the job is ended, the connection stays."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.takes_s = 0.2
        began = stage.clock.monotonic()
        with pytest.raises(PeerAway):
            await pair.link.ask(DROP, 0.05)
        assert stage.clock.monotonic() - began == pytest.approx(0.05)
        await passing(0.3)
        assert (len(pair.desk.served), pair.desk.finished) == (1, 0)
        pair.desk.takes_s = 0.0
        assert await pair.link.ask(DROP, 0.05) == 7
        assert stage.crashes == []


@in_virtual_time
async def test_what_waited_in_a_frozen_process_is_not_begun() -> None:
    """Its asker has long gone another way; what is asked afterwards is done."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        assert await pair.link.ask(DROP, 1.0) == 7
        pair.near.held = True
        late = pair.link.ask(DROP, 0.05)
        later = pair.link.ask(DROP, 0.5)
        with pytest.raises(PeerAway):
            await late
        await passing(0.05)
        pair.near.release()
        assert await later == 7
        assert [within_s for _, within_s in pair.desk.served] == [1.0, pytest.approx(0.4, abs=0.002)]


@in_virtual_time
async def test_a_peer_that_says_nothing_is_given_up() -> None:
    """When it has been asked and silent for a while; whoever waits is told at once."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        await passing(100.0)
        assert not pair.link.ended
        pair.far.held = True
        patient = pair.link.ask(DROP, 5.0)
        with pytest.raises(PeerAway):
            await pair.link.ask(DROP, SILENT_S / 2)
        assert not pair.link.ended
        with pytest.raises(PeerAway):
            await pair.link.ask(DROP, SILENT_S / 2)
        assert pair.link.ended
        with pytest.raises(PeerAway, match="silent"):
            await patient
        await ticks(2)
        assert pair.events[-1] == "gone"


@in_virtual_time
async def test_silence_after_an_answer_is_noticed_too() -> None:
    """Another question was still under way when the peer said its last."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.takes_s = 60.0
        patient = pair.link.ask(DROP, SILENT_S + 0.5)
        await passing(0.1)
        pair.desk.takes_s = 0.0
        assert await pair.link.ask(DROP, 1.0) == 7
        with pytest.raises(PeerAway):
            await patient
        assert pair.link.ended


@in_virtual_time
async def test_slow_answers_are_no_silence() -> None:
    """A peer that answers others, or late, lives."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.takes_s = 0.06
        for _ in range(40):
            with pytest.raises(PeerAway):
                await pair.link.ask(DROP, 0.05)
            pair.desk.takes_s = 0.0
            assert await pair.link.ask(DROP, 0.05) == 7
            pair.desk.takes_s = 0.06
        assert not pair.link.ended


@in_virtual_time
async def test_a_cable_that_is_cut_tells_everybody() -> None:
    """Nobody waits for a deadline then; a link that has ended takes nothing more."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.takes_s = 0.5
        waiting = [pair.link.ask(DROP, 5.0) for _ in range(3)]
        await passing(0.1)
        pair.far.abort()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in outcomes] == [PeerAway] * 3
        assert pair.events == ["came", "proved", "gone"]
        with pytest.raises(PeerAway):
            pair.link.ask(DROP, 1.0)
        await passing(1.0)
        assert pair.desk.finished == 3  # what was begun is not taken back
        assert stage.crashes == []


@in_virtual_time
async def test_an_asker_that_goes_away_leaves_nothing_behind() -> None:
    """Neither with the answer nor without."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.takes_s = 0.02
        pair.link.ask(DROP, 1.0).cancel()
        pair.link.ask(DROP, 0.01).cancel()
        await passing(2.0)
        assert pair.link._waiting == {}
        assert not pair.link.ended


@in_virtual_time
async def test_what_is_under_way_is_bounded_on_both_sides() -> None:
    """More is refused at once and nothing of it is done."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.takes_s = 0.5
        asked = [pair.link.ask(DROP, 1.0) for _ in range(QUESTIONS_MAX)]
        with pytest.raises(Overloaded):
            pair.link.ask(DROP, 1.0)
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        done = sum(outcome == 7 for outcome in outcomes)
        assert done == len(pair.desk.served) == answering.QUESTIONS_MAX
        assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == QUESTIONS_MAX - done
        again = await asyncio.gather(*(pair.link.ask(DROP, 1.0) for _ in range(done)))
        assert again == [7] * done  # what has ended is not counted any more


@in_virtual_time
async def test_a_peer_that_does_not_read_is_bounded_too() -> None:
    """It is asked nothing more, and one that asks and does not listen is cut off."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.near.held = True
        large = PeerAppend([make_entry(payload=b"x" * (MESSAGES_BYTES_MAX // 2))])
        waiting = [pair.link.ask(large, 0.5) for _ in range(3)]
        await ticks(2)
        waiting.append(pair.link.ask(large, 0.5))
        with pytest.raises(Overloaded):
            pair.link.ask(large, 0.5)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {PeerAway}
        assert UNWRITTEN_BYTES_MAX < pair.near.get_write_buffer_size() < 2 * UNWRITTEN_BYTES_MAX

        pair = await Pair(stage).open()
        pair.far.held = True
        pair.desk.answer = [StoreAway("x" * (MESSAGES_BYTES_MAX // 2))]
        asking = [pair.link.ask(DROP, 0.9) for _ in range(20)]
        await passing(0.1)
        assert pair.events[-1] == "gone"
        assert {type(each) for each in await asyncio.gather(*asking, return_exceptions=True)} == {PeerAway}


@in_virtual_time
async def test_a_node_with_too_many_jobs_says_so() -> None:
    """The supervisor's bound holds for peers too."""
    async with Stage(jobs_max=2) as stage:
        pair = await Pair(stage).open()
        pair.desk.takes_s = 0.1
        outcomes = await asyncio.gather(*(pair.link.ask(DROP, 1.0) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [int, int, Overloaded]


@in_virtual_time
async def test_what_fits_into_no_frame_is_refused_here() -> None:
    """It would end the connection over there. What fits just so goes, next to others."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.answer = []
        with pytest.raises(Overloaded):
            pair.link.ask(PeerAppend([make_entry(payload=b"x" * MESSAGES_BYTES_MAX)]), 1.0)
        large = PeerAppend([make_entry(payload=b"x" * (MESSAGES_BYTES_MAX - 1000))])
        answers = await asyncio.gather(*(pair.link.ask(request, 1.0) for request in (large, large, DROP)))
        assert answers == [[], [], []]


@in_virtual_time
async def test_a_crash_over_there_is_no_answer_and_is_reported() -> None:
    """The asker's deadline ends it; the connection stays."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        pair.desk.answer = RuntimeError("a bug")
        with pytest.raises(PeerAway):
            await pair.link.ask(DROP, 0.5)
        assert stage.crash_names() == ["peer-question"]
        pair.desk.answer = 7
        assert await pair.link.ask(DROP, 0.5) == 7


REFUSED: dict[str, Callable[[Stage], Pair]] = {
    "another secret": lambda stage: Pair(stage, secret=SECRET[::-1]),
    "no secret yet": lambda stage: Pair(stage, secret=b""),
    "another node is meant": lambda stage: Pair(stage, expected="c"),
}


@in_virtual_time
@pytest.mark.parametrize("why", REFUSED)
async def test_a_stranger_is_not_let_in(why: str) -> None:
    """The one who finds out hangs up; nothing is asked, and nobody is told what was wrong."""
    async with Stage() as stage:
        pair = REFUSED[why](stage).plugged()
        with pytest.raises(PeerAway):
            await pair.link.opened
        await ticks(3)
        assert pair.events == ["came", "gone"]
        assert pair.desk.served == []
        if why == "another node is meant":
            assert pair.far.sent == []


@in_virtual_time
async def test_a_listener_that_does_not_know_the_secret_yet_lets_nobody_in() -> None:
    """Not even one who does not know it either."""
    async with Stage() as stage:
        pair = Pair(stage, secret=b"")
        pair.caller._service = msgspec.structs.replace(pair.caller._service, secret=lambda: b"")
        pair.plugged()
        with pytest.raises(PeerAway):
            await pair.link.opened
        assert pair.far.sent == []


@in_virtual_time
async def test_a_recorded_connection_cannot_be_played_again() -> None:
    """To a listener with a fresh nonce the old proof is none, and the frames behind it are not looked at."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        await pair.link.ask(DROP, 1.0)
        recording = b"".join(pair.near.sent)

        again = Pair(stage)
        again.caller._nonce = b"m" * NONCE_BYTES
        far = alone(again.caller)
        again.caller.data_received(recording)
        await ticks(3)
        assert again.events == ["came", "gone"]
        assert again.desk.served == []
        assert far.closed


@in_virtual_time
@pytest.mark.parametrize("direction", ["question", "answer"])
async def test_a_frame_that_was_changed_ends_the_connection(direction: str) -> None:
    """It is not acted on."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        end = pair.near if direction == "question" else pair.far
        end.alter = lambda data: data[:-1] + bytes((data[-1] ^ 1,))
        with pytest.raises(PeerAway):
            await pair.link.ask(DROP, 1.0)
        await ticks(2)
        assert pair.link.ended
        assert pair.events[-1] == "gone"
        assert len(pair.desk.served) == (direction == "answer")


@in_virtual_time
@pytest.mark.parametrize(("sent_twice", "kind"), [("question", PeerAway), ("answer", int)])
async def test_a_frame_that_comes_twice_ends_the_connection(sent_twice: str, kind: type) -> None:
    """The first time it counts."""
    async with Stage() as stage:
        pair = await Pair(stage).open()
        (pair.near if sent_twice == "question" else pair.far).alter = lambda data: data * 2
        outcomes = await asyncio.gather(pair.link.ask(DROP, 1.0), return_exceptions=True)
        await ticks(3)
        assert isinstance(outcomes[0], kind)
        assert pair.link.ended
        assert len(pair.desk.served) == 1


@given(garbage=st.binary(max_size=3000), like_a_hello=st.booleans())
@settings(max_examples=60, deadline=None)
@in_virtual_time
async def test_garbage_never_gets_past_the_door(garbage: bytes, like_a_hello: bool) -> None:
    """Whatever is said: nothing is served, no more is kept than a hello takes, and nothing is answered."""
    async with Stage() as stage:
        pair = Pair(stage)
        far = alone(pair.caller)
        said = MAGIC + garbage if like_a_hello else garbage
        for at in range(0, len(said), 700):
            if not far.closed:
                pair.caller.data_received(said[at : at + 700])
        await ticks(2)
        assert pair.desk.served == []
        assert "proved" not in pair.events
        assert len(pair.caller._received) <= HELLO_BYTES_MAX
        assert far.sent == []


@given(garbage=st.binary(min_size=1, max_size=500))
@settings(max_examples=40, deadline=None)
@in_virtual_time
async def test_garbage_from_a_listener_opens_nothing(garbage: bytes) -> None:
    """A dialler hangs up when the welcome is none, and says nothing more than its hello."""
    link = Link(hello("a", "b", b"n" * NONCE_BYTES), SECRET, lambda: 0.0)
    end = alone(link)
    link.data_received(garbage)
    await ticks(2)
    assert not link.opened.done() or link.opened.exception() is not None
    assert end.closed == (len(garbage) >= WELCOME_BYTES)
    assert len(end.sent) == 1
