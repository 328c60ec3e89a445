"""Ways to the cache: through a node's HTTP routes, of both APIs, and as a plain client of its store.

Each way does one thing to some keys, once, and says what came of it. Values are JSON that holds a number and padding
that follows from it, so that a value which was mixed up, cut short or encoded anew is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import sha1
from pathlib import Path
from random import Random
from typing import Any, Literal, Protocol

import msgspec
import redis.asyncio
from msgspec import Raw, Struct
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.chaos.coherence_ledger import FOR_EVER, FOREIGN, NOTHING
from tests.chaos.evidence import BROKEN, OK, TIMED_OUT
from tests.chaos.wire import Node

GARBLED = -2
"""In place of a status: an answer that says something impossible."""
CREATED, ABSENT, MISMATCH = 201, 404, 412
V0, V1 = "/api/cache/", "/api/v1/cache/"
PADDING_BYTES_MAX = 200
FOREIGN_S = 2.0
DURATION = re.compile(r"([\d.]+)(ns|us|µs|ms|s|m|h)")
MS = {"ns": 1e-6, "us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4, "h": 3.6e6}
Precondition = Literal["", "same", "other", "none"]
"""What a `set` demands: nothing; the value with the given number; one that never was; nothing there."""


class Outcome(Struct, frozen=True):
    """What came of a change. `applied` None: nobody knows."""

    applied: bool | None
    status: int = OK
    detail: str = ""


class Reading(Struct, frozen=True):
    """What was read. `status` other than OK: nothing was."""

    numbers: Sequence[int] = ()
    lefts: Sequence[int] = ()
    stale: bool = False
    status: int = OK
    detail: str = ""


class Way(Protocol):
    """One way. Names are keys of the cache; `ttl_ms` FOR_EVER: no expiry."""

    name: str

    async def set(self, names: Mapping[str, int], ttl_ms: int) -> Outcome: ...
    async def delete(self, names: Sequence[str]) -> Outcome: ...
    async def expire(self, name: str, ttl_ms: int) -> Outcome: ...
    async def flush(self) -> Outcome: ...
    async def read(self, names: Sequence[str]) -> Reading: ...


def value_of(number: int) -> bytes:
    """The stored bytes of a write."""
    return b'{"n":%d,"p":"%s"}' % (number, b"x" * (number * 7919 % PADDING_BYTES_MAX))


def tag_of(number: int) -> str:
    """The entity tag of that."""
    return f'"{sha1(value_of(number), usedforsecurity=False).hexdigest()}"'


class Value(Struct):
    """A value, decoded."""

    n: int


class V1Item(Struct):
    """An entry as the newer API answers it."""

    value: Raw
    remaining_ttl: str


class V1Items(Struct):
    """A batch of them."""

    items: dict[str, V1Item]
    count: int


class V0Item(Struct):
    """An entry as the older API answers it."""

    key: str
    value: Raw
    ttl: int


_VALUE = msgspec.json.Decoder(Value)
_V1_ITEM = msgspec.json.Decoder(V1Item)
_V1_ITEMS = msgspec.json.Decoder(V1Items)
_V0_ITEM = msgspec.json.Decoder(V0Item)


def number_in(value: Raw | bytes) -> int:
    """The number of a value, if its bytes are exactly those of that number's write. Raises ValueError."""
    number = _VALUE.decode(value).n
    if bytes(value) != value_of(number):
        raise ValueError(f"other bytes under number {number}: {bytes(value)[:60]!r}")
    return number


def left_ms(duration: str) -> int:
    """A Go duration in milliseconds."""
    if duration == "none":
        return FOR_EVER
    ms = sum(float(amount) * MS[unit] for amount, unit in DURATION.findall(duration))
    if not ms:
        raise ValueError(f"no duration: {duration!r}")
    return -round(ms) - 1 if duration.startswith("-") else max(round(ms), 1)


def ttl_text(ttl_ms: int) -> str:
    """The same, the other way, as JSON."""
    return '"none"' if ttl_ms == FOR_EVER else f'"{ttl_ms}ms"'


