"""The connection that all callers share: answers find their callers, and trouble is told soon and once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.adapters.valkey.store import ValkeyStore
from actors.adapters.valkey.wire import StoreRefused
from actors.core.partition import locate
from actors.ports import Claim, Settle, StoreAway
from tests.support.proxy import Proxy
from tests.support.store import IDS, LOG, Hand, connected, entry, flat, made, running, stored, when_back
from tests.support.until import until
from tests.support.valkey import ValkeyServer

CAUGHT_S = 1.2
"""Within this time a caller that a sudden hang catches must have its answer."""
AT_ONCE_S = 0.3


@pytest.fixture
async def hand(any_store: ValkeyServer) -> AsyncIterator[Hand]:
    """A hand on one server: a lane knows of no more."""
    async with connected(any_store) as store:
        yield Hand(any_store, store)


async def _away(store: ValkeyStore) -> str:
    """The reason that a caller is given, at once."""
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreAway) as caught:
        await store.hot.call("PING")
    assert asyncio.get_running_loop().time() - began < AT_ONCE_S
    return str(caught.value)


async def test_commands_of_one_tick_leave_in_one_write(valkey: ValkeyServer, tmp_path: Path) -> None:
    """However many callers there are; each gets its own answer."""
    async with Proxy(valkey, tmp_path / "p") as proxy:
        store = made(proxy.url)
        async with running(store):
            await until(lambda: store.connected, what="the store's lanes")
            proxy.heard.clear()

            replies = await asyncio.gather(*(store.hot.call("ECHO", number) for number in range(300)))

            assert replies == [str(number).encode() for number in range(300)]
            assert len(proxy.heard) == 1


async def test_callers_that_go_away_don_t_shift_the_answers_of_others(hand: Hand) -> None:
    """Cancelled before or after their command has left, over many ticks."""
    waves = []
    for wave in range(30):
        calls = [hand.store.hot.call("ECHO", f"{wave}-{number}") for number in range(20)]
        for call in calls[wave % 3 :: 3]:
            call.cancel()
        waves.append(calls)
        await asyncio.sleep(0)
        for call in calls[wave % 5 :: 5]:
            call.cancel()

    for wave, calls in enumerate(waves):
        for number, call in enumerate(calls):
            if not call.cancelled():
                assert await call == f"{wave}-{number}".encode()
    assert sum(call.cancelled() for calls in waves for call in calls) > 200


async def test_a_cancelled_caller_does_not_take_its_write_along(hand: Hand) -> None:
    """What has left is done."""
    append = asyncio.create_task(hand.append("k", "m1"))
    await asyncio.sleep(0)
    append.cancel()
    await hand.append("k", "m2")

    assert await hand.open_ids("k") == ["m1", "m2"]


async def test_large_answers_and_small_ones_come_whole(hand: Hand) -> None:
    """A reply that needs many packets does not disturb those behind it."""
    payload = bytes(range(256)) * 4096
    await asyncio.gather(*(hand.append("k", f"m{number}", payload=payload, max_bytes=2**30) for number in range(8)))

    peeked, echoed = await asyncio.gather(hand.store.batches.peek("k"), hand.store.cold.call("ECHO", "after"))

    assert peeked is not None
    assert [text == payload for _, _, text in peeked.messages] == [True] * 8
    assert echoed == b"after"


async def test_a_refused_command_is_its_callers_alone(hand: Hand) -> None:
    """An error that waiting does not mend reaches the one who caused it; nobody else notices."""
    hand.server.command("SET", f"buzon:{{{locate('k')[1]:02x}}}:open", "foreign hands")

    broken, fine = await asyncio.gather(hand.append("k", "m1"), hand.append("other", "m1"), return_exceptions=True)

    assert isinstance(broken, StoreRefused)
    assert "WRONGTYPE" in str(broken)
    assert not isinstance(fine, BaseException)
    assert hand.store.connected


async def test_callers_caught_by_a_hang_are_told_in_time_and_later_ones_at_once(own_store: ValkeyServer) -> None:
    """And after the thaw everything is as before: no answer of a frozen question reaches anybody."""
    async with connected(own_store) as store:
        loop = asyncio.get_running_loop()
        own_store.freeze()
        began = loop.time()
        caught = [store.hot.call("ECHO", f"frozen {number}") for number in range(20)]
        answers = await asyncio.gather(*caught, store.cold.call("ECHO", "frozen"), return_exceptions=True)

        assert [type(answer) for answer in answers] == [StoreAway] * 21
        assert loop.time() - began < CAUGHT_S
        for _ in range(5):
            await _away(store)
        own_store.thaw()
        await until(lambda: store.connected, what="the store after its thaw")
        fresh = await asyncio.gather(*(store.hot.call("ECHO", f"fresh {number}") for number in range(20)))
        assert fresh == [f"fresh {number}".encode() for number in range(20)]


async def test_a_caller_that_comes_just_before_the_hang_is_noticed_waits_no_longer(own_valkey: ValkeyServer) -> None:
    """The oldest caller's deadline is everybody's: nobody waits a second of their own."""
    async with connected(own_valkey) as store:
        loop = asyncio.get_running_loop()
        own_valkey.freeze()
        first = store.hot.call("ECHO", "1")
        late: list[float] = []

        async def caller() -> None:
            began = loop.time()
            with pytest.raises(StoreAway):
                await store.hot.call("ECHO", "2")
            late.append(loop.time() - began)

        callers: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as group:
            loop.call_later(0.8, lambda: callers.append(group.create_task(caller())))
            with pytest.raises(StoreAway):
                await first

        assert len(late) == len(callers) == 1
        assert late[0] < 0.6


async def test_a_hang_with_megabytes_under_way_is_told_in_time(own_valkey: ValkeyServer) -> None:
    """Also when the socket takes no more."""
    async with connected(own_valkey) as store:
        loop = asyncio.get_running_loop()
        own_valkey.freeze()
        began = loop.time()
        entries = [entry("k", f"m{number}", b"x" * 1_000_000, max_bytes=2**30) for number in range(16)]

        answers = await asyncio.gather(*(store.batches.append([one]) for one in entries), return_exceptions=True)

        assert [type(answer) for answer in answers] == [StoreAway] * 16
        assert loop.time() - began < CAUGHT_S
        own_valkey.thaw()
        await until(lambda: store.connected, what="the store after its thaw")
        await store.batches.append(entries)
        batch = await store.batches.peek("k")
        assert batch is not None
        assert batch.size == 16


async def test_work_that_is_caught_by_a_hang_is_away_as_a_whole(own_valkey: ValkeyServer) -> None:
    """Claims and outcomes that left together: neither is answered, nothing is left behind that nobody awaits."""
    partition = locate("k")[1]
    name = IDS.delivery_id(partition)
    claim = Claim(partition=partition, epoch=1, delivery_id=name)
    outcome = Settle(partition=partition, epoch=1, delivery_id=name, attempt=1, status="dead", log=LOG)
    async with connected(own_valkey) as store:
        own_valkey.freeze()

        for _ in range(2):
            with pytest.raises(StoreAway):
                await store.deliveries.work([claim, outcome])
    gc.collect()  # a coroutine that nobody awaits complains when it goes


async def test_who_asks_again_at_once_is_told_at_once(own_store: ValkeyServer) -> None:
    """In the very tick in which a connection ends nobody is left waiting on it."""
    async with connected(own_store) as store:
        own_store.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreAway):
            await store.hot.call("SET", "x", 1)
        for _ in range(3):
            await _away(store)

        assert own_store.command("REPLICAOF", "NO", "ONE") == "OK"
        await until(store.hot.up.is_set, what="a master again")
        own_store.freeze()
        with pytest.raises(StoreAway):
            await store.hot.call("PING")
        await _away(store)


async def test_while_the_store_is_down_callers_are_told_at_once_why(own_store: ValkeyServer) -> None:
    """Before it was ever reached, and after it has gone; as soon as it is there, all is well."""
    await asyncio.to_thread(own_store.stop)
    store = made(own_store.unix_url)
    async with running(store):
        await until(lambda: "not reachable" not in store.hot.why_down, what="a first attempt")
        assert str(own_store.socket_path) in await _away(store)
        await asyncio.to_thread(own_store.start)
        await until(lambda: store.connected, what="the store")

        own_store.kill9()
        await until(lambda: not store.connected, what="the end of the lanes")

        await _away(store)


async def test_who_waits_when_the_connection_breaks_is_told(own_store: ValkeyServer) -> None:
    """The outcome is unknown; the lanes come back by themselves and the server is still the same."""
    changes: list[int] = []
    async with connected(
        own_store, prepare=lambda store: setattr(store, "on_changed", lambda: changes.append(1))
    ) as store:
        blocked = store.hot.call("BLPOP", "nothing", 0.9)
        await store.cold.call("PING")
        own_store.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        with pytest.raises(StoreAway):
            await blocked
        assert await when_back(lambda: store.hot.call("ECHO", "back")) == b"back"
        assert changes == []


async def test_who_waits_when_the_lane_is_stopped_is_told(own_store: ValkeyServer) -> None:
    """Nobody is left hanging by an orderly end."""
    async with connected(own_store) as store:
        blocked = store.hot.call("BLPOP", "nothing", 0.9)
        await store.cold.call("PING")

    with pytest.raises(StoreAway):
        await blocked
    await _away(store)


async def test_no_command_is_sent_twice(valkey: ValkeyServer, tmp_path: Path) -> None:
    """The store did it, its answer got lost, the connection breaks: the caller is told and nothing is repeated."""
    async with Proxy(valkey, tmp_path / "p") as proxy:
        store = made(proxy.url)
        async with running(store):
            await until(lambda: store.connected, what="the store's lanes")
            proxy.swallowing = True
            lost = [store.hot.call("INCR", "counted"), store.hot.call("INCR", "counted")]
            append = asyncio.ensure_future(store.batches.append([entry("k", "m1")]))
            await until(lambda: valkey.command("EXISTS", "counted"), what="the command's effect")
            proxy.cut()
            proxy.swallowing = False

            answers = await asyncio.gather(*lost, append, return_exceptions=True)

            assert [type(answer) for answer in answers] == [StoreAway] * 3
            await when_back(lambda: store.hot.call("PING"))
            assert valkey.command("GET", "counted") == "2"
            sent = b"".join(proxy.heard)
            assert sent.count(b"\r\nINCR\r\n") == 2
            assert sent.count(b"\r\nEVALSHA\r\n") == 1


async def test_scripts_the_server_forgot_are_brought_back(hand: Hand) -> None:
    """Every part of the store goes on working, and each call is done once."""
    for number in range(20):
        hand.server.command("SCRIPT", "FLUSH", "SYNC")
        await hand.append("k", f"m{number}")

    assert await hand.open_ids("k") == [f"m{number}" for number in range(20)]


async def test_a_server_that_forgets_its_scripts_all_the_time_is_no_error(hand: Hand) -> None:
    """Not even one that forgets between a script's coming back and its call."""
    done = asyncio.Event()

    async def forget() -> None:
        while not done.is_set():
            await asyncio.gather(*(hand.store.cold.call("SCRIPT", "FLUSH", "ASYNC") for _ in range(4)))

    forgetting = asyncio.create_task(forget())
    for number in range(200):
        await hand.append("k", f"m{number}")
    done.set()
    await forgetting

    assert await hand.open_ids("k") == [f"m{number}" for number in range(200)]


