"""A drain begins nothing: what waits for room when it is asked for waits for the next owner."""

from __future__ import annotations

from actors.host import STARTED_FIRST
from tests.support.delivery_rig import ALIVE, DeliveryRig
from tests.support.doubles import Stage
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

SLOW = "slow.example"


@in_virtual_time
async def test_what_ends_makes_room_for_nobody() -> None:
    """What is under way is waited for and settled; what stands behind it in the line stays ready."""
    async with Stage() as stage:
        rig = DeliveryRig(stage)
        await rig.start()
        rig.webhooks.took_s |= {ALIVE: 1.0, SLOW: 5.0}
        readies = await rig.batches(STARTED_FIRST + 5)
        slow = await rig.batch(SLOW)
        rig.offer(*readies, slow)
        await passing(0.1)
        await rig.deliveries.drain(10.0)
        assert rig.of(slow).status == "delivered"
        assert rig.statuses(*readies) == ["delivered"] * STARTED_FIRST + ["pending"] * 5
        assert {ready.delivery_id for ready in readies[STARTED_FIRST:]} <= set(rig.store.ready)
        assert rig.deliveries.running == 0
