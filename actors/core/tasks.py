"""Tasks: what a WhatsApp send keeps of its request, its states in Celery's words, and what follows from one try.

Decides only; sending, waiting and writing down are done elsewhere. Invariants: what was sent is never sent again; what
cannot be sent like this is not tried again; a lane that is held uses up no retry; what may have been sent or not is
tried again only when that cannot send twice, or when its request says so.
Source: the HTTP contract, section 4.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, Literal

import msgspec
from msgspec import Struct

from actors.core.evolution_answers import Rejected, SendOutcome, Sent, Trouble, Uncertain, WrongDialect
from actors.core.evolution_server import Paused

OnUnknown = Literal["retry", "dead"]
TaskState = Literal["PENDING", "STARTED", "RETRY", "SUCCESS", "FAILURE", "REVOKED"]
STATE_OF: Final[dict[str, TaskState]] = {
    "pending": "PENDING",
    "delivering": "STARTED",
    "retrying": "RETRY",
    "delivered": "SUCCESS",
    "dead": "FAILURE",
    "discarded": "REVOKED",
}
"""A task's state by the status of the delivery that it is."""
FINAL: Final = frozenset({"SUCCESS", "FAILURE", "REVOKED"})
LANE_PREFIX = "evolution:"
HELD_S = 1.0
"""After this a task of a held lane stands in line again; what it then waits for is the lane."""


class TaskPolicy(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a send is stored with, beside its text. `phone` is as it was given, `number` what Evolution is told."""

    instance: str
    phone: str
    number: str
    on_unknown: OnUnknown = "retry"
    max_retries: int = 3


class Success(Struct, frozen=True, kw_only=True):
    """The result of a task that was sent. `evolution_key` is WhatsApp's id of the message."""

    success: Literal[True] = True
    phone: str
    evolution_key: str


class Failure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of a task that was not, or of which nobody knows (`uncertain`)."""

    success: Literal[False]
    phone: str
    error: str
    uncertain: bool = False


class Succeeded(Struct, frozen=True):
    """It was sent."""

    key_id: str


class Again(Struct, frozen=True):
    """It is tried again after the delay; `reason` is one short line."""

    reason: str


class Held(Struct, frozen=True):
    """It waits until its lane is free, and no retry is used up."""

    reason: str


class Given(Struct, frozen=True):
    """It is given up."""

    reason: str
    uncertain: bool = False


Verdict = Succeeded | Again | Held | Given


def decide(outcome: SendOutcome, paused: Paused | None, policy: TaskPolicy, *, failures: int, once: bool) -> Verdict:
    """Say what follows from one try. `paused` is what the instance was found to be afterwards; `once`: the server takes
    a message id of ours, so that a second try cannot send twice."""
    match outcome:
        case Sent(key_id):
            return Succeeded(key_id)
        case Rejected(_, reason):
            return Given(reason)
        case Paused(_, reason):
            return Held(reason)
        case Trouble("timed_out", reason) if policy.on_unknown == "dead" and not once:
            return Given(reason, uncertain=True)
        case Trouble() if paused is not None:
            return Held(paused.reason)
        case Uncertain(reason):
            uncertain, again = True, once or policy.on_unknown == "retry"
        case Trouble(_, reason):
            uncertain, again = False, True
        case WrongDialect(use):
            uncertain, again, reason = False, True, f"Evolution changes its mind about its dialect ({use})"
    return Again(reason) if again and failures < policy.max_retries else Given(reason, uncertain)


def lane_of(instance: str) -> str:
    """The name of the line of deliveries that an instance's sends wait in."""
    return LANE_PREFIX + instance


def instance_of(lane: str) -> str | None:
    """The instance whose line that is; None for a webhook's."""
    return lane.removeprefix(LANE_PREFIX) if lane.startswith(LANE_PREFIX) else None


_decode_policy = msgspec.json.Decoder(TaskPolicy).decode


@lru_cache(maxsize=1024)
def policy_of(stored: bytes) -> TaskPolicy:
    """The policy as it was stored with the task."""
    return _decode_policy(stored)
