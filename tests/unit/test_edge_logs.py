"""Logs: one line an event, whatever is in it, and no secret."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from router.edge import logs
from router.values import Secret


@pytest.fixture(name="stream", autouse=True)
def fixture_stream() -> Iterator[io.StringIO]:
    """Logs of this process as JSON, given back as they were afterwards."""
    before = list(logging.getLogger().handlers)
    stream = io.StringIO()
    logs.configure(stream, level="info", console=False)
    yield stream
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = before


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    """What was logged."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_line(stream: io.StringIO) -> None:
    """Time, level and phrase first."""
    logs.get("store").info("store connected", attempt=2, url="unix:///run/x")
    (event,) = events(stream)
    assert list(event)[:3] == ["timestamp", "level", "event"]
    assert event["timestamp"].endswith("Z")
    del event["timestamp"]
    assert event == {
        "level": "info",
        "event": "store connected",
        "logger": "store",
        "attempt": 2,
        "url": "unix:///run/x",
    }


def test_below_the_level_nothing_is_written(stream: io.StringIO) -> None:
    """DEBUG is silent at INFO."""
    logs.get("store").debug("noise")
    assert stream.getvalue() == ""


def test_libraries_go_the_same_way(stream: io.StringIO) -> None:
    """aiohttp's and everybody's `logging` ends in the same kind of line."""
    logging.getLogger("aiohttp.server").warning("unhandled %s", "line\nbreak")
    (event,) = events(stream)
    assert (event["level"], event["logger"]) == ("warning", "aiohttp.server")
    assert event["event"] == "unhandled line\\u000abreak"


def test_secrets_are_masked(stream: io.StringIO) -> None:
    """By type, by the name of the field at any depth, and in URLs."""
    logs.get("x").info(
        "configured",
        secret_key="canary1",
        headers={"Authorization": "canary2", "Accept": "*/*"},
        found=[{"apikey": "canary3"}],
        redis="redis://user:canary4@host/0",
        value=Secret("canary5"),
        nested={"a": (Secret("canary6"),)},
        error=ValueError("redis://canary7@host failed"),
        token=None,
    )
    assert "canary" not in stream.getvalue()
    (event,) = events(stream)
    assert event["headers"] == {"Authorization": "***", "Accept": "*/*"}
    assert event["redis"] == "redis://***@host/0"
    assert event["token"] is None


def test_a_traceback_stays_one_line_and_masked(stream: io.StringIO) -> None:
    """Line breaks are JSON's, other controls are escaped, URLs lose their user."""
    logs.get("x").error("it broke", exc_info=ValueError("redis://u:canary@h \x1b[31m\r"))
    (event,) = events(stream)
    assert event["exception"].startswith("ValueError: redis://***@h")
    assert not {"\x1b", "\r"} & set(event["exception"])
    assert "canary" not in event["exception"]


@given(st.text(), st.text())
def test_nothing_breaks_out_of_its_line(text: str, key: str) -> None:
    """No control, no separator, no reversal of direction, in values, in nested names, or in the phrase."""
    stream = io.StringIO()
    logs.configure(stream, console=False)
    for hostile in (text, f"{text}\r\n\x1b[2J\u2028\u202e\x85\x00"):
        logs.get("x").info(hostile, value=hostile, nested={key: [hostile]})
    written = stream.getvalue()
    assert len(events(stream)) == 2
    unsafe = {*map(chr, range(32)), *map(chr, range(0x7F, 0xA0)), "\u2028", "\u2029", "\u202e", "\u2066", "\u200f"}
    assert not unsafe & set(written.replace("\n", ""))


def test_any_value_can_be_logged(stream: io.StringIO) -> None:
    """Numbers too long for JSON readers, bytes, lone surrogates, structs and deep nests become text."""

    class Pair(msgspec.Struct):
        left: int
        right: Secret

    deep: list[object] = []
    for _ in range(50):
        deep = [deep]
    logs.get("x").info(
        "odd", big=2**80, data=b"\xff", lone="\ud800", pair=Pair(1, Secret("canary")), deep=deep, nan=float("nan")
    )
    (event,) = events(stream)
    assert event["big"] == str(2**80)
    assert "canary" not in stream.getvalue()


def test_a_terminal_gets_text() -> None:
    """Readable, still one line, still escaped."""
    stream = io.StringIO()
    logs.configure(stream, console=True)
    logs.get("x").info("hello", value="a\x1b[31mb\nc")
    assert "hello" in stream.getvalue()
    assert stream.getvalue().count("\n") == 1
    assert "\x1b[31m" not in stream.getvalue()
