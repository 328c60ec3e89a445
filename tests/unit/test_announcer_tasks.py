"""What is told of tasks on the router's own channel: in the words of the API, without a text, if anybody listens."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from actors.announcer import Announcer
from actors.core.evolution_server import Paused
from actors.core.outcome import Answered, Failed
from actors.events import Events
from actors.ports import Claimed, Settle, Settled
from tests.support.doubles import Stage
from tests.support.tasks import INSTANCE, PARTITION, RESULT, TEXT, policy, task
from tests.support.virtual_time import in_virtual_time

TASK = f"tsk_{PARTITION:02x}1"
PHONE = "+52 1 55 1234 5678"
OK = Answered(201, None, "", 12.0)


class Told:
    """Stands for Events: what was told, as a listener gets it."""

    def __init__(self) -> None:
        self.awake = True
        self.told: list[tuple[str, str, dict[str, object]]] = []

    def wanted(self, _name: str) -> bool:
        """Whether anybody listens."""
        return self.awake

    def tell(self, name: str, what: str, fields: dict[str, object]) -> None:
        """Keep it."""
        assert self.awake
        self.told.append((name, what, msgspec.json.decode(msgspec.json.encode(fields))))


async def nothing(_delivery_id: str) -> None:
    """No delivery is looked up for a task."""
    raise AssertionError


def announcer(stage: Stage) -> tuple[Announcer, Told]:
    """An announcer, and what it tells."""
    told = Told()
    return Announcer(cast(Events, told), "node-1", nothing, stage.supervisor), told


def claimed(failures: int = 0, attempt: int = 1) -> Claimed:
    """A task that was claimed for an attempt."""
    return Claimed(
        delivery_id=TASK,
        key="k",
        attempt=attempt,
        failures=failures,
        reason="manual",
        policy=policy(),
        trace="",
        created_ms=1,
        messages=[(TASK, 1, TEXT.encode())],
    )


def settled(status: Settled, **more: Any) -> Settle:
    """How its attempt ended."""
    return Settle(
        partition=PARTITION, epoch=1, delivery_id=TASK, attempt=1, status=status, log=b'{"error":"secret"}', **more
    )


@in_virtual_time
async def test_a_task_is_announced_when_it_is_taken_in_and_when_it_starts() -> None:
    """With whom it is for, and not what it says."""
    async with Stage() as stage:
        tells, told = announcer(stage)
        new = task()
        tells.task_queued(new)
        tells.started(claimed(attempt=3))
        assert told.told == [
            (
                "$tasks",
                "queued",
                {"task_id": new.task_id, "status": "PENDING", "instance": INSTANCE, "phone": PHONE},
            ),
            ("$tasks", "started", {"task_id": TASK, "status": "STARTED", "attempt": 3}),
        ]


@pytest.mark.parametrize(
    ("settle", "outcome", "failures", "what", "fields"),
    [
        (settled("delivered", result=RESULT), OK, 0, "succeeded", {"status": "SUCCESS", "result": RESULT}),
        (
            settled("dead", result=b'{"success":false}'),
            Failed("no", 1.0),
            3,
            "failed",
            {"status": "FAILURE", "result": b'{"success":false}'},
        ),
        (
            settled("retrying", retry_in_ms=5000),
            Failed("timeout", 1.0),
            0,
            "retrying",
            {"status": "RETRY", "retry_in_ms": 5000, "error": "timeout"},
        ),
        (
            settled("retrying", retry_in_ms=5000),
            Answered(503, None, "", 1.0),
            0,
            "retrying",
            {"status": "RETRY", "retry_in_ms": 5000, "error": "answered 503"},
        ),
        (
            settled("held", retry_in_ms=1000),
            Failed("closed", 1.0),
            0,
            "held",
            {"status": "PENDING", "retry_in_ms": 1000, "error": "closed"},
        ),
        (
            settled("held", retry_in_ms=1000),
            Failed("closed", 1.0),
            1,
            "held",
            {"status": "RETRY", "retry_in_ms": 1000, "error": "closed"},
        ),
    ],
)
@in_virtual_time
async def test_how_an_attempt_ended(
    settle: Settle, outcome: Answered | Failed, failures: int, what: str, fields: dict[str, object]
) -> None:
    """The state is the one that the task has now: a held one that never failed is as new."""
    async with Stage() as stage:
        tells, told = announcer(stage)
        tells.settled(claimed(failures), settle, outcome)
        expected = {"task_id": TASK, "instance": INSTANCE, "phone": PHONE, "attempt": 1, **fields}
        if isinstance(expected.get("result"), bytes):
            expected["result"] = msgspec.json.decode(cast(bytes, expected["result"]))
        assert told.told == [("$tasks", what, expected)]


@in_virtual_time
async def test_what_else_is_told() -> None:
    """A task that is given up, a message that comes further, a lane that is held, a person who answers."""
    async with Stage() as stage:
        tells, told = announcer(stage)
        tells.discarded(TASK)
        tells.receipt(TASK, "i", "read")
        tells.lane_changed("i", Paused("closed", "why"))
        tells.lane_changed("i", None)
        tells.taken_over("i", "521@s.whatsapp.net")
        assert told.told == [
            ("$tasks", "revoked", {"task_id": TASK, "status": "REVOKED"}),
            ("$tasks", "delivery", {"task_id": TASK, "instance": "i", "delivery": "read"}),
            ("$tasks", "paused", {"instance": "i", "cause": "closed", "reason": "why"}),
            ("$tasks", "resumed", {"instance": "i"}),
            ("$tasks", "takeover", {"instance": "i", "contact": "521@s.whatsapp.net"}),
        ]


@in_virtual_time
async def test_the_text_is_never_told() -> None:
    """Nor the line of the log."""
    async with Stage() as stage:
        tells, told = announcer(stage)
        tells.task_queued(task())
        tells.started(claimed())
        for status in ("delivered", "dead", "retrying", "held"):
            tells.settled(claimed(), settled(status), OK)
        assert len(told.told) == 6
        assert TEXT not in str(told.told)
        assert "secret" not in str(told.told)


@in_virtual_time
async def test_nobody_pays_while_nobody_listens() -> None:
    """A policy is not even read."""
    async with Stage() as stage:
        tells, told = announcer(stage)
        told.awake = False
        tells.task_queued(task(policy=b"not JSON"))
        broken = msgspec.structs.replace(claimed(), policy=b"not JSON")
        tells.started(broken)
        tells.settled(broken, settled("dead"), OK)
        assert told.told == []


@in_virtual_time
async def test_webhooks_are_told_elsewhere() -> None:
    """Their starts not at all."""
    async with Stage() as stage:
        tells, told = announcer(stage)
        delivery = msgspec.structs.replace(claimed(), delivery_id="dlv_001")
        tells.started(delivery)
        assert told.told == []
        tells.settled(delivery, msgspec.structs.replace(settled("delivered"), delivery_id="dlv_001"), OK)
        tells.discarded("dlv_001")
        assert [name for name, _, _ in told.told] == ["$deliveries"] * 2
