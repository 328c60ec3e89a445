"""Codes: why a connection is closed, and what an error says. The numbers are those of the Centrifugo client protocol.

A client that is closed with 3000 to 3499 comes back by itself, one with 3500 to 3999 does not.
"""

from __future__ import annotations

from msgspec import Struct

from actors.ports import Overloaded, StoreAway


class Close(Struct, frozen=True, gc=False):
    """A WebSocket close code with its reason, less than 124 bytes."""

    code: int
    reason: str


NORMAL = Close(1000, "")
GONE = Close(1006, "")
"""Never sent: the connection ended without a word."""
SHUTDOWN = Close(3001, "shutdown")
SLOW = Close(3008, "slow")
NO_PONG = Close(3012, "no pong")
TOO_MANY_MESSAGES = Close(3013, "too many requests")
NOT_CONNECTED = Close(3501, "bad request")
STALE = Close(3502, "stale")
WRONG_PROTOCOL = Close(3506, "inappropriate protocol")
TOO_MANY_ERRORS = Close(3509, "too many errors")


class Fault(Struct, frozen=True, gc=False):
    """What is wrong with a command. `temporary`: the same may work later."""

    code: int
    message: str
    temporary: bool = False


DENIED = Fault(103, "permission denied")
ALREADY_SUBSCRIBED = Fault(105, "already subscribed")
NOT_AVAILABLE = Fault(108, "not available")
TOO_MANY = Fault(111, "too many requests; try later", True)
UNRECOVERABLE = Fault(112, "unrecoverable position")
AWAY = Fault(100, "the store is away; try later", True)
ABANDONED = Fault(100, "unsubscribed before it was subscribed", True)

LATER = (StoreAway, Overloaded, TimeoutError)
"""What the channels raise when they cannot do it now."""


def bad(message: str) -> Fault:
    """The command is wrong."""
    return Fault(107, message)


def over_limit(message: str) -> Fault:
    """The command is one too many, or too large."""
    return Fault(106, message)


def fault_of(error: Exception) -> Fault:
    """What a failure of the channels means to a client."""
    return TOO_MANY if isinstance(error, Overloaded) else AWAY
