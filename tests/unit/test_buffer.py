"""One buffer: what it decides, and the thin shell that does it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from actors.buffer import (
    RETRY_CLOSE_S,
    Answer,
    Arm,
    AskClose,
    Buffer,
    Closed,
    DeadlineReached,
    Deliver,
    Disown,
    Effect,
    Flush,
    Flushed,
    Forget,
    Heard,
    Inbox,
    Open,
    Shell,
    Stored,
    decide,
)
from actors.ports import Appended, ClosedBatch, Fenced, NotDue, NothingOpen, Overloaded, StoreAway
from tests.support.virtual_time import in_virtual_time

NOW = 500.0
T0_MS = 1_800_000_000_000
"""The store's clock at monotonic time 0."""
FIRST = ClosedBatch("dlv_00a", 5, "a.example", "size", True)
BEHIND = ClosedBatch("dlv_00b", 5, "a.example", "timeout", False)
FENCE = Fenced(9, "node-2")
AWAY = StoreAway("away")


class ReplyCard:
    """A future without a loop."""

    def __init__(self) -> None:
        self.answers: list[object] = []

    def done(self) -> bool:
        """Whether there is an answer."""
        return bool(self.answers)

    def set_result(self, result: object, /) -> None:
        """The answer."""
        self.answers.append(result)

    def set_exception(self, exception: type | BaseException, /) -> None:
        """The answer is an error."""
        self.answers.append(exception)


def ms(at: float) -> int:
    """A monotonic time on the store's clock."""
    return T0_MS + round(at * 1000)


def stored(size: int, due_at: float, *, now: float = NOW, duplicate: bool = False) -> Stored:
    """The store took a message, and the batch falls due then."""
    return Stored(Appended(size, 10 * size, round((due_at - now) * 1000), ms(due_at), duplicate, None))


def filled(batch: ClosedBatch) -> Stored:
    """The message that filled the batch."""
    return Stored(Appended(batch.size, 50, 0, ms(NOW + 5), False, batch))


DUE = NOW + 20.0
OPEN = Open(ms(DUE), DUE)
OVERDUE = Open(ms(NOW - 0.1), NOW - 0.1)
REPLY = ReplyCard()


