"""The errand of a task: what Evolution is given, and what each outcome means for the task and its lane."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest

from actors.core.evolution_send import message_id_for
from actors.core.outcome import Answered, Failed
from actors.core.partition import mark_of
from actors.core.tasks import HELD_S, TaskPolicy
from actors.egress_ports import Withheld
from actors.errand import Tried, log_line
from actors.evolution import OUT_OF_REACH
from actors.ports import Claimed
from actors.task_send import CUT_OFF
from tests.support.doubles import Stage, value
from tests.support.evolution_rig import (
    CLOSED,
    LICENSE,
    NO_LID,
    NO_NUMBER,
    REFUSED,
    RETRY_DELAY_S,
    SILENCE,
    WANTS_V1,
    WANTS_V2,
    EvolutionRig,
    Step,
    fault,
    said,
    state,
    taken,
)
from tests.support.virtual_time import in_virtual_time

OLD, NEW = "2.3.7", "2.4.0"
TASK = "tsk_ca01a228e985c779759c19f6056570d13f"
TEXT = "un secreto muy largo"
PHONE = "+52 1 55 1234 5678"
RETRY_MS = round(RETRY_DELAY_S * 1000)
HELD_MS = round(HELD_S * 1000)


def claimed(attempt: int = 1, *, failures: int = 0, cut_off: bool = False, **policy: Any) -> Claimed:
    """A task that was claimed for an attempt."""
    values: dict[str, Any] = {"instance": "i", "phone": PHONE, "number": "5215512345678", **policy}
    return Claimed(
        delivery_id=TASK,
        key="i:5215512345678@s.whatsapp.net",
        attempt=attempt,
        failures=failures,
        reason="manual",
        policy=msgspec.json.encode(TaskPolicy(**values)),
        trace="",
        created_ms=1_800_000_000_000,
        messages=[(TASK, 1_800_000_000_000, TEXT.encode())],
        cut_off=cut_off,
    )


async def run(rig: EvolutionRig, of: Claimed) -> Tried:
    """Have it sent once, by a node that may."""
    tried = await rig.errand.run(of, lambda: True)
    assert isinstance(tried, Tried)
    return tried


def result(tried: Tried) -> dict[str, object]:
    """What the task is said to have become."""
    found: dict[str, object] = msgspec.json.decode(tried.result)
    return found


@in_virtual_time
async def test_a_task_that_was_sent() -> None:
    """Its result is WhatsApp's id, by which receipts find it; it is said that the instance works."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        tried = await run(rig, claimed())
        assert (tried.status, tried.retry_in_ms, tried.mark) == ("delivered", 0, mark_of("i", "3EB0A"))
        assert result(tried) == {"success": True, "phone": PHONE, "evolution_key": "3EB0A"}
        assert tried.outcome == Answered(201, None, "", 3.0, b"", "application/json")
        [body] = rig.server.bodies()
        assert body == {
            "number": "5215512345678",
            "text": TEXT,
            "messageId": message_id_for(TASK, 1_800_000_000_000),
        }
        assert rig.server.count("state") == 0


@pytest.mark.parametrize(
    ("answer", "word", "status", "retry_in_ms"),
    [
        (REFUSED, "open", "retrying", RETRY_MS),
        (fault("timed out"), "open", "retrying", RETRY_MS),
        (CLOSED, "open", "retrying", RETRY_MS),
        (SILENCE, "open", "retrying", RETRY_MS),
        (said(201, {}), "open", "retrying", RETRY_MS),
        (SILENCE, "close", "retrying", RETRY_MS),
        (CLOSED, "close", "held", HELD_MS),
        (fault("timed out"), "connecting", "held", HELD_MS),
        (REFUSED, None, "held", HELD_MS),
        (LICENSE, "open", "held", HELD_MS),
        (NO_NUMBER, "open", "dead", 0),
        (fault("no", 401), "open", "dead", 0),
    ],
)
@in_virtual_time
async def test_what_each_outcome_means(answer: Step, word: str | None, status: str, retry_in_ms: int) -> None:
    """For the task and, where nothing can be sent, for its lane."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.send_default, rig.server.state = answer, state(word)
        tried = await run(rig, claimed())
        assert (tried.status, tried.retry_in_ms, tried.mark) == (status, retry_in_ms, "")
        assert bool(tried.result) is (status == "dead")
        held = status == "held" or word == "close"
        assert rig.instances.lane("evolution:i").held() is held
        assert value(stage.meters.lanes_held) == held


@pytest.mark.parametrize("answer", [REFUSED, fault("timed out"), SILENCE])
@in_virtual_time
async def test_retries_come_to_an_end(answer: Step) -> None:
    """Then it has failed, and says whether anybody knows."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.send_default = answer
        assert (await run(rig, claimed(3, failures=2))).status == "retrying"
        tried = await run(rig, claimed(4, failures=3))
        assert tried.status == "dead"
        assert result(tried)["success"] is False
        assert result(tried).get("uncertain", False) is (answer is SILENCE)


