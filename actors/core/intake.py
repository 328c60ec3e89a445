"""Intake: from the bytes of `POST /api/v1/message` to a message that can be stored, or to what is wrong with it.

Owns the rules beyond types: JSON limits, the payload is an object, the field that is aggregated is there and can be,
times fit each other. Never decides where a message goes: its webhook is judged by `webhook_target`, by the caller.
Invariant: what passes can be gathered, rendered and delivered without another look at its shape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec
from msgspec import Struct

from actors.core.aggregation import FieldMissing, extract, parse_path
from actors.core.json_limits import BadField, check_limits
from actors.core.policy import BATCH_BYTES_DEFAULT, DEBOUNCE_WAITS_MAX, BufferOptions, Message, Policy

KEY_BYTES_MAX = 512
_KEY_CHARACTERS_SAFE = KEY_BYTES_MAX // 4
"""So many characters fit whatever they are: UTF-8 takes at most four bytes for one."""

_decode_message = msgspec.json.Decoder(Message).decode
_decode_payload = msgspec.json.Decoder().decode
_encode_policy = msgspec.json.Encoder().encode


PayloadCheck = Callable[[bytes], None]
"""Raises BadMessage for a payload that is not right."""


class BadMessage(BadField):
    """The message is wrong in a way that its types don't show."""


class Limits(Struct, frozen=True, gc=False):
    """When a batch is full or due. `max_wait_ms` is 0 for a window: its first message's deadline stands."""

    wait_ms: int
    max_wait_ms: int
    max_size: int
    max_bytes: int


class Accepted(Struct, frozen=True, gc=False):
    """A message that can be stored. `payload` is the caller's bytes, `policy` the stored form of its policy."""

    message: Message
    payload: bytes
    policy: bytes
    limits: Limits


def parse(body: bytes) -> Accepted:
    """Decode and check one message. Raises BadMessage, JsonLimit or msgspec's DecodeError; UTF-8 is checked too."""
    check_limits(body)
    try:
        message = _decode_message(body)
    except UnicodeDecodeError:
        raise BadMessage("$", "not valid UTF-8") from None
    return accept(message)


def accept(message: Message) -> Accepted:
    """Check a decoded message. Raises BadMessage."""
    payload = bytes(message.payload)
    admit(message, _payload_value(payload))
    policy = _encode_policy(Policy(webhook=message.webhook, buffer=message.buffer))
    return Accepted(message, payload, policy, limits_of(message.buffer))


def admit(message: Message, payload_value: object) -> None:
    """Check what the types cannot say; `payload_value` is the decoded payload. Raises BadMessage."""
    options = message.buffer
    _check_object(payload_value)
    if len(options.key) > _KEY_CHARACTERS_SAFE and len(options.key.encode()) > KEY_BYTES_MAX:
        raise BadMessage("$.buffer.key", f"longer than {KEY_BYTES_MAX} bytes")
    check_waits(options)
    if options.aggregate_field is not None:
        _check_field(options, options.aggregate_field, payload_value)


def _check_payload(options: BufferOptions, payload: bytes) -> None:
    """Check the payload of a message whose options have been. Raises BadMessage."""
    value = _payload_value(payload)
    _check_object(value)
    if options.aggregate_field is not None:
        _check_field(options, options.aggregate_field, value)


def payload_checker(options: BufferOptions) -> PayloadCheck:
    """What checks payloads of messages whose options have been: most quickly those with a string at the field."""
    if options.aggregate_field is None:
        return partial(_check_payload, options)
    path = parse_path(options.aggregate_field)

    def check(payload: bytes) -> None:
        try:
            value = _decode_payload(payload)
            if type(value) is dict and isinstance(extract(value, path), str):
                return
        except (ValueError, FieldMissing):
            pass
        _check_payload(options, payload)  # says what is wrong, if anything is

    return check


def check_waits(options: BufferOptions) -> None:
    """Check that a debounce can wait as long as it wants to. Raises BadMessage."""
    if options.mode == "debounce" and options.max_wait is not None and options.max_wait < options.wait_time:
        raise BadMessage("$.buffer.max_wait", "must not be less than wait_time")


def limits_of(options: BufferOptions) -> Limits:
    """When a batch under these options is full or due.

    A debounce without `max_wait` is capped at five times its `wait_time`, whatever that is. `max_wait` of a window
    means nothing and is not looked at.
    """
    max_wait_ms = 0
    if options.mode == "debounce":
        max_wait = options.wait_time * DEBOUNCE_WAITS_MAX if options.max_wait is None else options.max_wait
        max_wait_ms = _milliseconds(max_wait)
    max_bytes = BATCH_BYTES_DEFAULT if options.max_bytes is None else options.max_bytes
    return Limits(_milliseconds(options.wait_time), max_wait_ms, options.max_size, max_bytes)


def _payload_value(payload: bytes) -> object:
    """Decode a payload whose syntax the message's decoder has already seen, but neither its UTF-8 nor its numbers."""
    try:
        value: object = _decode_payload(payload)
    except UnicodeDecodeError:
        raise BadMessage("$.payload", "not valid UTF-8") from None
    except msgspec.ValidationError:
        raise BadMessage("$.payload", "a number is out of range") from None
    return value


def _check_object(payload_value: object) -> None:
    if not isinstance(payload_value, dict):
        raise BadMessage("$.payload", "must be an object")


def _check_field(options: BufferOptions, field: str, payload_value: object) -> None:
    try:
        value = extract(payload_value, parse_path(field))
    except FieldMissing:
        raise BadMessage(f"$.payload.{field}", "is missing, and buffer.aggregate_field names it") from None
    if options.aggregate == "join" and not isinstance(value, str):
        raise BadMessage(f"$.payload.{field}", "must be a string to be joined") from None


def _milliseconds(seconds: float) -> int:
    """Up to the next millisecond, so nothing is early; the float's noise below a microsecond does not count."""
    return -(-round(seconds * 1_000_000) // 1000)