async def test_calls_under_way_when_scripts_are_forgotten_are_done_once_each(hand: Hand) -> None:
    """Many at a time, on their way one behind the other."""
    for round_ in range(10):
        hand.server.command("SCRIPT", "FLUSH", "SYNC")
        names = [f"m{number}" for number in range(30)]
        appends = []
        for name in names:
            appends.append(asyncio.create_task(hand.append(f"k{round_}", name)))
            await asyncio.sleep(0)

        answers = flat(await asyncio.gather(*appends))

        assert sorted(outcome.size for outcome in answers) == list(range(1, 31))
        assert sorted(await hand.open_ids(f"k{round_}")) == sorted(names)


async def test_a_slow_network_is_no_reason_to_stay_away(valkey: ValkeyServer, tmp_path: Path) -> None:
    """Three tenths of a second there and back: the store is reached, used in order, and reached again after a cut."""
    async with Proxy(valkey, tmp_path / "p") as proxy:
        proxy.delay_s = 0.15
        store = made(proxy.url)
        async with running(store):
            for turn in range(2):
                await until(lambda: store.connected, 8, what="the store's lanes")
                appends = []
                for number in range(20):
                    appends.append(asyncio.ensure_future(store.batches.append([entry("k", f"{turn}-{number:02}")])))
                    await asyncio.sleep(0)
                assert [outcome.size for (outcome,) in map(stored, await asyncio.gather(*appends))] == [
                    20 * turn + number + 1 for number in range(20)
                ]
                proxy.cut()
                await until(lambda: not store.hot.up.is_set(), what="the cut")

    async with connected(valkey) as store:
        batch = await store.batches.peek("k")
        assert batch is not None
        assert [name for name, _, _ in batch.messages] == [f"{turn}-{n:02}" for turn in range(2) for n in range(20)]