@pytest.mark.parametrize(
    ("version", "on_unknown", "status"),
    [(OLD, "retry", "retrying"), (OLD, "dead", "dead"), (NEW, "retry", "retrying"), (NEW, "dead", "retrying")],
)
@in_virtual_time
async def test_what_may_have_been_sent(version: str, on_unknown: str, status: str) -> None:
    """It is sent again where that cannot be twice, or where that is wished."""
    async with Stage() as stage:
        rig = EvolutionRig(stage, version)
        rig.server.send_default = SILENCE
        tried = await run(rig, claimed(on_unknown=on_unknown))
        assert tried.status == status
        assert status != "dead" or result(tried)["uncertain"] is True


@pytest.mark.parametrize(
    ("version", "on_unknown", "sends"), [(OLD, "retry", 1), (OLD, "dead", 0), (NEW, "retry", 1), (NEW, "dead", 1)]
)
@in_virtual_time
async def test_a_task_whose_last_try_was_cut_off(version: str, on_unknown: str, sends: int) -> None:
    """It may have been sent: the same again."""
    async with Stage() as stage:
        rig = EvolutionRig(stage, version)
        tried = await run(rig, claimed(2, cut_off=True, on_unknown=on_unknown))
        assert rig.server.count("send") == sends
        assert tried.status == ("delivered" if sends else "dead")
        if not sends:
            assert result(tried) == {"success": False, "phone": PHONE, "error": CUT_OFF, "uncertain": True}
            assert tried.outcome == Failed(CUT_OFF, 0.0)


@in_virtual_time
async def test_a_doubt_outlives_a_server_that_cannot_say_what_it_is() -> None:
    """No try is written down over the one that was cut off, or the next would not know of it."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.version = LICENSE
        assert await rig.errand.run(claimed(2, cut_off=True, on_unknown="dead"), lambda: True) == Withheld()
        assert rig.instances.lane("evolution:i").held()
        tried = await run(rig, claimed())
        assert (tried.status, tried.retry_in_ms) == ("held", HELD_MS)
        assert isinstance(tried.outcome, Failed)
        assert "license" in tried.outcome.error
        assert rig.server.count("send") == 0


@in_virtual_time
async def test_every_try_of_a_task_is_one_message() -> None:
    """Under one id of WhatsApp's form; a task of another time under another; a server that takes none gets none."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.send_default = SILENCE
        for attempt in range(1, 4):
            await run(rig, claimed(attempt, failures=attempt - 1))
        ids = {body["messageId"] for body in rig.server.bodies()}
        assert len(ids) == 1
        assert re.fullmatch("3EB0[0-9A-F]{18}", str(*ids))
        await run(rig, msgspec.structs.replace(claimed(), created_ms=1))
        assert rig.server.bodies()[-1]["messageId"] not in ids
    async with Stage() as stage:
        rig = EvolutionRig(stage, OLD)
        await run(rig, claimed())
        assert "messageId" not in rig.server.bodies()[0]


@in_virtual_time
async def test_a_server_that_cannot_make_up_its_mind_is_tried_again() -> None:
    """In time; it has taken nothing."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.planned["send"].extend([WANTS_V1, WANTS_V2])
        tried = await run(rig, claimed(on_unknown="dead"))
        assert (tried.status, tried.retry_in_ms) == ("retrying", RETRY_MS)


@pytest.mark.parametrize(
    ("known", "second", "numbers", "status"),
    [
        (None, None, ["7@lid"], "dead"),
        ("521@s.whatsapp.net", taken("3EB0B"), ["7@lid", "521@s.whatsapp.net"], "delivered"),
        ("521@s.whatsapp.net", NO_NUMBER, ["7@lid", "521@s.whatsapp.net"], "dead"),
        ("521@s.whatsapp.net", SILENCE, ["7@lid", "521@s.whatsapp.net"], "retrying"),
    ],
)
@in_virtual_time
async def test_a_lid_that_is_not_found_is_tried_by_its_phone(
    known: str | None, second: Step | None, numbers: list[str], status: str
) -> None:
    """If that is known; as the same message, and what becomes of that counts."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        asked: list[tuple[str, str]] = []

        async def phone_of(instance: str, lid: str) -> str | None:
            asked.append((instance, lid))
            return known

        rig.errand.phone_of = phone_of
        rig.server.planned["send"].extend([NO_LID, *([] if second is None else [second])])
        tried = await run(rig, claimed(number="7@lid", phone="7@lid"))
        assert [body["number"] for body in rig.server.bodies()] == numbers
        assert len({body["messageId"] for body in rig.server.bodies()}) == 1
        assert tried.status == status
        assert asked == [("i", "7@lid")]


