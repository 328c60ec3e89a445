"""Behaviours: the ways in which the sink answers a request, and the paths that ask for them.

Values only; the sink acts them out.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct


class Reply(Struct, frozen=True, kw_only=True):
    """An ordinary answer, after `delay_s`; `close` ends the connection after it."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b'{"ok":true}'
    delay_s: float = 0.0
    close: bool = False


class Hang(Struct, frozen=True):
    """Read the request, never answer."""


class Drip(Struct, frozen=True, kw_only=True):
    """Answer one byte every `every_s`, from the status line on or only the body; the body never ends."""

    part: Literal["head", "body"] = "body"
    status: int = 200
    every_s: float = 0.2


class Reset(Struct, frozen=True):
    """RST: as soon as the request's head is in, or in the middle of the answer's body."""

    when: Literal["request", "answer"] = "request"


class Flood(Struct, frozen=True):
    """A 200 with a body of `size_bytes`, as fast as it is taken."""

    size_bytes: int = 300_000_000


class GzipBomb(Struct, frozen=True):
    """A 200 whose small gzip body inflates to `inflated_bytes`."""

    inflated_bytes: int = 160 * 1024 * 1024


class Raw(Struct, frozen=True):
    """These bytes and nothing else, then (unless `close` is off) the end: for answers that are not HTTP."""

    data: bytes
    close: bool = True


Behaviour = Reply | Hang | Drip | Reset | Flood | GzipBomb | Raw


def redirect(to: str, status: int = 302) -> Reply:
    """An answer that points elsewhere."""
    return Reply(status=status, headers=(("Location", to),))


def behaviour_of(path: str, turn: int) -> Behaviour:
    """What a path asks for, so that a sink in another process can be scripted; `turn` counts the calls of this path.

    `/status/503?retry-after=3` `/script/503,503,200/any` (the last one stays) `/delay/0.5` `/hang` `/drip`
    `/drip-head` `/reset` `/reset-answer` `/flood` `/gzip` `/redirect?to=http://…`; anything else is 200.
    """
    parts = urlsplit(path)
    query = dict(parse_qsl(parts.query))
    match parts.path.strip("/").split("/"):
        case ["status", status, *_]:
            return Reply(status=int(status), headers=_retry_after(query))
        case ["script", statuses, *_]:
            known = statuses.split(",")
            return Reply(status=int(known[min(turn, len(known) - 1)]), headers=_retry_after(query))
        case ["delay", seconds, *_]:
            return Reply(delay_s=float(seconds))
        case ["redirect", *_]:
            return redirect(query["to"])
        case [name, *_] if name in NAMED:
            return NAMED[name]
        case _:
            return OK


def _retry_after(query: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return (("Retry-After", query["retry-after"]),) if "retry-after" in query else ()


OK = Reply()
NAMED: dict[str, Behaviour] = {
    "hang": Hang(),
    "drip": Drip(),
    "drip-head": Drip(part="head"),
    "reset": Reset(),
    "reset-answer": Reset("answer"),
    "flood": Flood(),
    "gzip": GzipBomb(),
}
