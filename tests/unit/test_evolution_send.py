"""The request of one text: its path, its body in both dialects, its id, how long its answer may take."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from actors.core.evolution_send import (
    TextSend,
    answer_timeout_s,
    check_instance,
    message_id_for,
    send_body,
    send_path,
)
from actors.core.json_limits import BadField

TASK = "tsk_019a1b2c3d4e7f60812233445566778899"


def test_the_flat_body_of_version_2() -> None:
    """`number` and `text` are all it needs."""
    assert json.loads(send_body(TextSend(number="5215512345678", text="hola"), "v2")) == {
        "number": "5215512345678",
        "text": "hola",
    }


def test_what_version_2_takes_besides() -> None:
    """`delay` in milliseconds, and `messageId` where it is honoured."""
    send = TextSend(number="1@lid", text="hola", delay_ms=1200, message_id="3EB0" + "A" * 18)
    assert json.loads(send_body(send, "v2")) == {
        "number": "1@lid",
        "text": "hola",
        "delay": 1200,
        "messageId": "3EB0AAAAAAAAAAAAAAAAAA",
    }


def test_the_nested_body_of_version_1() -> None:
    """`textMessage.text` and `options`; there is no place for a message id."""
    send = TextSend(number="5215512345678", text="hola", delay_ms=1200, message_id="3EB0" + "A" * 18)
    assert json.loads(send_body(send, "v1")) == {
        "number": "5215512345678",
        "textMessage": {"text": "hola"},
        "options": {"delay": 1200, "presence": "composing"},
    }
    assert json.loads(send_body(TextSend(number="1", text="x"), "v1")) == {"number": "1", "textMessage": {"text": "x"}}


def test_the_id_is_of_whatsapps_form_and_the_tasks() -> None:
    """The same for every try, also by another version of this code: a second try must find the first. A task that comes
    again under its id, long after the first was forgotten, is another message."""
    assert message_id_for(TASK, 1_700_000_000_000) == "3EB07EE5F7A454524C9746"
    assert len({message_id_for(TASK, 1), message_id_for(TASK + "0", 1), message_id_for(TASK, 2)}) == 3


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_every_task_has_such_an_id(task_id: str) -> None:
    """`3EB0` and 18 upper-case hexadecimal digits, as Baileys makes them."""
    assert re.fullmatch(r"3EB0[0-9A-F]{18}", message_id_for(task_id, 1))


@given(delay_ms=st.integers(0, 600_000), timeout_s=st.floats(0.1, 600))
def test_a_slow_but_accepted_send_is_waited_for(delay_ms: int, timeout_s: float) -> None:
    """The delay blocks the answer; what is configured comes on top."""
    assert answer_timeout_s(delay_ms, timeout_s) == pytest.approx(delay_ms / 1000 + timeout_s)


@pytest.mark.parametrize("instance", ["", ".", "..", "a/b", "a\nb", "x\x7f", "n" * 129])
def test_a_name_that_would_lead_elsewhere(instance: str) -> None:
    """It is no instance's."""
    with pytest.raises(BadField):
        check_instance(instance)


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20) | st.sampled_from(["a?apikey=x", "a#b", "%2e%2e"])
)
def test_a_path_has_no_query_and_no_other_route(instance: str) -> None:
    """A caller's `?` would reach Evolution's guards as another instance."""
    try:
        check_instance(instance)
    except BadField:
        return
    url = URL("http://evolution:8080" + send_path(instance), encoded=True)
    assert (url.raw_query_string, url.raw_fragment) == ("", "")
    assert url.parts == ("/", "message", "sendText", instance)
