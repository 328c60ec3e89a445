"""Logs: one line per event, JSON for machines and coloured text on a terminal.

Owns the pipeline every line goes through, ours and that of libraries that use `logging`: level, time, masking of
secrets, escaping of everything that could fake a line or steer a terminal. Never decides what is worth a line.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TextIO

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger, Processor

from router.values import Secret

MASK = "***"
LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}

_SECRET_NAME = re.compile(r"secret|password|passwd|token|authorization|api_?key|cookie|credential", re.IGNORECASE)
_URL_USER = re.compile(r"(?<=://)[^/@\s]*@")
# Controls (C0, C1), line and paragraph separators, marks that turn the direction of text, and halves of characters.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_TRACEBACK = re.compile(
    r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_EXCEPTION = "exception"
_DEPTH_MAX = 6

Event = MutableMapping[str, object]


def configure(stream: TextIO, *, level: str = "INFO", console: bool | None = None) -> None:
    """Send all logs of the process to `stream`. `console=None`: text on a terminal, else JSON. Call it once, early."""
    threshold = LEVELS[level.upper()]
    text = stream.isatty() if console is None else console
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        make_safe,
    ]
    renderer: list[Processor] = [structlog.dev.ConsoleRenderer(colors=stream.isatty())] if text else [to_json]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=False,
    )
    _route_stdlib(stream, threshold, shared, renderer)


def get(name: str) -> FilteringBoundLogger:
    """The logger of one part of the router, once `configure` was called; `logger` names the part in every line."""
    logger: FilteringBoundLogger = structlog.get_logger().bind(logger=name)
    return logger


def make_safe(_logger: object, _method: str, event: Event) -> Event:
    """Mask secrets by the name of their field and escape what could break out of the line."""
    for name, value in event.items():
        if name == _EXCEPTION and isinstance(value, str):
            event[name] = _UNSAFE_IN_TRACEBACK.sub(_escaped, _without_user(value))
        elif value is not None and _SECRET_NAME.search(name):
            event[name] = MASK
        else:
            event[name] = _safe(value)
    return event


def to_json(_logger: object, _method: str, event: Event) -> str:
    """One line of JSON, the fields that every line has first."""
    first = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return msgspec.json.encode({**first, **event}).decode()


def _safe(value: object, depth: int = 0) -> object:
    match value:
        case Secret():
            return MASK
        case str():
            return _UNSAFE.sub(_escaped, _without_user(value))
        case None | bool() | float():
            return value
        case int():
            return (
                value if -(2**63) <= value < 2**63 else str(value)
            )  # longer ones are no JSON integers for many readers
        case _:
            return _safe_members(value, depth)


def _safe_members(value: object, depth: int) -> object:
    if isinstance(value, Mapping) and depth < _DEPTH_MAX:
        named = {str(_safe(str(name))): each for name, each in value.items()}
        return {name: MASK if _SECRET_NAME.search(name) else _safe(each, depth + 1) for name, each in named.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray) and depth < _DEPTH_MAX:
        return [_safe(each, depth + 1) for each in value]
    return _safe(str(value))


def _without_user(text: str) -> str:
    return _URL_USER.sub(f"{MASK}@", text) if "://" in text else text


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"


def _route_stdlib(stream: TextIO, threshold: int, shared: list[Processor], renderer: list[Processor]) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.INFO))
