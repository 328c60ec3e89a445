"""Buffer: gathers the messages of one key until size or time, then sees that the batch is closed.

Knows what the store last said of the open batch and when it falls due; the store alone counts, deduplicates and closes
by size, in the script that appends. Never reads a clock, never talks to the store or the network.
Invariants: at most one timer a buffer; a batch is asked to close only by the owner of its partition; whatever this
actor believes, the store has the last word (a batch that closes later than believed is `NotDue`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, assert_never

from msgspec import Struct

from actors.core.policy import Reason
from actors.ports import Appended, ClosedBatch, Fenced, NotDue, NothingOpen, Reply
from actors.runtime.actor import Actor

RETRY_CLOSE_S = 0.25
"""Pause before a close is tried again when the store was away: the sweep would find the batch, this is sooner."""
CLOCKS_APART_S = 0.1
"""How much later than a sweep says a timer may be without being set anew: more than any answer is on its way."""


Flushed = ClosedBatch | NothingOpen | Fenced


class Open(Struct, frozen=True, gc=False):
    """The open batch as last heard of: store's deadline (ms), and the same on this node's monotonic clock (s)."""

    deadline_ms: int
    due_at: float

    def due_in_time(self, deadline_ms: int, due_at: float) -> bool:
        """Whether a batch of which this is heard now is known and will be woken for in time. It will not when this
        node's clock stood still, or the store's has jumped since."""
        return self.deadline_ms == deadline_ms and self.due_at <= due_at + CLOCKS_APART_S


class Stored(Struct, frozen=True, gc=False):
    """The store took a message of this key, and this is what the batch looks like now."""

    outcome: Appended


class Heard(Struct, frozen=True):
    """A sweep saw the open batch: it falls due at `due_at`."""

    deadline_ms: int
    due_at: float


class DeadlineReached(Struct, frozen=True):
    """The timer fired."""


class Flush(Struct, frozen=True):
    """Close the open batch now because somebody asked. `batch_id` is the id the delivery gets."""

    batch_id: str
    reply: Reply[Flushed]


class Closed(Struct, frozen=True):
    """The store answered a close."""

    outcome: ClosedBatch | NotDue | NothingOpen | Fenced | Exception
    reply: Reply[Flushed] | None


class Forget(Struct, frozen=True):
    """The open batch is gone (dropped, or its partition has another owner)."""


Inbox = Stored | Heard | DeadlineReached | Flush | Closed | Forget


class AskClose(Struct, frozen=True):
    """Ask the store to close the batch, if its deadline is not after `deadline_ms` (None: in any case)."""

    deadline_ms: int | None
    reason: Reason
    batch_id: str | None
    reply: Reply[Flushed] | None


class Arm(Struct, frozen=True):
    """Be woken at monotonic time `at`; None: not at all."""

    at: float | None


class Deliver(Struct, frozen=True):
    """A closed batch may start."""

    batch: ClosedBatch


class Answer(Struct, frozen=True):
    """Resolve a caller's future."""

    reply: Reply[Any]
    value: object


class Disown(Struct, frozen=True):
    """The partition has another owner."""

    owner: Fenced


Effect = AskClose | Arm | Deliver | Answer | Disown


def decide(  # noqa: PLR0911  one answer for each message
    state: Open | None, message: Inbox, now: float
) -> tuple[Open | None, tuple[Effect, ...]]:
    """Say what the message changes and what must be done about it. `now` is monotonic, in seconds."""
    match message:
        case Stored(outcome):
            return _stored(state, outcome, now)
        case Heard(deadline_ms, due_at):
            if state is not None and state.due_in_time(deadline_ms, due_at):
                return state, ()
            return Open(deadline_ms, due_at), (Arm(due_at),)
        case DeadlineReached():
            if state is None:
                return None, ()
            if now < state.due_at:
                return state, (Arm(state.due_at),)
            return state, (AskClose(state.deadline_ms, "timeout", None, None),)
        case Flush(batch_id, reply):
            return state, (AskClose(None, "manual", batch_id, reply),)
        case Closed():
            return _closed(state, message, now)
        case Forget():
            return None, (Arm(None),)
        case _:
            assert_never(message)


