"""Duplicates over time: how long the store remembers a message id, and that an open batch never forgets its own."""

from __future__ import annotations

import pytest

from actors.core.partition import locate
from actors.ports import Entry
from tests.support.store import IDS, LONG_MS, Hand, connected, entry, key_names, store_ms, stored
from tests.support.until import until
from tests.support.valkey import ValkeyServer

SHORT_MS = 80
"""A dedupe window that a test can wait for."""
LONGER_MS = 1000


async def _window(server: ValkeyServer, window_ms: int) -> int:
    return await store_ms(server) // window_ms


async def _windows_pass(server: ValkeyServer, window_ms: int, how_many: int) -> None:
    """Wait until the store's clock has crossed that many borders between windows."""
    ends = await _window(server, window_ms) + how_many

    async def crossed() -> bool:
        return await _window(server, window_ms) >= ends

    await until(crossed, what=f"{how_many} windows")


async def test_an_id_is_remembered_across_the_border_of_two_windows(any_store: ValkeyServer) -> None:
    """A message taken at the end of one window is a duplicate in the next one."""
    async with connected(any_store, window_ms=LONGER_MS) as store:
        hand = Hand(any_store, store)

        async def late_in_the_window() -> bool:
            return 750 <= await store_ms(any_store) % LONGER_MS <= 900

        await until(late_in_the_window, what="the end of a window")
        await hand.frozen("k", "m1")
        await _windows_pass(any_store, LONGER_MS, 1)

        (again,) = await hand.append("k", "m1")

        assert again.duplicate


async def test_an_id_is_forgotten_when_its_batch_and_its_windows_are_over(any_store: ValkeyServer) -> None:
    """Memory is bounded: after two windows the id is new again, and the old ids' keys have gone."""
    async with connected(any_store, window_ms=SHORT_MS) as store:
        hand = Hand(any_store, store)
        await hand.frozen("k", "m1")
        await _windows_pass(any_store, SHORT_MS, 2)

        (again,) = await hand.append("k", "m1")

        assert (again.duplicate, again.size) == (False, 1)
        await _windows_pass(any_store, SHORT_MS, 4)
        assert [name for name in key_names(any_store) if ":i:" in name] == []


def _messages(*waits: tuple[int, int]) -> list[Entry]:
    return [
        entry("k", f"m{number}", wait_ms=wait_ms, max_wait_ms=max_wait_ms)
        for number, (wait_ms, max_wait_ms) in enumerate(waits)
    ]


@pytest.mark.parametrize(
    "messages",
    [
        _messages((LONG_MS, 0), (LONG_MS, 0)),
        _messages((50, LONG_MS), (50, LONG_MS)),
        _messages((LONG_MS, 0), (SHORT_MS // 2, 0)),
        _messages((SHORT_MS // 2, 0), (LONG_MS, LONG_MS)),
        _messages((LONG_MS, 0), (SHORT_MS + 10, 0)),
    ],
    ids=["long window", "long debounce", "short joins long", "short made long", "two long ones, the last less so"],
)
async def test_an_open_batch_that_outlives_the_window_knows_its_own_ids(
    any_store: ValkeyServer, messages: list[Entry]
) -> None:
    """Whichever message made the batch long-lived, none of it is added a second time while it is open."""
    async with connected(any_store, window_ms=SHORT_MS) as store:
        await store.batches.append(messages)
        await _windows_pass(any_store, SHORT_MS, 5)

        again = [stored(await store.batches.append([message]))[0] for message in messages]

        assert [(outcome.duplicate, outcome.size) for outcome in again] == [(True, 2), (True, 2)]
        assert await Hand(any_store, store).open_ids("k") == ["m0", "m1"]


async def test_only_ids_count_in_a_batch_that_outlives_the_window(any_store: ValkeyServer) -> None:
    """A message whose id reads like another's payload or time of receipt is a new one."""
    async with connected(any_store, window_ms=SHORT_MS) as store:
        hand = Hand(any_store, store)
        (first,) = await hand.append("k", "m1", payload=b'{"a":1}')
        await _windows_pass(any_store, SHORT_MS, 2)

        outcomes = await hand.append("k", '{"a":1}', str(first.received_us))

        assert [(outcome.duplicate, outcome.size) for outcome in outcomes] == [(False, 2), (False, 3)]


async def test_ids_of_a_dropped_long_batch_are_remembered_for_the_window_only(any_store: ValkeyServer) -> None:
    """What made the open batch remember goes with it: the next batch of the key starts clean."""
    async with connected(any_store, window_ms=SHORT_MS) as store:
        hand = Hand(any_store, store)
        await hand.append("k", "m1")
        await hand.cancel("k")
        await hand.append("k", "m2")
        await hand.close("k", batch_id=IDS.delivery_id(locate("k")[1]))
        await _windows_pass(any_store, SHORT_MS, 2)

        outcomes = await hand.append("k", "m1", "m2")

        assert [outcome.duplicate for outcome in outcomes] == [False, False]
