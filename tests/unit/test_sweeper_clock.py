"""What a sweeper does when the census finds that the store's clock was turned back."""

from __future__ import annotations

from msgspec.structs import replace

from actors.ports import Census
from actors.sweeper import CENSUS_EVERY, PERIOD_S
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_sweeper import Rig, rig_of

HOUR_MS = 3_600_000
HELD, LOST = 7, 8


def turned(rig: Rig) -> list[tuple[int, int, int]]:
    """The next census finds the clock of two partitions an hour behind; gives what is moved back then."""
    moved: list[tuple[int, int, int]] = []
    census = rig.store.census
    told = iter([{HELD: HOUR_MS, LOST: HOUR_MS}])

    async def found(partitions: range) -> Census:
        return replace(await census(partitions), turned_back=next(told, {}))

    async def turn_back(partitions: list[tuple[int, int, int]]) -> None:
        moved.extend(partitions)

    setattr(rig.store, "census", found)  # noqa: B010  mypy takes no other method for it
    setattr(rig.store, "turn_back", turn_back)  # noqa: B010
    return moved


@in_virtual_time
async def test_what_is_due_later_moves_back_with_the_stores_clock() -> None:
    """Of the partitions that this node still holds, under its epochs, once; it is said, and looked for at once."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        moved = turned(rig)
        rig.ownership._epochs[LOST] = 0
        rig.run()
        await passing(0.1)
        assert moved == [(HELD, rig.ownership.epoch(HELD), HOUR_MS)]
        assert rig.store.faults.count("sweep") == 2
        assert stage.journal.lines == [("warning", "the store's clock was turned back", {"by_ms": HOUR_MS})]
        await passing(2 * CENSUS_EVERY * PERIOD_S)
        assert len(moved) == 1
