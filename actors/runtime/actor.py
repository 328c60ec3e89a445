"""Actors without tasks: objects that take one message at a time, in turns, on the loop.

An actor with no mail costs its own slots and nothing else. `receive` runs to its end; what takes time is asked of a
port, whose answer comes back as a message. Order: messages from one sender to one actor are received as they were
told. A crash in `receive` is the supervisor's: the actor is replaced, its mailbox goes with it.
Invariant: an actor never has more than `mailbox_max` messages waiting; one more is refused, not queued.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from actors.ports import Overloaded

M = TypeVar("M")
RECEIVING: deque[Any] = deque(maxlen=0)
"""Stands for the mailbox of an actor that is receiving and has no other mail."""
TURN_MESSAGES_MAX = 512
"""Messages received before the loop gets a turn."""


class Actor(Generic[M]):
    """Something with a mailbox. Subclasses say what a message does in `receive`."""

    __slots__ = ("_mail",)
    mailbox_max: ClassVar[int] = 256

    def __init__(self) -> None:
        self._mail: deque[M] | None = None

    def receive(self, message: M) -> None:
        """Take one message. Never waits."""
        raise NotImplementedError


class Dispatcher:
    """Gives every actor that has mail its turn. `on_crash(actor, messages, error)` decides what becomes of an actor
    that raised and of the messages it leaves: the one it raised at, then those that waited behind it."""

    def __init__(self, on_crash: Callable[[Actor[Any], list[Any], Exception], None]) -> None:
        self._on_crash = on_crash
        self._ready: deque[Actor[Any]] = deque()
        self._scheduled = False
        self.waiting = 0

    def tell(self, actor: Actor[M], message: M) -> None:
        """Have the actor receive a message: now if it has nothing else to do, else in its turn.

        Raises Overloaded when its mailbox is full. What the actor tells itself meanwhile waits for a turn.
        """
        mail = actor._mail
        if mail is None:
            actor._mail = RECEIVING
            try:
                self._receive(actor, message)
            finally:
                if actor._mail is RECEIVING:
                    actor._mail = None
                else:
                    self._queue(actor)
        elif mail is RECEIVING:
            actor._mail = deque((message,))
            self.waiting += 1
        elif len(mail) >= actor.mailbox_max:
            raise Overloaded("the mailbox is full")
        else:
            mail.append(message)
            self.waiting += 1

    def turn(self) -> None:
        """Receive what waits, up to TURN_MESSAGES_MAX; the rest in the next tick."""
        left = TURN_MESSAGES_MAX
        ready = self._ready
        try:
            while ready and left > 0:
                actor = ready[0]
                mail = actor._mail
                while mail and left > 0:
                    left -= 1
                    self.waiting -= 1
                    if not self._receive(actor, mail.popleft()):
                        break
                if not mail:
                    actor._mail = None
                    ready.popleft()
        finally:  # what `on_crash` raises is for the loop's log: nobody's turn ends with it
            self._scheduled = bool(ready)
            if ready:
                asyncio.get_running_loop().call_soon(self.turn)

    def _queue(self, actor: Actor[Any]) -> None:
        self._ready.append(actor)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.turn)

    def _receive(self, actor: Actor[M], message: M) -> bool:
        """False: the actor crashed, and its mailbox is empty now."""
        try:
            actor.receive(message)
        except Exception as error:  # an actor's crash is a supervised event, whatever it raised
            left = list(actor._mail or ())
            self.waiting -= len(left)
            if actor._mail is not None and actor._mail is not RECEIVING:
                actor._mail.clear()
            self._on_crash(actor, [message, *left], error)
            return False
        return True