class NodeWay:
    """Through one node, by whatever route fits, chosen by chance."""

    def __init__(self, name: str, port: int, chance: Random) -> None:
        self.name = name
        self._node = Node(name, port)
        self._chance = chance

    def close(self) -> None:
        """Hang up."""
        self._node.close()

    async def set(self, names: Mapping[str, int], ttl_ms: int, demand: Precondition = "", known: int = 0) -> Outcome:
        """Write a number to each name. A demand goes with one name only."""
        ttl = ttl_text(ttl_ms)
        if len(names) > 1:
            items = ",".join(
                f'"{name}":{{"value":{value_of(each).decode()},"ttl":{ttl}}}' for name, each in names.items()
            )
            return await self._changed("POST", f"{V1}batch", f'{{"items":{{{items}}}}}'.encode())
        (name, number), *_ = names.items()
        body = f'"value":{value_of(number).decode()},"ttl":{ttl}}}'
        if demand:
            tag = {"same": tag_of(known), "other": tag_of(-1), "none": "*"}[demand]
            header = f"If-{'None-' if demand == 'none' else ''}Match: {tag}\r\n"
            return await self._changed("PUT", V1 + name, f"{{{body}".encode(), header)
        if self._chance.random() < 0.3:
            return await self._changed("POST", V0, f'{{"key":"{name}",{body}'.encode())
        return await self._changed("PUT", V1 + name, f"{{{body}".encode())

    async def delete(self, names: Sequence[str]) -> Outcome:
        """Delete keys. That one was not there is as good as having deleted it."""
        if len(names) > 1:
            outcome = await self._changed("DELETE", f"{V1}batch", msgspec.json.encode({"keys": names}))
        else:
            outcome = await self._changed("DELETE", self._chance.choice((V0, V1)) + names[0])
        return Outcome(True) if outcome.status == ABSENT else outcome

    async def delete_matching(self, pattern: str) -> Outcome:
        """Delete all keys that match."""
        return await self._changed("DELETE", f"{V0}pattern/{pattern}")

    async def expire(self, name: str, ttl_ms: int) -> Outcome:
        """Give a key another time to live."""
        return await self._changed("PUT", f"{V1}{name}/expire", f'{{"ttl":{ttl_text(ttl_ms)}}}'.encode())

    async def flush(self) -> Outcome:
        """Delete everything."""
        if self._chance.random() < 0.5:
            return await self._changed("POST", f"{V0}flush", b'{"confirm":true}')
        return await self._changed("DELETE", V1)

    async def read(self, names: Sequence[str]) -> Reading:
        """Read keys."""
        try:
            if len(names) > 1:
                return await self._read_many(names)
            return await (self._read_v0(names[0]) if self._chance.random() < 0.3 else self._read_v1(names[0]))
        except (ValueError, KeyError) as error:
            return Reading(status=GARBLED, detail=f"{type(error).__name__}: {error}"[:200])

    async def _read_many(self, names: Sequence[str]) -> Reading:
        status, body, head = await self._node.ask("POST", f"{V1}batch/get", msgspec.json.encode({"keys": names}))
        if status != OK:
            return Reading(status=status, detail=_excerpt(body))
        answer = _V1_ITEMS.decode(body)
        items = answer.items
        if answer.count != len(items) or not items.keys() <= set(names):
            raise ValueError("names that were not asked for, or a wrong count")
        numbers, lefts = [], []
        for name in names:
            item = items.get(name)
            numbers.append(NOTHING if item is None else number_in(item.value))
            lefts.append(FOR_EVER if item is None else left_ms(item.remaining_ttl))
        return Reading(numbers, lefts, _is_stale(head))

    async def _read_v1(self, name: str) -> Reading:
        status, body, head = await self._node.ask("GET", V1 + name)
        if status == ABSENT:
            return Reading([NOTHING], [FOR_EVER], _is_stale(head))
        if status != OK:
            return Reading(status=status, detail=_excerpt(body))
        item = _V1_ITEM.decode(body)
        number = number_in(item.value)
        if f"\r\netag: {tag_of(number)}".encode() not in head:
            raise ValueError(f"not the entity tag of number {number}")
        return Reading([number], [left_ms(item.remaining_ttl)], _is_stale(head))

    async def _read_v0(self, name: str) -> Reading:
        status, body, head = await self._node.ask("GET", V0 + name)
        if status == ABSENT:
            return Reading([NOTHING], (), _is_stale(head))
        if status != OK:
            return Reading(status=status, detail=_excerpt(body))
        item = _V0_ITEM.decode(body)
        if item.key != name or (item.ttl < 1 and item.ttl != FOR_EVER):
            raise ValueError(f"key {item.key!r}, ttl {item.ttl}")
        return Reading([number_in(item.value)], (), _is_stale(head))

    async def _changed(self, method: str, path: str, body: bytes = b"", headers: str = "") -> Outcome:
        status, answer, _ = await self._node.ask(method, path, body, headers)
        if status in (OK, CREATED):
            return Outcome(True)
        if status in (ABSENT, MISMATCH):
            return Outcome(False, status)
        return Outcome(None, status, _excerpt(answer))


