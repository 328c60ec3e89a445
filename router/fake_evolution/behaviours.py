"""Behaviours: how a send may go wrong, each by a name, and who is to meet which next.

Pure but for the script's own list. Every row of Evolution's table of errors that is no consequence of the request
itself is here; the others (validation, unknown instance, wrong key, number not on WhatsApp) come by themselves.
"""

from __future__ import annotations

from msgspec import Struct

NOT_LOADED = "Cannot read properties of undefined (reading 'textMessage')"
"""What Evolution says of an instance that is in its database and not in its memory."""


class Refuse(Struct, frozen=True, kw_only=True):
    """Answer an error; `sends`: after the message went out all the same."""

    status: int
    message: object
    sends: bool = False


class Hang(Struct, frozen=True, kw_only=True):
    """Never answer; `sends`: the message went out."""

    sends: bool


class Reset(Struct, frozen=True, kw_only=True):
    """Cut the connection with RST; `sends`: the message went out."""

    sends: bool


class Slow(Struct, frozen=True, kw_only=True):
    """Send and answer after `delay_s`; `sends`: only the answer is late, the message goes out at once."""

    delay_s: float
    sends: bool = False


Behaviour = Refuse | Hang | Reset | Slow

FAULTS: dict[str, Behaviour] = {
    "connection-closed": Refuse(status=400, message=["Error: Connection Closed"]),
    "timed-out": Refuse(status=400, message=["Error: Timed Out"]),
    "timed-out-but-sent": Refuse(status=400, message=["Error: Timed Out"], sends=True),
    "rate-overlimit": Refuse(status=400, message=["Error: rate-overlimit"]),
    "stream-errored": Refuse(status=400, message=["Error: Stream Errored (conflict)"]),
    "group-missing": Refuse(status=400, message=["[object Object]"]),
    "forbidden": Refuse(status=403, message=["Missing global api key", "The global api key must be set"]),
    "server-connection-closed": Refuse(status=500, message="Connection Closed"),
    "server-error-connection-closed": Refuse(status=500, message=["Error: Connection Closed"]),
    "server-not-loaded": Refuse(status=500, message=NOT_LOADED),
    "server-error": Refuse(status=500, message="Internal Server Error"),
    "hang": Hang(sends=False),
    "sent-then-hang": Hang(sends=True),
    "reset": Reset(sends=False),
    "sent-then-reset": Reset(sends=True),
    "slow": Slow(delay_s=3),
    "sent-then-slow": Slow(delay_s=3, sends=True),
}


class _Rule:
    __slots__ = ("behaviour", "instance", "jid", "times_left")

    def __init__(self, behaviour: Behaviour, instance: str | None, jid: str | None, times: int | None) -> None:
        self.behaviour = behaviour
        self.instance = instance
        self.jid = jid
        self.times_left = times  # None: until it is healed


class Script:
    """What the next sends meet. The oldest rule that fits a send is used up by it."""

    def __init__(self) -> None:
        self._rules: list[_Rule] = []

    def add(
        self, behaviour: Behaviour, *, instance: str | None = None, jid: str | None = None, times: int | None = 1
    ) -> None:
        """Let the next `times` sends that fit meet this; None means all of them until `heal`."""
        self._rules.append(_Rule(behaviour, instance, jid, times))

    def heal(self) -> None:
        """Forget what was to come."""
        self._rules.clear()

    def next(self, instance: str, jid: str) -> Behaviour | None:
        """What this send meets."""
        for rule in self._rules:
            if rule.instance in (None, instance) and rule.jid in (None, jid):
                if rule.times_left is not None:
                    rule.times_left -= 1
                    if not rule.times_left:
                        self._rules.remove(rule)
                return rule.behaviour
        return None
