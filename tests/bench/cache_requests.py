"""The cache's requests: prepared bytes for each kind, and whether an answer is the one that was asked for.

A value belongs to the number of its key, so every answer can be checked by itself. 1,000 keys; values of 200 bytes,
JSON objects; batches of 100 keys out of 10,000. A sample of the answers is checked, after the window.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

KEYS = 1000
BATCH = 100
BATCH_KEYS = 10_000
"""Keys of the batches: so many that batches under way at the same time have none in common."""
VALUE_BYTES = 200
READ_KEY = "bench:read:%06d"

CacheKind: TypeAlias = Literal[
    "get", "get_v0", "put", "post_v0", "batch_get", "webdis_get", "webdis_set", "webdis_mget"
]
CREATED: frozenset[CacheKind] = frozenset({"post_v0"})
BATCHES: frozenset[CacheKind] = frozenset({"batch_get", "webdis_mget"})
WRITTEN: Mapping[CacheKind, str] = {
    "put": "bench:put1:%06d",
    "post_v0": "bench:post:%06d",
    "webdis_set": "bench:wset:%06d",
}
"""Where the kinds that write put their values. Names of one length."""


class CacheSpec(Struct, frozen=True, kw_only=True, tag="cache"):
    """Requests of one kind. `constant`: a server that answers the same to all, so that values can't be checked."""

    kind: CacheKind
    constant: bool = False


class Item(Struct, frozen=True):
    """A value and when it ends, as far as it matters here."""

    value: Raw = Raw()


class Items(Struct, frozen=True):
    """The answer to a batch get."""

    items: dict[str, Item]
    count: int


class Written(Struct, frozen=True):
    """The answer to a write of either API."""

    key: str


def value_of(number: int, version: int = 0) -> bytes:
    """The JSON that belongs under key `number`; always of the same length."""
    text = f'{{"sku":"item-{number:06d}","version":"{version:010d}","stock":true,"tags":["uno","dos"],"text":"'
    return f"{text:x<{VALUE_BYTES - 2}}".encode() + b'"}'


def sample_answer() -> bytes:
    """What a GET of the v1 API answers, in length: for the handler that does nothing."""
    head = f'{{"key":"{READ_KEY % 0}","value":'
    return head.encode() + value_of(0) + b',"expires_at":"2026-01-01T00:00:00.123Z","remaining_ttl":"59m59.123s"}'


def sample_write_answer() -> bytes:
    """What a write answers, in length."""
    return json.dumps(
        {"message": "Valor guardado en cache", "key": WRITTEN["post_v0"] % 0, "ttl": 3600}, separators=(",", ":")
    ).encode()


def batch_keys(number: int) -> Sequence[int]:
    """The keys of batch request `number`: every batch spreads over all of them."""
    batches = BATCH_KEYS // BATCH
    return range(number % batches, BATCH_KEYS, batches)


def builder(spec: CacheSpec, port: int) -> Callable[[int], bytes]:
    """A function from a request's number to its bytes. Reads are looked up; writes carry the number as a version."""
    prepared = [_http(*_SHAPES[spec.kind](number), port) for number in range(KEYS)]
    if spec.kind not in WRITTEN:
        return lambda number: prepared[number % KEYS]
    version = b'"version":"%010d"'
    halves = [request.split(version % 0) for request in prepared]

    def build(number: int) -> bytes:
        before, after = halves[number % KEYS]
        return before + version % number + after

    return build


def complaint(spec: CacheSpec, number: int, answer: bytes) -> str:
    """What is wrong with the answer to request `number`; "" when it is right."""
    body = answer.partition(b"\r\n\r\n")[2]
    try:
        right = spec.constant or _CHECKS[spec.kind](number, body)
    except msgspec.MsgspecError as error:
        return f"{error}: {body[:200]!r}"
    return "" if right else f"not the answer to request {number}: {body[:300]!r}"


def is_hit(answer: bytes) -> bool:
    """Whether the node says that it had this near, and fresh."""
    return b"Cache-Status: buzon; hit" in answer and b"; stale\r\n" not in answer


def _batch_body(number: int) -> bytes:
    return json.dumps({"keys": [READ_KEY % key for key in batch_keys(number)]}, separators=(",", ":")).encode()


_SHAPES: Mapping[CacheKind, Callable[[int], tuple[str, str, bytes]]] = {
    "get": lambda n: ("GET", f"/api/v1/cache/{READ_KEY % n}", b""),
    "get_v0": lambda n: ("GET", f"/api/cache/{READ_KEY % n}", b""),
    "put": lambda n: ("PUT", f"/api/v1/cache/{WRITTEN['put'] % n}", b'{"value":%b}' % value_of(n)),
    "post_v0": lambda n: (
        "POST",
        "/api/cache/",
        b'{"key":"%b","value":%b}' % ((WRITTEN["post_v0"] % n).encode(), value_of(n)),
    ),
    "batch_get": lambda n: ("POST", "/api/v1/cache/batch/get", _batch_body(n)),
    "webdis_get": lambda n: ("GET", f"/GET/{READ_KEY % n}", b""),
    "webdis_set": lambda n: ("PUT", f"/SET/{WRITTEN['webdis_set'] % n}", value_of(n)),
    "webdis_mget": lambda n: ("GET", "/MGET/" + "/".join(READ_KEY % key for key in batch_keys(n)), b""),
}


def _http(method: str, path: str, body: bytes, port: int) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


_decode_item = msgspec.json.Decoder(Item).decode
_decode_items = msgspec.json.Decoder(Items).decode
_decode_written = msgspec.json.Decoder(Written).decode
_decode_webdis = msgspec.json.Decoder(dict[str, str]).decode
_decode_webdis_set = msgspec.json.Decoder(dict[str, tuple[bool, str]]).decode
_decode_webdis_mget = msgspec.json.Decoder(dict[str, list[str]]).decode


def _is_item(number: int, body: bytes) -> bool:
    return bytes(_decode_item(body).value) == value_of(number % KEYS)


def _is_batch(number: int, body: bytes) -> bool:
    answer = _decode_items(body)
    expected = {READ_KEY % key: value_of(key) for key in batch_keys(number)}
    return answer.count == BATCH and {key: bytes(item.value) for key, item in answer.items.items()} == expected


def _is_written(name: str, number: int, body: bytes) -> bool:
    return _decode_written(body).key == name % (number % KEYS)


def _is_webdis_mget(number: int, body: bytes) -> bool:
    return _decode_webdis_mget(body) == {"MGET": [value_of(key).decode() for key in batch_keys(number)]}


_CHECKS: Mapping[CacheKind, Callable[[int, bytes], bool]] = {
    "get": _is_item,
    "get_v0": _is_item,
    "put": partial(_is_written, WRITTEN["put"]),
    "post_v0": partial(_is_written, WRITTEN["post_v0"]),
    "batch_get": _is_batch,
    "webdis_get": lambda number, body: _decode_webdis(body) == {"GET": value_of(number % KEYS).decode()},
    "webdis_set": lambda _number, body: _decode_webdis_set(body) == {"SET": (True, "OK")},
    "webdis_mget": _is_webdis_mget,
}
