"""The sweep for lines that had no room for all of their own: many more rows, once, when there is room again."""

from __future__ import annotations

from actors.host import WAITING_MAX, Lane
from actors.ports import StoreAway
from actors.sweeper import PERIOD_S, ROWS_MAX, WIDE_ROWS
from tests.support.delivery_rig import ALIVE, DEAD
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_sweeper import rig_of


@in_virtual_time
async def test_a_wide_look_finds_what_is_behind_a_backlog() -> None:
    """In the partitions that are wanted and held, and once."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.webhooks.took_s[DEAD] = 1000.0
        rig.offer(*await rig.batches(40, DEAD))
        await rig.in_partition(3, 5 * ROWS_MAX, DEAD)
        await passing(0.01)
        alive = await rig.in_partition(3, 2, ALIVE)
        await rig.sweeper.run_once()
        assert rig.statuses(*alive) == ["pending"] * 2
        await rig.ownership.resign([7])
        rig.sweeper.look_wide({3, 7})
        calls = rig.store.faults.count("sweep")
        await rig.sweeper.run_once()
        await passing(0.1)
        assert rig.statuses(*alive) == ["delivered"] * 2
        assert rig.store.faults.count("sweep") == calls + 2
        assert rig.store.faults.calls[-1] != ("sweep", [3, 7])
        await rig.sweeper.run_once()
        assert rig.store.faults.count("sweep") == calls + 3
        await rig.deliveries.drain(0.0)


@in_virtual_time
async def test_a_wide_look_comes_soon_and_only_where_something_is_held() -> None:
    """It does not wait for the next period; for nothing that is held here nobody asks the store."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.run()
        await passing(0.1 * PERIOD_S)
        calls = rig.store.faults.count("sweep")
        rig.sweeper.look_wide({3})
        await passing(0.1 * PERIOD_S)
        assert rig.store.faults.count("sweep") == calls + 2
        await rig.ownership.resign([3])
        calls = rig.store.faults.count("sweep")
        rig.sweeper.look_wide({3})
        await passing(0.1 * PERIOD_S)
        assert rig.store.faults.count("sweep") == calls + 1


@in_virtual_time
async def test_a_wide_look_that_failed_is_made_when_the_store_is_back() -> None:
    """Nobody asks for it again."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.sweeper.look_wide({3})
        sweep, wide = rig.store.sweep, 0

        async def broken(*arguments: object) -> object:
            nonlocal wide
            if arguments[2] == WIDE_ROWS:
                wide += 1
                if wide == 1:
                    raise StoreAway
            return await sweep(*arguments)  # type: ignore[arg-type]  # what it was called with

        rig.store.sweep = broken  # type: ignore[method-assign, assignment]  # the store's, for one call
        rig.run()
        await passing(5 * PERIOD_S)
        assert wide == 2


@in_virtual_time
async def test_a_line_that_was_held_gets_all_of_its_own() -> None:
    """More than it has room for, in the order of the store and without waiting for sixteen rows a sweep."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        held = True
        rig.deliveries.lane_of = lambda _name: Lane(held=lambda: held)
        rig.deliveries.on_room = rig.sweeper.look_wide
        readies = await rig.in_partition(3, WAITING_MAX + 200, ALIVE)
        rig.offer(*readies)
        assert rig.webhooks.sent == []
        rig.run()
        held = False
        rig.deliveries.go_on(ALIVE)
        await passing(3.0)
        assert set(rig.statuses(*readies)) == {"delivered"}
        rig.deliveries.go_on("nobody knows this line")


@in_virtual_time
async def test_what_finds_room_is_found_at_once_however_much_it_is() -> None:
    """A thousand that fall due at once in one partition, of which this node knew nothing: not sixteen a sweep."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        many = await rig.in_partition(3, 60 * ROWS_MAX, ALIVE)
        await rig.sweeper.run_once()
        await passing(3.0)
        assert rig.statuses(*many) == ["delivered"] * len(many)
