"""Idempotency keys: one key and one body give one answer, however often and wherever they are sent.

The first final answer that reaches the store wins and is what everyone gets. A request whose twin is still under way
runs too: the operations are idempotent themselves, because the ids they write under are derived from the key.
Answers that invite a retry (5xx, 408, 425, 429) are never kept. A request without a key never gets here.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Protocol

import msgspec
from msgspec import Struct

from router.edge.errors import BadInput, Conflict, Problem, render
from router.edge.usecase import Reply, RequestHeaders

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
KEY_CHARACTERS_MAX = 255

_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_ESCAPED = re.compile(r'\\(["\\])')
_NOT_FINAL = frozenset((408, 425, 429))
_FAILURES = 500
_DECODER = msgspec.msgpack.Decoder(Reply)
_ENCODER = msgspec.msgpack.Encoder()


class Absent(Struct, frozen=True):
    """No request with this key is known; it is now under way, as `token`."""

    token: bytes


class Mismatch(Struct, frozen=True):
    """The key was used with another body."""


class InProgress(Struct, frozen=True):
    """The same request was begun before, as `token`, and has no answer yet."""

    token: bytes


class StoredAnswer(Struct, frozen=True):
    """The first answer, as `finish` was given it."""

    answer: bytes


class IdempotencyStore(Protocol):
    """Where keys and their first answers are kept, for every node. Raises `StoreAway` when it cannot say."""

    async def begin(
        self, scope_key: str, fingerprint: bytes, ttl_s: float
    ) -> Absent | Mismatch | InProgress | StoredAnswer:
        """Note that a request with this key and body runs, unless one did before. Each first one has a new token."""
        ...

    async def finish(self, scope_key: str, token: bytes, answer: bytes, ttl_s: float) -> StoredAnswer | None:
        """Keep the answer if it is the first; otherwise give back the one that was."""
        ...


class Idempotency:
    """Runs an operation at most once in effect per idempotency key."""

    def __init__(self, store: IdempotencyStore, ttl_s: float) -> None:
        self._store = store
        self._ttl_s = ttl_s

    async def once(
        self, method: str, body: bytes, headers: RequestHeaders, run: Callable[[str | None], Awaitable[Reply]]
    ) -> Reply:
        """Run, or give the first answer again. `run` gets a seed to derive its ids from, `None` without a key.

        Call it after the body was decoded, so that bad input neither costs a trip to the store nor uses up the key.
        """
        if not headers.idempotency_key:
            return await run(None)
        scope_key = scope(method, headers.path, parse_key(headers.idempotency_key))
        fingerprint = blake2b(body, digest_size=16).digest()
        match await self._store.begin(scope_key, fingerprint, self._ttl_s):
            case Mismatch():
                raise Conflict(f"the {HEADER} was used with another body")
            case StoredAnswer(answer):
                return _replayed(answer)
            case Absent(token) | InProgress(token):
                return await self._first(scope_key, token, headers, run)

    async def _first(
        self,
        scope_key: str,
        token: bytes,
        headers: RequestHeaders,
        run: Callable[[str | None], Awaitable[Reply]],
    ) -> Reply:
        try:
            reply = await run(scope_key + token.hex())
        except Problem as problem:
            if not _final(problem.status):
                raise
            reply = render(problem, path=headers.path, request_id=headers.request_id)
        if not _final(reply.status):
            return reply
        earlier = await self._store.finish(scope_key, token, _ENCODER.encode(reply), self._ttl_s)
        return reply if earlier is None else _replayed(earlier.answer)


def parse_key(header: str) -> str:
    """The key of an `Idempotency-Key` header: a structured-field string (RFC 8941) or the bare characters."""
    key = header
    if header.startswith('"'):
        quoted = _QUOTED.fullmatch(header)
        if quoted is None:
            raise BadInput(HEADER, "is not a well-formed quoted string")
        key = _ESCAPED.sub(r"\1", quoted.group(1))
    if not 1 <= len(key) <= KEY_CHARACTERS_MAX or not (key.isascii() and key.isprintable()):
        raise BadInput(HEADER, f"must be 1 to {KEY_CHARACTERS_MAX} printable ASCII characters")
    return key


def scope(method: str, path: str, key: str) -> str:
    """The name a key is kept under: the same key on another route is another key. 32 characters, URL-safe.

    A slash at the end makes no other route."""
    digest = blake2b(digest_size=24)
    for part in (method, path.rstrip("/"), key):
        encoded = part.encode("utf-8", "surrogateescape")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return urlsafe_b64encode(digest.digest()).decode()


def derived_id(prefix: str, scope_key: str) -> str:
    """An id (`msg_…`) that a repeat of the same request arrives at again."""
    digest = blake2b(scope_key.encode(), digest_size=15, person=prefix.encode()[:16]).digest()
    return f"{prefix}_{urlsafe_b64encode(digest).decode()}"


def _final(status: int) -> bool:
    return status < _FAILURES and status not in _NOT_FINAL


def _replayed(answer: bytes) -> Reply:
    reply = _DECODER.decode(answer)
    return Reply(reply.status, reply.body, {**(reply.headers or {}), REPLAYED: "true"}, reply.head)
