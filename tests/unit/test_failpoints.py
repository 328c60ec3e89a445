"""Failpoints: the ports of a test build pass everything through and act at the named step only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import NamedTuple

import pytest

from actors.ports import Claim, Claimed, ClosedBatch, NothingOpen, Settle
from tests.support.failpoint_node import FailpointReached, Failpoints, parse, wrap_egress, wrap_store


class Took(NamedTuple):
    """As much of the answer to an append as matters here."""

    closed: ClosedBatch | None


CLAIMED = Claimed(
    delivery_id="d", key="k", attempt=1, failures=0, reason="size", policy=b"", trace="", created_ms=0, messages=()
)
CLOSED = ClosedBatch("d", 1, "host", "size", True)
OPEN = Took(closed=None)
FULL = Took(closed=CLOSED)
NOTHING = NothingOpen()
CLAIM_TAKEN = Claim(partition=0, epoch=1, delivery_id="d")
CLAIM_LOST = Claim(partition=0, epoch=1, delivery_id="gone")
SETTLE = Settle(partition=0, epoch=1, delivery_id="d", attempt=1, status="delivered", log=b"{}")


class Store:
    """Answers what it is asked, one answer per request: as a coroutine, a future or a plain value."""

    async def append(self, entries: list[Took], *, times: int = 1) -> list[Took]:
        return entries * times

    def work(self, requests: list[object]) -> Awaitable[list[object]]:
        future: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()
        future.set_result([CLAIMED if request == CLAIM_TAKEN else NOTHING for request in requests])
        return future

    def cancel(self, dropped: list[object]) -> list[object]:
        return dropped

    async def close(self, closes: list[object]) -> list[object]:
        return closes

    def partitions(self) -> str:
        return "all"


class Egress:
    """Counts what was sent."""

    def __init__(self) -> None:
        self.sent = 0

    async def send(self, request: str) -> str:
        self.sent += 1
        return request


def points(text: str) -> Failpoints:
    """Armed failpoints."""
    return Failpoints(parse(text))


async def test_an_unarmed_port_is_the_port() -> None:
    """Arguments and answers pass through, whatever kind of awaitable a method returns; other methods are untouched."""
    store = wrap_store(Store(), points(""))

    assert await store.append([OPEN], times=2) == [OPEN, OPEN]
    assert await store.work([CLAIM_TAKEN, SETTLE]) == [CLAIMED, NOTHING]
    assert store.cancel([NOTHING]) == [NOTHING]
    assert store.partitions() == "all"


@pytest.mark.parametrize(
    ("step", "call", "answer"),
    [
        ("before_append", "append", OPEN),
        ("after_append", "append", OPEN),
        ("after_close", "append", FULL),
        ("after_close", "close", CLOSED),
        ("before_claim", "work", CLAIM_LOST),
        ("after_claim", "work", CLAIM_TAKEN),
        ("after_settle", "work", SETTLE),
    ],
)
async def test_a_step_of_the_store_fails_where_it_is_armed(step: str, call: str, answer: object) -> None:
    """`raise` comes out of the wrapped method of that step, also when the answer in question is one of many."""
    store = wrap_store(Store(), points(f"{step}:raise"))

    with pytest.raises(FailpointReached):
        await getattr(store, call)([OPEN, answer] if call == "append" else [NOTHING, answer])


@pytest.mark.parametrize(
    ("step", "call", "answer"),
    [
        ("after_close", "append", OPEN),
        ("after_close", "close", NOTHING),
        ("after_claim", "work", CLAIM_LOST),
        ("after_settle", "work", CLAIM_TAKEN),
    ],
)
async def test_what_did_not_happen_is_no_hit(step: str, call: str, answer: object) -> None:
    """A batch that stayed open was not closed, and a claim that got nothing took nothing."""
    store = wrap_store(Store(), points(f"{step}:raise"))

    assert len(await getattr(store, call)([answer])) == 1


async def test_only_the_nth_hit_counts() -> None:
    """`@2` lets the first and the third through."""
    store = wrap_store(Store(), points("before_append:raise@2"))

    assert await store.append([OPEN]) == [OPEN]
    with pytest.raises(FailpointReached):
        await store.append([OPEN])
    assert await store.append([OPEN]) == [OPEN]


async def test_what_is_armed_later_replaces_what_was() -> None:
    """A node that runs can be given its next failpoint."""
    failpoints = points("before_append:raise")
    store = wrap_store(Store(), failpoints)

    failpoints.arm(parse("after_claim:raise"))

    assert await store.append([OPEN]) == [OPEN]
    with pytest.raises(FailpointReached):
        await store.work([CLAIM_TAKEN])


@pytest.mark.parametrize("step", ["mid_post", "after_post_before_settle"])
async def test_a_step_of_the_post_comes_after_the_request_went_out(step: str) -> None:
    """The webhook has the request when the failpoint acts."""
    egress = Egress()

    with pytest.raises(FailpointReached):
        await wrap_egress(egress, points(f"{step}:raise")).send("r")

    assert egress.sent == 1


@pytest.mark.parametrize("text", ["after_lunch:kill", "after_claim:explode", "after_claim", "after_claim:stop", "x"])
def test_a_typo_is_refused(text: str) -> None:
    """A failpoint that would never fire must not let a test pass."""
    with pytest.raises(ValueError, match="not a failpoint"):
        parse(text)
