"""Validation: what Evolution finds wrong with a body, in the words of its schemas.

Pure. A schema's own description wins over the validator's words; what is in the body is looked at before what is
missing. Unknown properties pass. Evolution wraps the texts in a second array; `server` does that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from router.fake_evolution.dialects import Dialect, Json

_MENTIONED = re.compile(r"\d+")
Look = Callable[[str, object], Iterator[str]]


class SendText(Struct, frozen=True, kw_only=True):
    """A valid sendText, whatever its dialect. `message_id` is empty where the version knows none."""

    number: str
    text: str
    delay_s: float = 0
    message_id: str = ""


def send_text_problems(dialect: Dialect, body: Json) -> list[str]:
    """What is wrong with the body of a sendText."""
    if dialect.nested_text:
        problems = [*_object("", {"number": _described(str, "Invalid format"), "options": _options}, body)]
        if "textMessage" in body:
            problems += _nested("textMessage", {"text": _text_of_one}, ("text",), body["textMessage"])
        return problems + _missing("", ("number", "textMessage"), body)
    looks: dict[str, Look] = {
        "number": _described(str, "Invalid format"),
        "text": _typed(str),
        "linkPreview": _typed(bool),
        "delay": _described(int, "Enter a value in milliseconds"),
        "quoted": _quoted,
        "everyOne": _typed(bool),
        "mentionsEveryOne": _typed(bool),
        "mentioned": _mentioned,
    }
    return [*_object("", looks, body), *_missing("", ("number", "text"), body)]


def send_text(dialect: Dialect, body: Json) -> SendText:
    """What a body without problems asks for."""
    options = body.get("options") or {} if dialect.nested_text else body
    return SendText(
        number=body["number"],
        text=body["textMessage"]["text"] if dialect.nested_text else body["text"],
        delay_s=(options.get("delay") or 0) / 1000,
        message_id=str(body.get("messageId") or "") if dialect.keeps_message_id else "",
    )


def webhook_problems(dialect: Dialect, body: Json) -> list[str]:
    """What is wrong with the body of a webhook/set: 1.8.2 takes it flat, 2.x inside `webhook`."""
    looks: dict[str, Look] = {"enabled": _typed(bool), "url": _typed(str), "events": _typed(list)}
    if dialect.nested_text:
        return [*_object("", looks, body), *_missing("", ("url",), body)]
    if "webhook" not in body:
        return _missing("", ("webhook",), body)
    return _nested("webhook", looks, ("enabled", "url"), body["webhook"])


def _nested(path: str, looks: Mapping[str, Look], required: tuple[str, ...], value: object) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path} is not of a type(s) object"]
    return [*_object(f"{path}.", looks, value), *_missing(path, required, value)]


def _object(prefix: str, looks: Mapping[str, Look], body: Json) -> Iterator[str]:
    for name, look in looks.items():
        if name in body:
            yield from look(prefix + name, body[name])


def _missing(path: str, required: tuple[str, ...], body: Json) -> list[str]:
    return [f'{path or "instance"} requires property "{name}"' for name in required if name not in body]


def _is(kind: type, value: object) -> bool:
    if kind is int:
        whole = value.is_integer() if isinstance(value, float) else isinstance(value, int)
        return whole and not isinstance(value, bool)
    return isinstance(value, kind)


def _typed(kind: type) -> Look:
    word = {str: "string", bool: "boolean", list: "array"}[kind]

    def look(path: str, value: object) -> Iterator[str]:
        if not _is(kind, value):
            yield f"{path} is not of a type(s) {word}"

    return look


def _described(kind: type, description: str) -> Look:
    def look(_path: str, value: object) -> Iterator[str]:
        if not _is(kind, value):
            yield description

    return look


def _text_of_one(path: str, value: object) -> Iterator[str]:
    yield from _typed(str)(path, value)
    if value == "":
        yield f"{path} does not meet minimum length of 1"


def _options(path: str, value: object) -> Iterator[str]:
    looks: dict[str, Look] = {
        "delay": _described(int, "Enter a value in milliseconds"),
        "linkPreview": _typed(bool),
        "quoted": _quoted,
        "mentions": lambda at, mentions: iter(_nested(at, {"mentioned": _mentioned}, (), mentions)),
    }
    yield from _nested(path, looks, (), value)


def _quoted(path: str, value: object) -> Iterator[str]:
    if isinstance(value, dict) and "key" in value:
        yield from _nested(f"{path}.key", {"id": _typed(str), "fromMe": _typed(bool)}, ("id",), value["key"])


def _mentioned(path: str, value: object) -> Iterator[str]:
    if not isinstance(value, list):
        yield f"{path} is not of a type(s) array"
        return
    if not value:
        yield f"{path} does not meet minimum length of 1"
    if len({str(each) for each in value}) < len(value):
        yield f"{path} contains duplicate item"
    if not all(isinstance(each, str) and _MENTIONED.match(each) for each in value):
        yield '"mentioned" must be an array of numeric strings'