@in_virtual_time
async def test_only_a_lid_has_another_name() -> None:
    """A number that is not on WhatsApp is not; and unless somebody knows better, nor is a lid."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)

        async def phone_of(_instance: str, _lid: str) -> str | None:
            raise AssertionError

        assert (await run(EvolutionRig(stage), claimed(number="7@lid"))).status == "delivered"
        rig.server.planned["send"].append(NO_LID)
        assert (await run(rig, claimed(number="7@lid"))).status == "dead"
        rig.errand.phone_of = phone_of
        rig.server.planned["send"].extend([NO_NUMBER, fault("no")])
        assert (await run(rig, claimed())).status == "dead"
        assert (await run(rig, claimed(number="7@lid"))).status == "dead"


@pytest.mark.parametrize(
    "answer",
    [
        taken(),
        said(201, {"key": {"id": "3EB0"}, "message": {"conversation": TEXT}}),
        said(201, {"text": TEXT}),
        said(400, {"response": {"message": "no"}, "text": TEXT}),
        LICENSE,
    ],
)
@in_virtual_time
async def test_the_text_is_in_no_line_of_a_log(answer: Answered) -> None:
    """Neither the task's own nor the journal, though Evolution repeats it."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.send_default = answer
        tried = await run(rig, claimed())
        assert isinstance(tried.outcome, Failed) or tried.outcome.body == b""
        assert TEXT.encode() not in log_line(tried.outcome, stage.clock)
        assert TEXT not in str(stage.journal.lines)


@in_virtual_time
async def test_a_lane_that_was_held_after_a_try_began() -> None:
    """While it waited for its turn, or for what the server says: nothing goes out, and no retry is used up."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.instances.hold("i", OUT_OF_REACH)
        assert (await run(rig, claimed())).status == "held"
        assert await rig.errand.run(claimed(cut_off=True), lambda: True) == Withheld()
        assert rig.server.asked == []
        rig.server.on_request = lambda _kind: rig.instances.hold("j", OUT_OF_REACH)
        assert (await run(rig, claimed(instance="j"))).status == "held"
        assert [kind for kind, _ in rig.server.asked] == ["look"]
        assert (await run(rig, claimed(instance="k"))).status == "delivered"


@pytest.mark.parametrize("count", [1, 20])
@in_virtual_time
async def test_nothing_is_sent_to_a_server_that_never_said_what_it_is(count: int) -> None:
    """It may take message ids, and a send without one could come twice. None of those who ask at once goes ahead."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.version = rig.server.state = SILENCE
        rig.server.took_s = 5.0
        tried = await asyncio.gather(*(run(rig, claimed()) for _ in range(count)))
        assert {each.status for each in tried} == {"held"}
        assert [rig.server.count(kind) for kind in ("look", "state", "send")] == [1, 1, 0]


@in_virtual_time
async def test_a_server_that_never_says_what_it_is_and_knows_the_instance() -> None:
    """A proxy may swallow the one question and let the others through: it is sent as version 2 takes it."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.version = SILENCE
        assert (await run(rig, claimed())).status == "delivered"
        [body] = rig.server.bodies()
        assert "messageId" not in body


@in_virtual_time
async def test_a_refusal_is_no_failure_of_the_lane() -> None:
    """The server answered: its status is shown, and other sends go on."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.send_default = NO_NUMBER
        tried = await run(rig, claimed())
        assert tried.outcome == Answered(400, None, "", 3.0)
        assert result(tried) == {"success": False, "phone": PHONE, "error": "the number is not on WhatsApp"}


@in_virtual_time
async def test_a_node_that_may_not_act_sends_nothing() -> None:
    """And nothing is said of the instance."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        assert await rig.errand.run(claimed(), lambda: False) == Withheld()
        assert rig.server.count("send") == 0
        rig.run()
        await rig.evolution.look()
        assert rig.health.facts == {}


@pytest.mark.parametrize(
    ("answer", "blames"),
    [
        (said(500, {"response": {"message": "Internal Server Error"}}), False),
        (fault("timed out"), False),
        (fault("connection closed"), True),
        (fault("rate-overlimit"), True),
        (REFUSED, True),
        (SILENCE, True),
    ],
)
@in_virtual_time
async def test_what_says_something_of_other_sends(answer: Step, *, blames: bool) -> None:
    """A fault that may be of one contact holds up no other of its instance."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.planned["send"].append(answer)
        rig.server.state = state("open")
        tried = await rig.errand.run(claimed(), lambda: True)
        assert isinstance(tried, Tried)
        assert tried.blames_line is blames