@pytest.mark.parametrize(
    ("state", "message", "after", "effects"),
    [
        pytest.param(None, stored(1, DUE), OPEN, (Arm(DUE),), id="the first message opens a batch"),
        pytest.param(OPEN, stored(2, DUE), OPEN, (), id="a window keeps its deadline"),
        pytest.param(OPEN, stored(2, DUE + 3), Open(ms(DUE + 3), DUE + 3), (), id="a debounce moves it, not the timer"),
        pytest.param(OPEN, stored(2, DUE - 3), Open(ms(DUE - 3), DUE - 3), (Arm(DUE - 3),), id="or moves it nearer"),
        pytest.param(None, Stored(Appended(0, 0, 0, 0, True, None)), None, (), id="a late duplicate opens nothing"),
        pytest.param(OPEN, Stored(Appended(0, 0, 0, 0, True, None)), OPEN, (), id="nor closes anything"),
        pytest.param(None, stored(2, DUE, duplicate=True), OPEN, (Arm(DUE),), id="a duplicate tells of a batch"),
        pytest.param(OPEN, filled(FIRST), None, (Arm(None), Deliver(FIRST)), id="a full batch may start"),
        pytest.param(OPEN, filled(BEHIND), None, (Arm(None),), id="unless another of its key is in front"),
        pytest.param(None, filled(FIRST), None, (Arm(None), Deliver(FIRST)), id="one message may fill it"),
        pytest.param(None, Heard(ms(DUE), DUE), OPEN, (Arm(DUE),), id="a sweep tells of a batch"),
        pytest.param(OPEN, Heard(ms(DUE), DUE + 0.01), OPEN, (), id="that is known"),
        pytest.param(
            OPEN, Heard(ms(DUE + 5), DUE + 5), Open(ms(DUE + 5), DUE + 5), (Arm(DUE + 5),), id="or is another"
        ),
        pytest.param(None, DeadlineReached(), None, (), id="a stale timer does nothing"),
        pytest.param(OPEN, DeadlineReached(), OPEN, (Arm(DUE),), id="an early one is set again"),
        pytest.param(
            OVERDUE,
            DeadlineReached(),
            OVERDUE,
            (AskClose(OVERDUE.deadline_ms, "timeout", None, None),),
            id="a batch that is due is asked to close, if it is the one believed in",
        ),
        pytest.param(
            OPEN, Flush("dlv_1", REPLY), OPEN, (AskClose(None, "manual", "dlv_1", REPLY),), id="a flush closes any"
        ),
        pytest.param(
            None, Flush("dlv_1", REPLY), None, (AskClose(None, "manual", "dlv_1", REPLY),), id="also one unheard of"
        ),
        pytest.param(
            OVERDUE,
            Closed(NotDue(700, ms(NOW + 0.7)), None),
            Open(ms(NOW + 0.7), NOW + 0.7),
            (Arm(NOW + 0.7),),
            id="a batch that closes later than believed",
        ),
        pytest.param(OVERDUE, Closed(FIRST, None), None, (Arm(None), Deliver(FIRST)), id="closed in time"),
        pytest.param(OVERDUE, Closed(BEHIND, None), None, (Arm(None),), id="closed behind another"),
        pytest.param(OVERDUE, Closed(NothingOpen(), None), None, (Arm(None),), id="somebody closed it before"),
        pytest.param(OVERDUE, Closed(FENCE, None), None, (Arm(None), Disown(FENCE)), id="another node owns it"),
        pytest.param(OVERDUE, Closed(AWAY, None), OVERDUE, (Arm(NOW + RETRY_CLOSE_S),), id="the store is away"),
        pytest.param(None, Closed(AWAY, None), None, (), id="the store is away and nothing is open"),
        pytest.param(OPEN, Closed(FIRST, REPLY), None, (Arm(None), Deliver(FIRST), Answer(REPLY, FIRST)), id="flushed"),
        pytest.param(OPEN, Closed(BEHIND, REPLY), None, (Arm(None), Answer(REPLY, BEHIND)), id="flushed behind"),
        pytest.param(
            None, Closed(NothingOpen(), REPLY), None, (Arm(None), Answer(REPLY, NothingOpen())), id="nothing to flush"
        ),
        pytest.param(
            OPEN, Closed(FENCE, REPLY), None, (Arm(None), Disown(FENCE), Answer(REPLY, FENCE)), id="flush elsewhere"
        ),
        pytest.param(OPEN, Closed(AWAY, REPLY), OPEN, (Answer(REPLY, AWAY),), id="a flush that nobody can know of"),
        pytest.param(OPEN, Forget(), None, (Arm(None),), id="a dropped batch"),
        pytest.param(None, Forget(), None, (Arm(None),), id="a dropped batch unheard of"),
    ],
)
def test_what_follows(state: Open | None, message: Inbox, after: Open | None, effects: tuple[Effect, ...]) -> None:
    """One line for each thing that can happen."""
    decided, done = decide(state, message, NOW)
    assert done == effects
    if after is None:
        assert decided is None
    else:
        assert decided is not None
        assert decided.deadline_ms == after.deadline_ms
        assert decided.due_at == pytest.approx(after.due_at)


class Wish(Struct):
    """A close on its way to the store."""

    ask: AskClose


