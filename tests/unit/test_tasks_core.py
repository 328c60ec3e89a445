"""What follows from one try at a send: a table over outcomes, failures and what the server and the request allow."""

from __future__ import annotations

from itertools import product
from typing import get_args

import msgspec
import pytest

from actors.core.evolution_answers import (
    Fault,
    Refusal,
    Rejected,
    SendOutcome,
    Sent,
    Trouble,
    Uncertain,
    WrongDialect,
)
from actors.core.evolution_server import PauseCause, Paused
from actors.core.tasks import (
    FINAL,
    STATE_OF,
    Again,
    Failure,
    Given,
    Held,
    OnUnknown,
    Succeeded,
    Success,
    TaskPolicy,
    TaskState,
    decide,
    instance_of,
    lane_of,
    policy_of,
)
from actors.ports import Settled, Status

CLOSED = Paused("closed", "the instance is closed")
ON_UNKNOWN: tuple[OnUnknown, ...] = ("retry", "dead")
BOTH = (False, True)
ALL = list(product((0, 1, 2, 3, 7), BOTH, ON_UNKNOWN))
REFUSALS = [Rejected(kind, "no") for kind in get_args(Refusal)]
PAUSES = [Paused(cause, "not now") for cause in get_args(PauseCause)]
TROUBLES = [Trouble(kind, "oh") for kind in get_args(Fault) if kind != "timed_out"]


def policy(on_unknown: OnUnknown = "retry", max_retries: int = 3) -> TaskPolicy:
    """A send that may be tried again so often."""
    return TaskPolicy(instance="i", phone="+1", number="1", on_unknown=on_unknown, max_retries=max_retries)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [
        (Sent("3EB0", "1@s.whatsapp.net"), Succeeded("3EB0")),
        *((outcome, Given("no")) for outcome in REFUSALS),
        *((outcome, Held("not now")) for outcome in PAUSES),
    ],
)
def test_what_is_certain_is_so_whatever_else_holds(outcome: SendOutcome, verdict: object) -> None:
    """However often it failed, and whatever the instance was found to be afterwards."""
    for (failures, once, on_unknown), paused in product(ALL, (None, CLOSED)):
        assert decide(outcome, paused, policy(on_unknown), failures=failures, once=once) == verdict


@pytest.mark.parametrize("outcome", TROUBLES)
def test_what_was_not_sent_is_tried_again_until_retries_are_used_up(outcome: Trouble) -> None:
    """And then nobody doubts that it was not."""
    for failures, once, on_unknown in ALL:
        verdict = decide(outcome, None, policy(on_unknown), failures=failures, once=once)
        assert verdict == (Again("oh") if failures < 3 else Given("oh"))


@pytest.mark.parametrize("outcome", TROUBLES)
def test_trouble_of_an_instance_that_can_send_nothing_waits_for_it(outcome: Trouble) -> None:
    """No retry is used up, and the reason is the instance's."""
    for failures, once, on_unknown in ALL:
        assert decide(outcome, CLOSED, policy(on_unknown), failures=failures, once=once) == Held(CLOSED.reason)


def test_what_may_have_been_sent_is_tried_again_when_that_cannot_send_twice_or_is_wished() -> None:
    """Also when the instance is found closed: it may have been sent before."""
    for (failures, once, on_unknown), paused in product(ALL, (None, CLOSED)):
        verdict = decide(Uncertain("silence"), paused, policy(on_unknown), failures=failures, once=once)
        again = (once or on_unknown == "retry") and failures < 3
        assert verdict == (Again("silence") if again else Given("silence", uncertain=True))


@pytest.mark.parametrize("use", ["v1", "v2"])
def test_a_server_that_keeps_changing_its_dialect_is_tried_again(use: object) -> None:
    """It took nothing, so nothing is in doubt."""
    outcome = WrongDialect("v1" if use == "v1" else "v2")
    for failures, once, on_unknown in ALL:
        verdict = decide(outcome, None, policy(on_unknown), failures=failures, once=once)
        assert isinstance(verdict, Again if failures < 3 else Given)
        assert isinstance(verdict, Again) or verdict.uncertain is False
        assert str(use) in verdict.reason


@pytest.mark.parametrize(("max_retries", "failures", "again"), [(0, 0, False), (1, 0, True), (1, 1, False)])
def test_retries_are_the_tasks(max_retries: int, failures: int, *, again: bool) -> None:
    """As many as were promised when it was taken in."""
    verdict = decide(TROUBLES[0], None, policy(max_retries=max_retries), failures=failures, once=True)
    assert isinstance(verdict, Again) is again


def test_every_status_is_a_state() -> None:
    """Those of a delivery, in Celery's words; three are the end."""
    assert set(STATE_OF) == set(get_args(Status))
    assert set(STATE_OF.values()) == set(get_args(TaskState))
    assert {STATE_OF[status] for status in ("delivered", "dead", "discarded")} == FINAL
    assert set(get_args(Settled)) - set(STATE_OF) == {"held"}


def test_a_lane_tells_its_instance() -> None:
    """Whatever it is called; a webhook's host has none."""
    for name in ("default", "a:b", "evolution:x", "ñ"):
        assert instance_of(lane_of(name)) == name
    assert instance_of("evolution.example:443") is None
    assert instance_of("a.example:443") is None


def test_a_policy_is_read_as_it_was_written() -> None:
    """What is stored stays readable: these are its bytes."""
    plain = TaskPolicy(instance="i", phone="+52 1", number="521")
    assert msgspec.json.encode(plain) == b'{"instance":"i","phone":"+52 1","number":"521"}'
    full = TaskPolicy(instance="i", phone="+52 1", number="521", on_unknown="dead", max_retries=0)
    stored = msgspec.json.encode(full)
    assert stored == b'{"instance":"i","phone":"+52 1","number":"521","on_unknown":"dead","max_retries":0}'
    assert policy_of(stored) == full
    assert policy_of(b'{"instance":"i","phone":"+52 1","number":"521","later":1}') == plain


def test_results_are_as_the_contract_says() -> None:
    """`uncertain` only where it is so."""
    assert msgspec.json.encode(Success(phone="+1", evolution_key="3E")) == (
        b'{"success":true,"phone":"+1","evolution_key":"3E"}'
    )
    assert msgspec.json.encode(Failure(success=False, phone="+1", error="no")) == (
        b'{"success":false,"phone":"+1","error":"no"}'
    )
    assert b'"uncertain":true' in msgspec.json.encode(Failure(success=False, phone="+1", error="no", uncertain=True))


@pytest.mark.parametrize("paused", [None, CLOSED])
def test_a_send_that_timed_out_on_its_way_to_whatsapp(paused: Paused | None) -> None:
    """It may have gone out: who wants nothing twice has it given up; for everybody else it is a fault that passes."""
    for once, on_unknown in product(BOTH, ON_UNKNOWN):
        verdict = decide(Trouble("timed_out", "why"), paused, policy(on_unknown), failures=0, once=once)
        if on_unknown == "dead" and not once:
            assert verdict == Given("why", uncertain=True)
        else:
            assert verdict == (Again("why") if paused is None else Held(CLOSED.reason))
