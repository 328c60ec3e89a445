"""A sweeper that is woken: what was just taken over is not left until the next period."""

from __future__ import annotations

from actors.sweeper import PERIOD_S
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_sweeper import rig_of

AT_ONCE_S = 0.02


@in_virtual_time
async def test_who_is_woken_sweeps_at_once() -> None:
    """Once for each time; then at its own pace again."""
    async with Stage() as stage:
        rig = await rig_of(stage)
        rig.run()
        await passing(PERIOD_S / 2)
        swept = rig.store.faults.count("sweep")
        rig.sweeper.wake()
        rig.sweeper.wake()
        await passing(AT_ONCE_S)
        assert rig.store.faults.count("sweep") == swept + 1
        await passing(PERIOD_S - 2 * AT_ONCE_S)
        assert rig.store.faults.count("sweep") == swept + 1
        await passing(4 * AT_ONCE_S)
        assert rig.store.faults.count("sweep") == swept + 2