class World:
    """A store that holds at most one open batch, other nodes that work on it too, and the buffer's timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.state: Open | None = None
        self.timer: float | None = None
        self.in_flight: list[Wish] = []
        self.deadline_ms: int | None = None
        self.closed: list[tuple[str, int, int, str]] = []
        """Batch id, deadline and time of closing (ms), reason."""
        self.delivered: list[str] = []
        self.cards: list[ReplyCard] = []
        self.made = 0

    @property
    def now_ms(self) -> int:
        """The store's clock: whole milliseconds that have passed, give or take what floating point is off by."""
        return T0_MS + int(self.now * 1000 + 1e-6)

    def tell(self, message: Inbox) -> None:
        """One message, and what it makes the buffer do."""
        self.state, effects = decide(self.state, message, self.now)
        for effect in effects:
            match effect:
                case Arm(at):
                    self.timer = at
                case AskClose():
                    self.in_flight.append(Wish(effect))
                case Deliver(batch):
                    self.delivered.append(batch.delivery_id)
                case Answer(reply, value):
                    assert not reply.done(), "answered twice"
                    reply.set_result(value)
                case Disown():
                    pass
        watched = self.timer is not None or any(wish.ask.reply is None for wish in self.in_flight)
        assert self.state is None or watched, "a batch that nothing will ever close"

    def pass_time(self, seconds: float) -> None:
        """The timer fires at its time, or a little late."""
        self.now += seconds
        if self.timer is not None and self.timer <= self.now:
            self.timer = None
            self.tell(DeadlineReached())

    def append(self, wait_s: float, *, debounce: bool, here: bool, fills: bool) -> None:
        """Some node appends; this one hears of it if it was this one."""
        if self.deadline_ms is None or debounce:
            self.deadline_ms = self.now_ms + round(wait_s * 1000)
        deadline_ms, batch = self.deadline_ms, None
        if fills:
            batch = self.freeze(f"by size {self.made}", "size")
        if here:
            remaining_ms = 0 if fills else max(deadline_ms - self.now_ms, 0)
            self.tell(Stored(Appended(1, 1, remaining_ms, deadline_ms, False, batch)))

    def freeze(self, batch_id: str, reason: Any) -> ClosedBatch:
        """The store closes the open batch."""
        assert self.deadline_ms is not None
        self.made += 1
        self.closed.append((batch_id, self.deadline_ms, self.now_ms, reason))
        self.deadline_ms = None
        return ClosedBatch(batch_id, 1, "a.example", reason, True)

    def flush(self) -> None:
        """Somebody wants the batch now."""
        self.cards.append(ReplyCard())
        self.tell(Flush(f"flush {len(self.cards)}", self.cards[-1]))

    def answer(self, fault: str) -> None:
        """The store answers the oldest close: as it is, `away` before it did anything, or `lost` after."""
        if not self.in_flight:
            return
        ask = self.in_flight.pop(0).ask
        outcome: Flushed | NotDue | Exception = AWAY
        if fault != "away":
            outcome = self.close(ask)
        self.tell(Closed(AWAY if fault == "lost" else outcome, ask.reply))

    def close(self, ask: AskClose) -> Flushed | NotDue:
        """What the script does."""
        if self.deadline_ms is None:
            return NothingOpen()
        if ask.deadline_ms is not None and self.deadline_ms > ask.deadline_ms:
            return NotDue(max(self.deadline_ms - self.now_ms, 0), self.deadline_ms)
        return self.freeze(ask.batch_id or f"by time {self.made}", ask.reason)

    def sweep(self) -> None:
        """The safety net, as the supervisor of buffers hands it on."""
        deadline_ms = self.deadline_ms
        if deadline_ms is None or deadline_ms > self.now_ms + 600:
            return
        if self.state is None or self.state.deadline_ms != deadline_ms:
            self.tell(Heard(deadline_ms, self.now + max(deadline_ms - self.now_ms, 0) / 1000))

    def run_out(self) -> None:
        """Nothing more comes, and the store is well: everything must come to its end."""
        for _ in range(2000):
            if self.state is None and self.deadline_ms is None and not self.in_flight:
                return
            self.answer("")
            self.pass_time(0.25)
            self.sweep()
        raise AssertionError("something is never closed")


WAITS = st.sampled_from([0.05, 0.3, 1.0, 20.0])
Step = st.one_of(
    st.tuples(st.just("append"), WAITS, st.booleans(), st.booleans(), st.integers(0, 4).map(lambda roll: roll == 0)),
    st.tuples(st.just("time"), st.sampled_from([0.0, 0.001, 0.05, 0.25, 0.6, 5.0, 30.0])),
    st.tuples(st.just("answer"), st.sampled_from(["", "", "away", "lost"])),
    st.tuples(st.sampled_from(["flush", "sweep", "drop", "drop elsewhere"])),
)


@settings(max_examples=300)
@given(steps=st.lists(Step, max_size=40))
def test_a_batch_is_closed_once_in_time_and_whoever_asked_is_told(steps: list[tuple[Any, ...]]) -> None:
    """Messages here and on other nodes, time, flushes, sweeps, drops, a store that is away or loses its answer, in any
    order. While the buffer knows a batch a timer or a close watches it; a batch closes by time never before its
    deadline; every flush is answered exactly once; when all is over no timer is left."""
    world = World()
    for step in steps:
        match step:
            case ("append", wait_s, debounce, here, fills):
                world.append(wait_s, debounce=debounce, here=here, fills=fills)
            case ("time", seconds):
                world.pass_time(seconds)
            case ("answer", fault):
                world.answer(fault)
            case ("flush",):
                world.flush()
            case ("sweep",):
                world.sweep()
            case ("drop",):
                world.deadline_ms = None
                world.tell(Forget())
            case _:
                world.deadline_ms = None
    world.run_out()
    assert world.timer is None
    assert all(len(card.answers) == 1 for card in world.cards)
    assert all(closed_ms >= deadline_ms for _, deadline_ms, closed_ms, reason in world.closed if reason == "timeout")
    names = [name for name, *_ in world.closed]
    assert len(set(world.delivered)) == len(world.delivered)
    assert set(world.delivered) <= set(names)


