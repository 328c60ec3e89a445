"""Lists of the real store: every row once, whatever the page size, and always an end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.adapters.valkey import runner
from actors.core.partition import locate
from actors.ports import Close, ClosedBatch, DeliveryFilter, ListCursor, Status
from tests.support.store import (
    IDS,
    Hand,
    all_deliveries,
    all_open,
    connected,
    entry,
    flat,
    keys_in,
    pages,
)
from tests.support.valkey import ValkeyServer, redis_binary, served, valkey_binary

TIED = 17
"""Rows of one partition with the same score."""


def _spread() -> list[str]:
    """Keys over several partitions, among them the first and the last, most of them in one."""
    return keys_in(0, 2) + keys_in(77, TIED) + keys_in(78, 1) + keys_in(255, 3)


async def _open_all(hand: Hand, keys: list[str]) -> None:
    """Open batches that fall due in the same millisecond."""
    await hand.store.batches.append([entry(key, "m1") for key in keys])


async def _frozen_all(hand: Hand, keys: list[str]) -> list[str]:
    """Deliveries created in the same millisecond, in the order of the keys."""
    await _open_all(hand, keys)
    wishes = [
        Close(
            partition=partition,
            epoch=await hand.epoch(partition),
            kid=kid,
            deadline_ms=None,
            reason="manual",
            batch_id=IDS.delivery_id(partition),
        )
        for kid, partition in map(locate, keys)
    ]
    closed = await hand.store.batches.close(wishes)
    return [batch.delivery_id for batch in closed if isinstance(batch, ClosedBatch)]


@pytest.mark.parametrize("limit", [1, 2, 3, 5, TIED - 1, TIED, TIED + 1, 22, 23, 24, 1000])
async def test_open_batches_are_listed_once_each_whatever_the_page_size(hand: Hand, limit: int) -> None:
    """Also when many fall due in the same millisecond; no page but the last is short."""
    keys = _spread()
    await _open_all(hand, keys)

    found = await pages(lambda cursor: hand.store.batches.list_open(cursor, limit))

    assert sorted(row.key for row in flat(found)) == sorted(keys)
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert 0 < len(found[-1]) <= limit
    partitions = [row.partition for row in flat(found)]
    assert partitions == sorted(partitions)


async def test_a_row_of_the_list_of_open_batches_says_what_is_in_it(hand: Hand) -> None:
    """Without the messages."""
    await hand.append("k", "m1", "m2", payload=b"[1]", wait_ms=5000)

    (row,) = await all_open(hand.store)

    assert (row.key, row.size, row.size_bytes, row.partition, row.messages) == ("k", 2, 6, locate("k")[1], ())
    assert 0 < row.remaining_ms <= 5000


async def test_within_a_partition_the_most_urgent_comes_first(hand: Hand) -> None:
    """Rows of one page follow their deadlines."""
    keys = keys_in(40, 6)
    for number, key in enumerate(keys):
        await hand.append(key, "m1", wait_ms=60_000 - 1000 * number)

    assert [row.key for row in await all_open(hand.store, limit=4)] == keys[::-1]


@pytest.mark.parametrize("limit", [1, 2, 7, TIED, 1000])
async def test_deliveries_are_listed_once_each_through_all_stages(hand: Hand, limit: int) -> None:
    """Undelivered ones first, then dead ones, then done ones."""
    keys = _spread()
    names = await _frozen_all(hand, keys)
    assert len(names) == len(keys)
    ends: list[Status] = ["delivered", "dead", "pending", "retrying", "discarded"]
    expected = dict(zip(names, ends * len(names), strict=False))
    for name, status in expected.items():
        if status == "discarded":
            await hand.discard(name)
        elif status != "pending":
            await hand.ended(name, status)

    listed = await all_deliveries(hand.store, limit=limit)

    assert {row.delivery_id: row.status for row in listed} == expected
    assert len(listed) == len(expected)
    stages = [{"dead": 1, "delivered": 2, "discarded": 2}.get(row.status, 0) for row in listed]
    assert stages == sorted(stages)


@pytest.mark.parametrize("limit", [1, 3, 1000])
@pytest.mark.parametrize("status", ["pending", "delivering", "retrying", "dead", "delivered", "discarded"])
async def test_a_status_narrows_the_list(hand: Hand, status: Status, limit: int) -> None:
    """To exactly the deliveries in that state."""
    keys = keys_in(77, 12) + keys_in(78, 6)
    names = await _frozen_all(hand, keys)
    states: list[Status] = ["pending", "delivering", "retrying", "dead", "delivered", "discarded"]
    expected = dict(zip(names, states * 3, strict=True))
    for name, state in expected.items():
        if state == "discarded":
            await hand.discard(name)
        elif state == "delivering":
            await hand.claimed(name)
        elif state != "pending":
            await hand.ended(name, state)

    listed = await all_deliveries(hand.store, DeliveryFilter(status=status), limit)

    assert sorted(row.delivery_id for row in listed) == sorted(
        name for name, state in expected.items() if state == status
    )


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_a_key_narrows_the_list(hand: Hand, limit: int) -> None:
    """To the deliveries of that key, not of its neighbours in the partition, with a status or without."""
    key, neighbour = keys_in(77, 2)
    names = []
    for number in range(4):
        names.append(await hand.frozen(key, f"m{number}"))
        await hand.frozen(neighbour, f"m{number}")
    await hand.ended(names[0], "delivered")
    await hand.ended(names[1], "dead")

    both = await all_deliveries(hand.store, DeliveryFilter(key=key), limit)
    dead = await all_deliveries(hand.store, DeliveryFilter(key=key, status="dead"), limit)
    nothing = await all_deliveries(hand.store, DeliveryFilter(key="unheard of"), limit)

    assert [row.delivery_id for row in both] == [names[2], names[3], names[1], names[0]]
    assert [row.delivery_id for row in dead] == [names[1]]
    assert nothing == []


@pytest.mark.parametrize("budget", [1, 2, 7, TIED + 3])
async def test_a_page_that_looks_at_too_many_rows_stops_and_goes_on_later(
    hand: Hand, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    """No call looks at more rows than its budget, every call gets further, and nothing is missed or repeated."""
    monkeypatch.setattr(runner, "ROWS_LOOKED_AT_MAX", budget)
    keys = _spread()
    names = await _frozen_all(hand, keys)
    wanted = [name for name, key in zip(names, keys, strict=True) if locate(key)[1] == 255]
    for name in wanted:
        await hand.ended(name, "retrying")
    await _open_all(hand, [f"open {number}" for number in range(20)])

    found = await pages(
        lambda cursor: hand.store.deliveries.list_deliveries(DeliveryFilter(status="retrying"), cursor, 100), 100
    )

    assert [row.delivery_id for row in flat(found)] == wanted
    assert len(found) >= len(names) // (budget * len(hand.server.members))
    assert sorted(row.key for row in await all_open(hand.store)) == sorted(f"open {number}" for number in range(20))
    assert len(await all_deliveries(hand.store)) == len(names)


async def test_what_ends_between_two_pages_disturbs_nobody_else(hand: Hand) -> None:
    """Even when it is the very row at which the list goes on."""
    keys = keys_in(77, 9)
    await _open_all(hand, keys)
    first, cursor = await hand.store.batches.list_open(ListCursor(), 4)
    assert cursor is not None
    await hand.cancel(first[-1].key)
    await hand.cancel(first[0].key)

    rest = flat(await pages(lambda at: hand.store.batches.list_open(at if at != ListCursor() else cursor, 2)))

    assert sorted([*(row.key for row in first), *(row.key for row in rest)]) == sorted(keys)


@pytest.mark.parametrize(
    "cursor",
    [ListCursor(stage=9), ListCursor(partition=999), ListCursor(partition=-1), ListCursor(partition=12)],
    ids=lambda cursor: f"stage {cursor.stage} partition {cursor.partition}",
)
async def test_a_cursor_that_leads_nowhere_ends_the_list(hand: Hand, cursor: ListCursor) -> None:
    """Cursors come from outside: one that was made up finds nothing, and breaks nothing."""
    key = keys_in(11, 1)[0]
    await hand.frozen(key, "m1")

    assert await hand.store.deliveries.list_deliveries(DeliveryFilter(key=key), cursor, 10) == ([], None)


@pytest.mark.parametrize(
    "cursor",
    [
        ListCursor(partition=999),
        ListCursor(partition=-1),
        *(ListCursor(score=text) for text in ("x", "-1", "1e999", "(1")),
    ],
    ids=lambda cursor: f"partition {cursor.partition} score {cursor.score}",
)
async def test_a_made_up_cursor_finds_nothing_open(hand: Hand, cursor: ListCursor) -> None:
    """The same holds for open batches, and for scores that are none."""
    await hand.append(keys_in(255, 1)[0], "m1")

    assert await hand.store.batches.list_open(cursor, 10) == ([], None)


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a locale that sorts text as dictionaries do, upper and lower case side by side."""
    folder = tmp_path_factory.mktemp("locales")
    compiler = shutil.which("localedef")
    if compiler is None:
        pytest.skip("localedef is not installed")
    made = subprocess.run(  # noqa: S603  our own argv, no shell
        [compiler, "-i", "en_US", "-f", "UTF-8", str(folder / "en_US.UTF-8")], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("the sources of the locale en_US are not installed")
    return folder


@pytest.fixture(params=["valkey", "redis"])
def dictionary_order(request: pytest.FixtureRequest, locales: Path, tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server with that locale."""
    binary = valkey_binary() if request.param == "valkey" else redis_binary()
    if binary is None:
        pytest.skip("redis-server is not installed")
    wrapper = tmp_path / "server"
    wrapper.write_text(f'#!/bin/sh\nexport LOCPATH={locales} LC_ALL=en_US.UTF-8\nexec {binary} "$@"\n')
    wrapper.chmod(0o700)
    yield from served(ValkeyServer(wrapper))


async def test_pages_do_not_depend_on_the_servers_locale(dictionary_order: ValkeyServer) -> None:
    """Scripts compare text by the server's locale, sorted sets by bytes: a page must go by bytes as well."""
    assert dictionary_order.command("EVAL", "return 'a' < 'B' and 1 or 0", 0) == 1
    keys = keys_in(77, 40)
    async with connected(dictionary_order) as store:
        await _open_all(Hand(dictionary_order, store), keys)

        for limit in (1, 3, 7):
            assert sorted(row.key for row in await all_open(store, limit)) == sorted(keys)
