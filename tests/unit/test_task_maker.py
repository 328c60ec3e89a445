"""How a message becomes a task: what is refused, who is whose contact, when it is wanted, and which id it has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from actors.core.ids import IdSource, is_task_id, partition_of
from actors.core.json_limits import BadField
from actors.core.partition import line_of, partition_of_instance
from actors.core.phones import BadPhone
from actors.core.tasks import TaskPolicy, policy_of
from actors.runtime.clock import ManualClock
from actors.task_ports import NewTask
from router.api.tasks import AHEAD_S_MAX, Draft, MessageRules, NewMessage, TaskMaker
from router.edge.errors import BadInput

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NOW_S = NOW.timestamp()
RULES = MessageRules(instance="default", on_unknown="retry", max_retries=3)
JID = "5215512345678@s.whatsapp.net"


class Wall(ManualClock):
    """A clock that stands still."""

    def wall(self) -> float:
        """The time of these tests."""
        return NOW_S


def maker(rules: MessageRules = RULES) -> TaskMaker:
    """A maker at NOW."""
    return TaskMaker(rules, IdSource(lambda: round(NOW_S * 1000), lambda count: b"\x01" * count), Wall())


def draft(**fields: Any) -> Draft:
    """What is known of a message before it has an id."""
    return maker().draft(message(**fields))


def task(rules: MessageRules = RULES, **fields: Any) -> NewTask:
    """The task of a message."""
    by = maker(rules)
    return by.made(by.draft(message(**fields)), "", None)


def message(**fields: Any) -> NewMessage:
    """A message as its JSON is read."""
    plain = {"phone": "+52 1 55 1234 5678", "message": "hola", **fields}
    return msgspec.convert(plain, NewMessage)


def test_a_message_is_a_task_of_its_contact_and_instance() -> None:
    """Its line, its lane and its partition follow from them; the policy holds what Evolution is told."""
    new = task(instance_name="ventas", message="Hola ñ")
    assert (new.kid, new.partition) == line_of("ventas", JID)
    assert new.partition == partition_of_instance("ventas")
    assert (new.key, new.host, new.payload) == (f"ventas:{JID}", "evolution:ventas", "Hola ñ".encode())
    assert is_task_id(new.task_id)
    assert (new.trace, new.due_ms, new.received_us) == ("", 0, 0)
    assert policy_of(new.policy) == TaskPolicy(instance="ventas", phone="+52 1 55 1234 5678", number="5215512345678")


def test_what_a_message_does_not_say_the_rules_do() -> None:
    """And what it says wins."""
    rules = MessageRules(instance="other", on_unknown="dead", max_retries=9)
    policy = policy_of(task(rules).policy)
    assert (policy.instance, policy.on_unknown, policy.max_retries) == ("other", "dead", 9)
    said = policy_of(task(rules, on_unknown="retry", instance_name="mine").policy)
    assert (said.instance, said.on_unknown, said.max_retries) == ("mine", "retry", 9)


@pytest.mark.parametrize("text", [" ", "\n\t", "\u00a0\u2003"])
def test_a_message_that_says_nothing_is_refused(text: str) -> None:
    """WhatsApp would not send it."""
    with pytest.raises(BadInput, match="says nothing"):
        draft(message=text)


@pytest.mark.parametrize("message_text", ["", "x" * 65_537])
def test_a_message_has_its_bounds(message_text: str) -> None:
    """In characters."""
    with pytest.raises(msgspec.ValidationError):
        message(message=message_text)
    assert len(task(message="ñ" * 65_536).payload) == 2 * 65_536


@pytest.mark.parametrize(
    ("phone", "number"),
    [
        ("5215512345678", "5215512345678"),
        ("+52 1 (55) 1234-5678", "5215512345678"),
        (JID, JID),
        ("5215512345678:7@s.whatsapp.net", "5215512345678:7@s.whatsapp.net"),
    ],
)
def test_a_contact_is_one_however_it_is_written(phone: str, number: str) -> None:
    """One line for all; Evolution is told what was given."""
    new = task(phone=phone)
    assert new.kid == line_of("default", JID)[0]
    policy = policy_of(new.policy)
    assert (policy.phone, policy.number) == (phone, number)


@pytest.mark.parametrize("phone", ["1@lid", "120363042911934455@g.us"])
def test_lids_and_groups_are_contacts(phone: str) -> None:
    """As they are."""
    assert task(phone=phone).key == f"default:{phone}"


@pytest.mark.parametrize("phone", ["123", "abc", "1@example.org", "1" * 16])
def test_what_is_no_phone_is_refused(phone: str) -> None:
    """By its field."""
    with pytest.raises(BadPhone):
        draft(phone=phone)


@pytest.mark.parametrize("name", ["..", "a/b", "a\nb"])
def test_what_is_no_instance_is_refused(name: str) -> None:
    """It would become another route."""
    with pytest.raises(BadField):
        draft(instance_name=name)


@pytest.mark.parametrize(
    ("fields", "due_s"),
    [
        ({}, None),
        ({"delay": 0}, None),
        ({"delay": 1.5}, 1.5),
        ({"delay": AHEAD_S_MAX}, AHEAD_S_MAX),
        ({"eta": (NOW + timedelta(hours=1)).isoformat()}, 3600.0),
        ({"eta": (NOW + timedelta(hours=1)).astimezone(timezone(timedelta(hours=-6))).isoformat()}, 3600.0),
        ({"eta": NOW.isoformat()}, None),
        ({"eta": (NOW - timedelta(days=400)).isoformat()}, None),
        ({"eta": "0001-01-01T00:00:00Z"}, None),
        ({"eta": (NOW + timedelta(seconds=AHEAD_S_MAX)).isoformat()}, AHEAD_S_MAX),
    ],
)
def test_when_it_is_wanted(fields: dict[str, Any], due_s: float | None) -> None:
    """A time that has passed is now, wherever its clock stands."""
    assert task(**fields).due_ms == (0 if due_s is None else round((NOW_S + due_s) * 1000))


@pytest.mark.parametrize(
    "fields",
    [
        {"eta": (NOW + timedelta(seconds=AHEAD_S_MAX + 1)).isoformat()},
        {"eta": "9999-12-31T23:59:59Z"},
        {"eta": NOW.isoformat(), "delay": 1},
        {"eta": NOW.isoformat(), "delay": 0},
    ],
)
def test_no_time_that_is_too_far_and_not_two(fields: dict[str, object]) -> None:
    """More than a year ahead is a mistake."""
    with pytest.raises(BadInput):
        draft(**fields)


@pytest.mark.parametrize("fields", [{"delay": -1}, {"delay": AHEAD_S_MAX + 1}, {"eta": "2026-01-02T03:04:05"}])
def test_no_time_that_cannot_be_one(fields: dict[str, object]) -> None:
    """It is refused as it is read; a time without a zone is none."""
    with pytest.raises(msgspec.ValidationError):
        message(**fields)


def named(message_id: str | None = None, scope: str | None = None, **fields: Any) -> str:
    """The id that a task gets."""
    of = maker().made(draft(message_id=message_id, **fields), "00-abc", scope)
    assert of.trace == "00-abc"
    assert is_task_id(of.task_id)
    assert partition_of(of.task_id) == of.partition
    return of.task_id


def test_a_message_id_gives_one_task_a_contact() -> None:
    """However the contact is written and whatever it says; another contact or instance has another."""
    first = named("m1")
    assert named("m1", phone=JID, message="another", delay=60) == first
    assert named("m1", scope="idempotent") == first
    others = {named("m2"), named("m1", phone="5215587654321"), named("m1", instance_name="ventas")}
    assert len(others | {first}) == 4


def test_an_idempotency_key_gives_one_task() -> None:
    """Without either every message is its own."""
    assert named(scope="a") == named(scope="a") != named(scope="b")
    one = maker()
    new = one.draft(message())
    assert len({one.made(new, "", None).task_id for _ in range(100)}) == 100


def test_what_is_remembered_of_a_contact_is_not_what_is_said() -> None:
    """Two messages to one have their own texts and times; other options have another policy."""
    one = maker()
    tasks = [
        one.made(one.draft(message(**fields)), "", None)
        for fields in ({"message": "a", "delay": 5}, {"message": "b"}, {"message": "c", "on_unknown": "retry"})
    ]
    assert [each.payload for each in tasks] == [b"a", b"b", b"c"]
    assert [each.due_ms > 0 for each in tasks] == [True, False, False]
    assert [policy_of(each.policy).on_unknown for each in tasks] == [RULES.on_unknown, RULES.on_unknown, "retry"]