@given(steps=st.lists(st.tuples(WAITS, st.booleans(), st.sampled_from([0.0, 0.01, 0.2])), min_size=1, max_size=30))
def test_without_faults_a_batch_closes_at_its_deadline(steps: list[tuple[float, bool, float]]) -> None:
    """No sweep is needed: the buffer's own timer closes it, asking the store once when nobody else interferes."""
    world = World()
    asked = 0
    for wait_s, debounce, pause_s in steps:
        world.append(wait_s, debounce=debounce, here=True, fills=False)
        world.pass_time(pause_s)
        asked += len(world.in_flight)
        world.answer("")
    while world.timer is not None:
        world.now = max(world.now, world.timer)
        world.pass_time(0.0)
        asked += len(world.in_flight)
        world.answer("")
    assert world.deadline_ms is None
    assert asked == len(world.closed)
    for _, deadline_ms, closed_ms, _ in world.closed:
        assert deadline_ms <= closed_ms <= deadline_ms + 201
    assert world.delivered == [name for name, *_ in world.closed]


class Hands:
    """A shell that notes what it is told to do."""

    def __init__(self) -> None:
        self.now = NOW
        self.done: list[tuple[Any, ...]] = []
        self.slots = 0
        self.shell = Shell(
            close=lambda _buffer, effect: self.done.append(("close", effect)),
            arm=self._arm,
            disarm=lambda _buffer, slot: self.done.append(("disarm", slot)),
            deliver=lambda _buffer, batch: self.done.append(("deliver", batch)),
            disown=lambda _buffer, owner: self.done.append(("disown", owner)),
            monotonic=lambda: self.now,
            idle=lambda _buffer: self.done.append(("idle",)),
        )

    def _arm(self, _buffer: Buffer, at: float) -> float:
        self.slots += 1
        self.done.append(("arm", at))
        return float(self.slots)

    def buffer(self) -> Buffer:
        """A buffer in these hands."""
        return Buffer("kid", 0, self.shell)


def test_the_shell_keeps_one_timer() -> None:
    """A new one takes the place of the old; one that fired is not taken back; none is left without a batch."""
    hands = Hands()
    buffer = hands.buffer()
    buffer.receive(stored(1, DUE))
    assert hands.done == [("arm", pytest.approx(DUE))]
    buffer.receive(stored(2, DUE + 10))
    assert len(hands.done) == 1, "a debounce moves the deadline and touches no timer"
    hands.now = DUE
    buffer.receive(DeadlineReached())
    assert hands.done[1:] == [("arm", pytest.approx(DUE + 10))]
    buffer.receive(Heard(ms(DUE + 1), DUE + 1))
    assert hands.done[2:] == [("disarm", 2.0), ("arm", DUE + 1)]
    buffer.receive(filled(FIRST))
    assert hands.done[4:] == [("disarm", 3.0), ("deliver", FIRST), ("idle",)]
    assert buffer.slot is None
    buffer.receive(DeadlineReached())
    assert hands.done[7:] == [("idle",)]


@in_virtual_time
async def test_the_shell_answers_whoever_still_waits() -> None:
    """With the value or as an exception; a caller that went away is counted out all the same."""
    hands = Hands()
    buffer = hands.buffer()
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[Flushed] = loop.create_future()
    refused: asyncio.Future[Flushed] = loop.create_future()
    told: asyncio.Future[Flushed] = loop.create_future()
    buffer.asked = 3
    for reply in (gone, refused, told):
        buffer.receive(Flush("dlv_1", reply))
    assert [name for name, *_ in hands.done if name == "close"] == ["close"] * 3
    gone.cancel()
    buffer.receive(Closed(NothingOpen(), gone))
    buffer.receive(Closed(Overloaded("full"), refused))
    buffer.receive(Closed(FENCE, told))
    assert ("disown", FENCE) in hands.done
    assert buffer.asked == 0
    with pytest.raises(Overloaded):
        refused.result()
    assert told.result() == FENCE


def test_an_idle_buffer_carries_no_dictionary() -> None:
    """Its slots are all it has: a hundred thousand of them must fit."""
    buffer = Hands().buffer()
    assert not hasattr(buffer, "__dict__")
    assert buffer._mail is None
