"""Idempotency keys: which requests run, what is kept, and what a second sender gets."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ports import StoreAway
from router.edge.errors import BadInput, Conflict, NotFound, TryLater
from router.edge.idempotency import Idempotency, derived_id, parse_key, scope
from router.edge.usecase import Reply, RequestHeaders
from router.idempotency_records import IdempotencyRecords


class Memory:
    """A store in memory with the real one's rules, through the real mapping: the first record and answer stay."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.calls = 0

    async def begin(self, scope: str, fingerprint: bytes, ttl_ms: int) -> bytes | None:
        """FirstWins."""
        self.calls += 1
        found = self.records.get(scope)
        self.records.setdefault(scope, fingerprint)
        return found

    async def finish(self, scope: str, fingerprint: bytes, answer: bytes, ttl_ms: int) -> bytes:
        """FirstWins."""
        self.calls += 1
        record = self.records.get(scope, fingerprint)
        if len(record) <= len(fingerprint):
            record = fingerprint + answer
        self.records[scope] = record
        return record


def idempotency_on(memory: Memory) -> Idempotency:
    """Idempotency keys kept in memory for ten minutes."""
    return Idempotency(IdempotencyRecords(memory, os.urandom), 600)


def headers(key: str = "", path: str = "/api/v1/message") -> RequestHeaders:
    """The headers of a request."""
    return RequestHeaders(path=path, request_id="req_1", idempotency_key=key)


def answering(*replies: Reply | Exception) -> tuple[Callable[[str | None], Awaitable[Reply]], list[str | None]]:
    """An operation that gives these answers in turn, and the scope keys it was run with."""
    ran: list[str | None] = []

    async def run(scope_key: str | None) -> Reply:
        ran.append(scope_key)
        reply = replies[len(ran) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply

    return run, ran


async def test_without_a_key_the_store_is_never_asked() -> None:
    """The header costs nothing to those who do not send it."""
    store = Memory()
    run, ran = answering(Reply(200, b"1"), Reply(200, b"2"))
    idempotency = idempotency_on(store)
    replies = [await idempotency.once("POST", b"{}", headers(), run) for _ in range(2)]
    assert [reply.body for reply in replies] == [b"1", b"2"]
    assert (store.calls, ran) == (0, [None, None])


async def test_the_same_request_again_gets_the_first_answer() -> None:
    """Byte for byte, with its headers, marked as replayed, without running again."""
    run, ran = answering(Reply(201, b'{"id":1}', {"Location": "/x"}))
    idempotency = idempotency_on(Memory())
    first = await idempotency.once("POST", b"{}", headers("k"), run)
    second = await idempotency.once("POST", b"{}", headers('"k"'), run)
    assert first == Reply(201, b'{"id":1}', {"Location": "/x"})
    assert second == Reply(201, b'{"id":1}', {"Location": "/x", "Idempotency-Replayed": "true"})
    assert len(ran) == 1


async def test_another_body_under_the_key_is_a_conflict() -> None:
    """409, and nothing runs."""
    run, ran = answering(Reply(200, b"1"))
    idempotency = idempotency_on(Memory())
    await idempotency.once("POST", b'{"a":1}', headers("k"), run)
    with pytest.raises(Conflict):
        await idempotency.once("POST", b'{"a":2}', headers("k"), run)
    assert len(ran) == 1


async def test_the_key_belongs_to_its_route() -> None:
    """The same key elsewhere is another key."""
    run, ran = answering(Reply(200, b"1"), Reply(200, b"2"))
    idempotency = idempotency_on(Memory())
    await idempotency.once("POST", b"{}", headers("k"), run)
    other = await idempotency.once("POST", b"{}", headers("k", "/messages"), run)
    assert other == Reply(200, b"2")
    assert ran[0] != ran[1]


@pytest.mark.parametrize("passing", [Reply(503, b""), Reply(429, b""), TryLater("away"), StoreAway()])
async def test_a_passing_failure_is_not_kept(passing: Reply | Exception) -> None:
    """The resent request runs again, under the same derived ids."""
    run, ran = answering(passing, Reply(200, b"1"))
    idempotency = idempotency_on(Memory())
    if isinstance(passing, Exception):
        with pytest.raises(type(passing)):
            await idempotency.once("POST", b"{}", headers("k"), run)
    else:
        assert await idempotency.once("POST", b"{}", headers("k"), run) == passing
    assert await idempotency.once("POST", b"{}", headers("k"), run) == Reply(200, b"1")
    assert ran[0] == ran[1] is not None


async def test_a_final_problem_is_kept() -> None:
    """A 404 stays the answer to this key."""
    run, ran = answering(NotFound("no such thing"))
    idempotency = idempotency_on(Memory())
    first = await idempotency.once("POST", b"{}", headers("k"), run)
    second = await idempotency.once("POST", b"{}", headers("k"), run)
    assert (first.status, second.status, second.body, len(ran)) == (404, 404, first.body, 1)


async def test_a_key_that_was_forgotten_is_another_request() -> None:
    """Its ids are derived anew, or what it asks for would be taken for what it had asked for before."""
    memory = Memory()
    run, ran = answering(Reply(200, b"1"), Reply(200, b"2"))
    await idempotency_on(memory).once("POST", b"{}", headers("k"), run)
    memory.records.clear()
    assert await idempotency_on(memory).once("POST", b"{}", headers("k"), run) == Reply(200, b"2")
    assert ran[0] != ran[1]


async def test_of_two_at_once_both_run_and_the_first_answer_wins() -> None:
    """The second finds no answer yet, runs under the same ids, and gives what the first stored meanwhile."""
    idempotency = idempotency_on(Memory())
    inner, ran = answering(Reply(200, b"inner"))

    async def outer(scope_key: str | None) -> Reply:
        twin = await idempotency.once("POST", b"{}", headers("k"), inner)
        assert twin == Reply(200, b"inner")
        assert ran == [scope_key]
        return Reply(200, b"outer")

    reply = await idempotency.once("POST", b"{}", headers("k"), outer)
    assert reply == Reply(200, b"inner", {"Idempotency-Replayed": "true"})


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("k", "k"),
        ('"k"', "k"),
        ('"a\\"b\\\\c"', 'a"b\\c'),
        ('a"b', 'a"b'),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ("x" * 255, "x" * 255),
        ('" "', " "),
    ],
)
def test_a_key_is_bare_or_a_quoted_string(header: str, key: str) -> None:
    """Both forms of one key are one key."""
    assert parse_key(header) == key


@pytest.mark.parametrize("header", ['""', '"', '"a', '"a"b', '"a";x=1', '"a\\x"', "ñ", "a\tb", "a\x7f", "x" * 256])
def test_other_keys_are_refused(header: str) -> None:
    """400 naming the header."""
    with pytest.raises(BadInput) as raised:
        parse_key(header)
    assert raised.value.pointer == "Idempotency-Key"


@given(st.lists(st.text(), min_size=3, max_size=3), st.lists(st.text(), min_size=3, max_size=3))
def test_scopes_never_run_into_each_other(one: list[str], other: list[str]) -> None:
    """Moving a character from one part to the next makes another scope."""
    assert (scope(*one) == scope(*other)) == (one == other)


def test_derived_ids_are_stable_and_apart() -> None:
    """One per prefix and scope, the same on every node."""
    made = derived_id("msg", scope("POST", "/", "k"))
    assert made == derived_id("msg", scope("POST", "/", "k"))
    assert made.startswith("msg_")
    assert len({made, derived_id("tsk", scope("POST", "/", "k")), derived_id("msg", scope("POST", "/", "l"))}) == 3