class ForeignWay:
    """As any other program that uses the store."""

    name = FOREIGN

    def __init__(self, socket_path: Path) -> None:
        self._client = redis.asyncio.Redis(
            unix_socket_path=str(socket_path),
            retry=Retry(NoBackoff(), 0),
            socket_timeout=FOREIGN_S,
            socket_connect_timeout=FOREIGN_S,
        )

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()

    async def set(self, names: Mapping[str, int], ttl_ms: int) -> Outcome:
        """SET each, in one transaction."""
        commands = [("SET", name, value_of(number), *_px(ttl_ms)) for name, number in names.items()]
        outcome, _ = await self._do(commands)
        return outcome

    async def delete(self, names: Sequence[str]) -> Outcome:
        """DEL."""
        outcome, _ = await self._do([("DEL", *names)])
        return outcome

    async def expire(self, name: str, ttl_ms: int) -> Outcome:
        """PEXPIRE; PERSIST says nothing of use about a key that has no expiry, and is followed by EXISTS."""
        if ttl_ms != FOR_EVER:
            outcome, answers = await self._do([("PEXPIRE", name, ttl_ms)])
        else:
            outcome, answers = await self._do([("PERSIST", name), ("EXISTS", name)])
        return outcome if outcome.applied is None or answers[-1] == 1 else Outcome(False, ABSENT)

    async def flush(self) -> Outcome:
        """FLUSHALL: not where nodes keep what they must not lose."""
        outcome, _ = await self._do([("FLUSHALL",)])
        return outcome

    async def read(self, names: Sequence[str]) -> Reading:
        """MGET."""
        outcome, answers = await self._do([("MGET", *names)])
        if outcome.applied is None:
            return Reading(status=outcome.status, detail=outcome.detail)
        try:
            return Reading([NOTHING if value is None else number_in(value) for value in answers[0]])
        except ValueError as error:
            return Reading(status=GARBLED, detail=str(error)[:200])

    async def _do(self, commands: Sequence[tuple[bytes | str | int, ...]]) -> tuple[Outcome, list[Any]]:
        try:
            async with self._client.pipeline(transaction=len(commands) > 1) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                return Outcome(True), await pipeline.execute()
        except RedisTimeoutError as error:
            return Outcome(None, TIMED_OUT, str(error)), []
        except RedisError as error:
            return Outcome(None, BROKEN, str(error)), []


def _px(ttl_ms: int) -> tuple[str | int, ...]:
    return () if ttl_ms == FOR_EVER else ("PX", ttl_ms)


def _is_stale(head: bytes) -> bool:
    at = head.find(b"\r\ncache-status:")
    return at >= 0 and b"stale" in head[at : head.find(b"\r\n", at + 2)]


def _excerpt(body: bytes) -> str:
    return body[:200].decode(errors="replace")
