"""A batch whose timer would come too late: this node's clock stood still, or the store's has jumped."""

from __future__ import annotations

import pytest

from actors.buffer import CLOCKS_APART_S, Arm, Heard, Open, decide
from actors.ports import DueBatch
from tests.support.buffer_rig import LATE_S_MAX, BufferRig
from tests.support.doubles import Stage, make_entry
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

KNOWN = Open(5_000_000, 120.0)


@pytest.mark.parametrize("sooner_s", [CLOCKS_APART_S + 0.01, 5.0, 119.0])
def test_a_batch_that_is_due_sooner_than_its_timer_is_armed_anew(sooner_s: float) -> None:
    """The deadline is the same; it is the way from the store's clock to ours that has changed."""
    due_at = KNOWN.due_at - sooner_s
    assert decide(KNOWN, Heard(KNOWN.deadline_ms, due_at), 100.0) == (Open(KNOWN.deadline_ms, due_at), (Arm(due_at),))


@pytest.mark.parametrize("later_s", [-CLOCKS_APART_S + 0.01, 0.0, 5.0])
def test_a_batch_that_will_be_woken_for_in_time_is_left_alone(later_s: float) -> None:
    """What an answer needs on its way is no jump, and a timer that comes too early is set again then."""
    assert decide(KNOWN, Heard(KNOWN.deadline_ms, KNOWN.due_at + later_s), 100.0) == (KNOWN, ())


@in_virtual_time
async def test_the_sweep_wakes_it_in_time() -> None:
    """Through the actor: it closes when the store says that it is due, not when this node once thought so."""
    async with Stage() as stage:
        rig = await BufferRig(stage).start()
        entry = make_entry("k", wait_ms=60_000)
        appended = await rig.buffers.append(entry)
        rig.store.open[entry.terms.kid].deadline_ms -= 50_000
        rig.buffers.heard([DueBatch(entry.partition, entry.terms.kid, appended.deadline_ms, 10_000)])
        began = stage.clock.monotonic()
        await passing(20.0)
        [(closed_at, _)] = rig.ready
        assert began + 10.0 <= closed_at <= began + 10.0 + LATE_S_MAX