def _stored(state: Open | None, outcome: Appended, now: float) -> tuple[Open | None, tuple[Effect, ...]]:
    if outcome.closed is not None:
        return None, (Arm(None), Deliver(outcome.closed)) if outcome.closed.first_in_line else (Arm(None),)
    if outcome.size == 0:
        return state, ()
    due_at = now + outcome.remaining_ms / 1000
    if state is not None and state.due_at <= due_at:
        # A window keeps its deadline; a debounce moves it away, and the timer finds that out when it fires.
        return Open(outcome.deadline_ms, due_at), ()
    return Open(outcome.deadline_ms, due_at), (Arm(due_at),)


def _closed(state: Open | None, message: Closed, now: float) -> tuple[Open | None, tuple[Effect, ...]]:
    outcome, reply = message.outcome, message.reply
    match outcome:
        case NotDue(remaining_ms, deadline_ms):
            due_at = now + remaining_ms / 1000
            return Open(deadline_ms, due_at), (Arm(due_at),)
        case ClosedBatch():
            effects: tuple[Effect, ...] = (Arm(None),)
            if outcome.first_in_line:
                effects += (Deliver(outcome),)
            return None, effects if reply is None else (*effects, Answer(reply, outcome))
        case NothingOpen():
            return None, (Arm(None),) if reply is None else (Arm(None), Answer(reply, outcome))
        case Fenced():
            gone: tuple[Effect, ...] = (Arm(None), Disown(outcome))
            return None, gone if reply is None else (*gone, Answer(reply, outcome))
        case Exception():
            if reply is not None:
                return state, (Answer(reply, outcome),)
            return state, (Arm(now + RETRY_CLOSE_S),) if state is not None else ()
        case _:
            assert_never(outcome)


class Shell(Struct, frozen=True):
    """What the effects of a buffer are performed with; one for all buffers."""

    close: Callable[[Buffer, AskClose], None]
    arm: Callable[[Buffer, float], float]
    disarm: Callable[[Buffer, float], None]
    deliver: Callable[[Buffer, ClosedBatch], None]
    disown: Callable[[Buffer, Fenced], None]
    monotonic: Callable[[], float]
    idle: Callable[[Buffer], None]


class Buffer(Actor[Inbox]):
    """The thin shell around `decide`: one key's state, its timer, and how many callers wait for it."""

    __slots__ = ("asked", "kid", "partition", "shell", "slot", "state")
    asks_max: ClassVar[int] = 256
    mailbox_max: ClassVar[int] = 1024
    """Room for every ask, its answer from the store, and what timers and sweeps tell: only asks are ever refused."""

    def __init__(self, kid: str, partition: int, shell: Shell) -> None:
        super().__init__()
        self.kid = kid
        self.partition = partition
        self.shell = shell
        self.state: Open | None = None
        self.slot: float | None = None
        """The wheel's slot while a timer is armed."""
        self.asked = 0
        """Callers that wait for an answer: the mailbox is full when they are `asks_max`."""

    def receive(self, message: Inbox) -> None:
        if isinstance(message, DeadlineReached):
            self.slot = None
        self.state, effects = decide(self.state, message, self.shell.monotonic())
        for effect in effects:
            self._perform(effect)
        if self.state is None:
            self.shell.idle(self)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Answer(reply, value):
                self.asked -= 1
                if not reply.done():
                    if isinstance(value, Exception):
                        reply.set_exception(value)
                    else:
                        reply.set_result(value)
            case Arm(at):
                if self.slot is not None:
                    self.shell.disarm(self, self.slot)
                self.slot = None if at is None else self.shell.arm(self, at)
            case AskClose():
                self.shell.close(self, effect)
            case Deliver(batch):
                self.shell.deliver(self, batch)
            case Disown(owner):
                self.shell.disown(self, owner)
            case _:
                assert_never(effect)
