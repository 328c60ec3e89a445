"""The inventory's database: opened when it is first wanted, tried again while it is away, waited for by nobody then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from actors.core.refusals import CannotStart
from actors.inventory_home import AGAIN_S_MAX, AGAIN_S_MIN, OPEN_S, PROBE_S, InventoryHome, InventoryParts
from actors.inventory_ports import DatabaseAway
from tests.support.doubles import Stage
from tests.support.memory_inventory import MemoryDatabase
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time


class Opening:
    """Opens a database in `takes_s`, unless it fails with `error`."""

    def __init__(self) -> None:
        self.takes_s = 0.0
        self.error: Exception | None = None
        self.times: list[float] = []
        self.database = MemoryDatabase()

    async def __call__(self) -> InventoryParts:
        """Try."""
        self.times.append(asyncio.get_running_loop().time())
        await passing(self.takes_s)
        if self.error is not None:
            raise self.error
        return self.database.parts()


class Rig:
    """A home whose service runs."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.opening = Opening()
        self.home = InventoryHome(self.opening, stage.journal)
        stage.supervisor.service("home", self.home.run)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """A rig on a stage."""
    async with Stage() as stage:
        yield Rig(stage)
        assert not stage.crashes


async def refused(home: InventoryHome) -> float:
    """How long it took to learn that the database is away."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(DatabaseAway):
        await home.parts()
    return loop.time() - began


@in_virtual_time
async def test_nothing_is_opened_until_somebody_wants_it() -> None:
    """A node that never sees an inventory has no session."""
    async with rig() as r:
        await passing(3600)
        assert r.opening.times == []
        assert not r.home.wanted
        assert r.home.opened is None
        r.home.want()
        await passing(1)
        assert r.home.opened is not None


@in_virtual_time
async def test_all_who_come_while_it_is_opened_wait_for_the_one_opening() -> None:
    """And get the same."""
    async with rig() as r:
        r.opening.takes_s = 4.0
        first = asyncio.create_task(r.home.parts())
        await passing(2.0)
        found = await asyncio.gather(first, r.home.parts(), r.home.parts())
        assert len({id(parts) for parts in found}) == 1
        assert len(r.opening.times) == 1
        assert await r.home.parts() is found[0]
        assert r.stage.journal.phrases() == ["inventory is open"]


@pytest.mark.parametrize("error", [DatabaseAway("gone"), CannotStart("no room")])
@in_virtual_time
async def test_once_it_is_known_to_be_away_nobody_waits(error: Exception) -> None:
    """The first learns it with the first failure, all others at once; it is tried again ever less often."""
    async with rig() as r:
        r.opening.takes_s, r.opening.error = 1.0, error
        assert await refused(r.home) == pytest.approx(1.0)
        assert await refused(r.home) == 0.0
        assert r.home.why_away == str(error)
        r.opening.takes_s = 0.0
        await passing(120)
        waits = [later - earlier for earlier, later in zip(r.opening.times[1:], r.opening.times[2:], strict=False)]
        assert waits[0] == pytest.approx(2 * AGAIN_S_MIN)
        assert waits == sorted(waits)
        assert waits[-1] == pytest.approx(AGAIN_S_MAX)
        assert await refused(r.home) == 0.0

        r.opening.error = None
        await passing(AGAIN_S_MAX)

        assert await r.home.parts() is r.home.opened
        assert r.home.why_away == ""
        assert r.stage.journal.phrases() == ["inventory is away", "inventory is open"]


@in_virtual_time
async def test_an_opening_that_takes_too_long_is_not_waited_for() -> None:
    """It goes on, and later callers find it done."""
    async with rig() as r:
        r.opening.takes_s = 2 * OPEN_S
        assert await refused(r.home) == pytest.approx(OPEN_S)
        await passing(OPEN_S)
        assert await r.home.parts() is not None


@pytest.mark.parametrize("frozen", [False, True])
@in_virtual_time
async def test_an_open_database_that_goes_is_known_and_its_return_is_noticed(*, frozen: bool) -> None:
    """By a probe, whoever asks: nobody waits meanwhile, and it is not opened again."""
    async with rig() as r:
        parts = await r.home.parts()
        database = r.opening.database
        database.away, database.frozen = not frozen, frozen
        await passing(PROBE_S + (database.deadline_s if frozen else 0.0) + 0.01)
        for _ in range(30):
            assert await refused(r.home) == 0.0
            await passing(0.1)

        database.away = database.frozen = False
        await passing(PROBE_S + (database.deadline_s if frozen else 0.0) + 0.01)
        assert await r.home.parts() is parts
        assert len(r.opening.times) == 1


@in_virtual_time
async def test_a_probe_that_failed_for_a_moment_is_done_again_at_once() -> None:
    """A process that was stopped finds its deadlines passed when it goes on."""
    async with rig() as r:
        await r.home.parts()
        database = r.opening.database
        database.frozen = True
        await passing(PROBE_S + 0.01)
        database.frozen = False
        await passing(database.deadline_s)
        assert await r.home.parts() is not None


@in_virtual_time
async def test_a_caller_who_gives_up_disturbs_nobody() -> None:
    """The opening is the service's, not the caller's."""
    async with rig() as r:
        r.opening.takes_s = 1.0
        first = asyncio.create_task(r.home.parts())
        await passing(0.5)
        first.cancel()
        assert await r.home.parts() is not None
        assert len(r.opening.times) == 1
