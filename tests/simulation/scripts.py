"""Scripts: every Lua script of the store by its name, as a function of state, moment and arguments.

They follow `actors/adapters/valkey/scripts/*.lua` line by line in what they read, write and answer; answers are the
values of the ports. `test_agreement` holds them against the real ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.simulation.scripts_batches import append, cancel, close, reclose, restore
from tests.simulation.scripts_deliveries import claim, discard, release, requeue, settle
from tests.simulation.scripts_owners import acquire, beat, census, hand_over, leave, owners, resign, sweep, turn_back

Script = Callable[..., Any]
WRITES: Mapping[str, Script] = {
    **{of.__name__: of for of in (append, restore, reclose, close, cancel)},
    **{of.__name__: of for of in (claim, settle, release, requeue, discard)},
    **{of.__name__: of for of in (acquire, hand_over, resign, turn_back, beat, leave)},
}
READS: Mapping[str, Script] = {of.__name__: of for of in (owners, sweep, census)}
