"""Ids: UUIDs of version 7 (RFC 9562 §5.7) in hexadecimal behind a prefix, so they sort by the time they were made.

`msg_` + UUID names a message, `evt_` + UUID an event of the inventory, `dlv_` + two digits of its partition + UUID a
delivery, `tsk_` + the same a task, which is a delivery of another kind: from the id alone its store slot is known. No
id holds a dot (a Standard Webhooks id must not).
Invariant: one `IdSource` never makes the same id twice nor one that sorts before an earlier one of its kind
(deliveries: of its partition), whatever its clock does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b

from actors.core.partition import PARTITIONS

MESSAGE_PREFIX = "msg_"
DELIVERY_PREFIX = "dlv_"
EVENT_PREFIX = "evt_"
TASK_PREFIX = "tsk_"
"""As long as the other, so that the partition stands at the same place."""
ENTROPY_BYTES = 10

_VERSION = 7
_VARIANT = 0b10 << 62
_RAND_A_BITS = 12
_RAND_B_BITS = 62
_UUID = r"[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}"
_PARTITION = slice(len(DELIVERY_PREFIX), len(DELIVERY_PREFIX) + 2)
_DELIVERY_PREFIXES = tuple(f"{DELIVERY_PREFIX}{partition:02x}" for partition in range(PARTITIONS))
_TASK_PREFIXES = tuple(f"{TASK_PREFIX}{partition:02x}" for partition in range(PARTITIONS))
_DELIVERY_ID = re.compile(DELIVERY_PREFIX + r"([0-9a-f]{2})" + _UUID)
_EVENT_ID = re.compile(EVENT_PREFIX + _UUID)
_TASK_ID = re.compile(TASK_PREFIX + r"([0-9a-f]{2})" + _UUID)


def make_id(prefix: str, ms: int, entropy: bytes) -> str:
    """An id made at Unix `ms` (0 … 2^48 - 1) from ten random bytes, of which the last 74 bits are used."""
    chance = int.from_bytes(entropy[:ENTROPY_BYTES])
    rand_a = chance >> _RAND_B_BITS & (1 << _RAND_A_BITS) - 1
    rand_b = chance & (1 << _RAND_B_BITS) - 1
    return f"{prefix}{ms:012x}{_VERSION:x}{rand_a:03x}{_VARIANT | rand_b:016x}"


def delivery_prefix(partition: int) -> str:
    """The prefix for `make_id` of a delivery in this partition."""
    return _DELIVERY_PREFIXES[partition]


def partition_of_delivery(delivery_id: str) -> int | None:
    """The partition that the id of a delivery names, of a webhook's or a task, or None when the text is no such id."""
    found = _DELIVERY_ID.fullmatch(delivery_id) or _TASK_ID.fullmatch(delivery_id)
    return None if found is None else int(found[1], 16)


def partition_of(delivery_id: str) -> int:
    """The partition that an id of ours names. For text from outside: `partition_of_delivery`."""
    return int(delivery_id[_PARTITION], 16)


def derived_delivery_id(partition: int, seed: str) -> str:
    """The delivery id that the same seed always gives; it does not sort by time."""
    return _derived(_DELIVERY_PREFIXES[partition], seed)


def derived_task_id(partition: int, seed: str) -> str:
    """The task id that the same seed always gives; it does not sort by time."""
    return _derived(_TASK_PREFIXES[partition], seed)


def derived_event_id(seed: str) -> str:
    """The event id that the same seed always gives; it does not sort by time."""
    return _derived(EVENT_PREFIX, seed)


def is_event_id(text: str) -> bool:
    """Whether a text from outside could be an event's id."""
    return _EVENT_ID.fullmatch(text) is not None


def is_task(delivery_id: str) -> bool:
    """Whether a delivery of ours is a task."""
    return delivery_id.startswith(TASK_PREFIX)


def is_task_id(text: str) -> bool:
    """Whether a text from outside could be a task's id."""
    return _TASK_ID.fullmatch(text) is not None


def is_delivery_id(text: str) -> bool:
    """Whether the text could be a webhook delivery's id."""
    return _DELIVERY_ID.fullmatch(text) is not None


class IdSource:
    """Makes ids, cheaply: the random part is drawn once and then counted up, as RFC 9562 §6.2 allows.

    Ids tell when they were made and one can be guessed from another: they name things, they protect nothing.
    Made once per process, after any fork.
    """

    __slots__ = ("_head", "_ms", "_now_ms", "_rand_a", "_rand_b")

    def __init__(self, now_ms: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        chance = int.from_bytes(entropy(ENTROPY_BYTES))
        self._now_ms = now_ms
        self._rand_a = chance >> _RAND_B_BITS & (1 << _RAND_A_BITS) - 1
        # The highest random bit stays 0: room for 2^61 ids.
        self._rand_b = _VARIANT | chance & (1 << _RAND_B_BITS - 1) - 1
        self._ms = -1
        self._head = ""

    def message_id(self) -> str:
        """A new `msg_…`."""
        return MESSAGE_PREFIX + self._next()

    def event_id(self) -> str:
        """A new `evt_…`."""
        return EVENT_PREFIX + self._next()

    def delivery_id(self, partition: int) -> str:
        """A new `dlv_…` that names its partition (0 … 255)."""
        return _DELIVERY_PREFIXES[partition] + self._next()

    def task_id(self, partition: int) -> str:
        """A new `tsk_…` that names its partition (0 … 255)."""
        return _TASK_PREFIXES[partition] + self._next()

    def _next(self) -> str:
        ms = self._now_ms()
        if ms > self._ms:  # a clock that goes back is waited out
            self._ms = ms
            self._head = f"{ms:012x}{_VERSION:x}{self._rand_a:03x}"
        self._rand_b += 1
        return f"{self._head}{self._rand_b:x}"


def _derived(prefix: str, seed: str) -> str:
    digest = blake2b(seed.encode(), digest_size=16).digest()
    return make_id(prefix, int.from_bytes(digest[ENTROPY_BYTES:]), digest[:ENTROPY_BYTES])
