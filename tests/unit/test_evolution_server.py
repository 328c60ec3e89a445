"""What a server says of itself and of its instances."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.evolution_server import (
    Answer,
    InstanceState,
    Paused,
    Server,
    pause_for,
    read_state,
    read_welcome,
    server_of,
    state_of,
)
from tests.unit.test_foreign_json import JSON


def answer(body: object, status: int = 200) -> Answer:
    """An answer with this JSON."""
    return Answer(status, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("version", "server"),
    [
        *(("1.8.2", ("v1", False)), ("1.99.99", ("v1", False)), ("2.0.0", ("v2", False)), ("2.3.7", ("v2", False))),
        *(("2.4.0-rc1", ("v2", False)), ("2.4.0-rc2", ("v2", True)), ("2.4.0-rc.10", ("v2", True))),
        *(("2.4.0", ("v2", True)), ("2.4.1-rc1", ("v2", True)), ("2.10.0", ("v2", True)), ("3.0.0", ("v2", True))),
        *(("2.4.0-beta", ("v2", False)), ("v2.3.7", ("v2", False)), (" 2.3.7 ", ("v2", False))),
    ],
)
def test_what_a_version_means(version: str, server: tuple[str, bool]) -> None:
    """The dialect by the first number; a message id of ours from 2.4.0-rc2 on."""
    found = server_of(version)
    assert found is not None
    assert (found.dialect, found.honours_message_id) == server
    assert found.version == version.strip()


@pytest.mark.parametrize(
    "version", ["", "2", "2.3", "latest", "2.3.7.1", "2.3.x", "-1.0.0", "٣.٣.٣", "2.3.7-", "9" * 99]
)
def test_no_version_means_nothing(version: str) -> None:
    """What it speaks is then found out by a send."""
    assert server_of(version) is None


def test_the_welcome() -> None:
    """As of section 2.2."""
    welcome = {
        "status": 200,
        "message": "Welcome to the Evolution API, it is working!",
        "version": "2.3.7",
        "manager": "",
    }
    assert read_welcome(answer(welcome)) == Server("2.3.7", "v2", False)
    gate = {"error": "service not activated", "code": "LICENSE_REQUIRED", "register_url": "https://x/?t=s3cr3t"}
    assert read_welcome(answer(gate, 503)) == Paused("license", "Evolution's license has to be activated")
    assert read_welcome(Answer(200, b"<html>")) is None
    assert read_welcome(answer({"version": 2})) is None


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (200, {"instance": {"instanceName": "x", "state": "open"}}, "open"),
        (200, {"instance": {"instanceName": "x", "state": "connecting"}}, "connecting"),
        (200, {"instance": {"instanceName": "x", "state": "close"}}, "close"),
        (200, {"instance": {"instanceName": "x"}}, "not_loaded"),  # #2583
        (404, {"status": 404, "response": {"message": ['The "x" instance does not exist']}}, "unknown"),
        (404, {"status": 404, "response": {"message": ["Cannot GET /instance/connectionState/x"]}}, None),
        (200, {"instance": {"instanceName": "x", "state": "?"}}, None),
        (200, {"instance": {"instanceName": "x", "state": 1}}, None),
        *((200, {}, None), (200, {"instance": "x"}, None), (500, {"instance": {"state": "open"}}, None)),
        (401, {"status": 401, "response": {"message": "Unauthorized"}}, None),
    ],
)
def test_the_state_of_an_instance(status: int, body: object, state: InstanceState | None) -> None:
    """None when the answer tells nothing."""
    assert read_state(answer(body, status)) == state


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        *(("open", None), ("unknown", None), ("close", "closed"), ("refused", "closed"), ("connecting", "closed")),
        ("not_loaded", "not_loaded"),
    ],
)
def test_which_states_pause(state: InstanceState, cause: str | None) -> None:
    """Those in which nothing can be sent, and time or somebody will change that."""
    paused = pause_for(state)
    assert (None if paused is None else paused.cause) == cause


@given(st.binary(max_size=40) | JSON.map(lambda value: json.dumps(value).encode()), st.integers(100, 599), JSON)
def test_any_answer_is_survived(body: bytes, status: int, state: object) -> None:
    """Nothing raises, whatever answers there."""
    read_welcome(Answer(status, body))
    read_state(Answer(status, body))
    read_state(answer({"instance": {"state": state}}, status))
    state_of(state)
