"""Rows 17 and 18: a primary that dies with a replica behind it, and one that is made a replica under its clients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from time import monotonic

from tests.chaos.chaos import RECOVERY_S, Chaos
from tests.chaos.rig import Rig
from tests.chaos.rig_sentinel import SentinelRig
from tests.chaos.rows import Allows, Setup, row
from tests.chaos.rows_rollback import ANY, ORPHANED_S, Forgotten, only_what_was_forgotten
from tests.chaos.rows_store import full_rate
from tests.support.until import NeverHappened, passing, until

SENTINELS = Setup(rig="sentinel")
BEHIND_S = 3.0
"""How far the replica is behind: less than the four seconds that nodes keep."""
PROMOTED_S_MAX = 10.0
MOVES_BEGIN_S = 8.0
LOOK_S = 0.1
MOVES_SEEN = 8


class Epochs:
    """Every owner and epoch that was ever seen in the stores."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._nodes: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
        self._moves = 0
        self.latest: dict[int, tuple[str, int]] = {}

    async def look(self) -> dict[int, tuple[str, int]]:
        """Look once."""
        before, self.latest = self.latest, await self._rig.owners()
        self._moves += sum(before[partition] != self.latest[partition] for partition in before)
        for partition, (node, epoch) in self.latest.items():
            if node:
                self._nodes[partition, epoch].add(node)
        return self.latest

    async def watch(self, seconds: float) -> None:
        """Look again and again."""
        ends_at = monotonic() + seconds
        while monotonic() < ends_at:
            await self.look()
            await passing(LOOK_S)

    async def moving(self) -> bool:
        """Whether a few partitions have moved since the first look."""
        await self.look()
        return self._moves >= MOVES_SEEN

    def reused(self) -> Iterator[str]:
        """Epochs under which two nodes held a partition."""
        for (partition, epoch), nodes in self._nodes.items():
            if len(nodes) > 1:
                yield f"epoch {epoch} of partition {partition} was {' and '.join(sorted(nodes))}"


@row(
    17,
    title="the primary killed, its replica 3 s behind (Sentinel)",
    allows=Allows(late_s=BEHIND_S + PROMOTED_S_MAX + ORPHANED_S, counters=False, duplicates=ANY, twice=ANY),
    setup=SENTINELS,
)
async def lagging_replica(rig: Rig, chaos: Chaos) -> None:
    """Living nodes bring back what the replica never had. Partitions move meanwhile: their epochs are not used again,
    though the new primary knows nothing of them."""
    assert isinstance(rig, SentinelRig)
    epochs = Epochs(rig)
    newcomer = rig.nodes[-1]
    await chaos.restart(newcomer)
    await epochs.look()
    try:
        await until(epochs.moving, MOVES_BEGIN_S, every_s=0.05, what="partitions move to the node that came")
    except NeverHappened:
        chaos.note("no partition moved while the replica was cut off")
    since = monotonic()
    await rig.cut_link()
    await epochs.watch(BEHIND_S)
    before = await epochs.look()
    chaos.fault()
    rig.store.kill9()
    until_ = monotonic()
    took_s = await rig.promoted(PROMOTED_S_MAX)
    forgotten = await epochs.look()
    more_s = await rig.announced(PROMOTED_S_MAX)
    announced_at = monotonic()
    await epochs.watch(RECOVERY_S)
    chaos.recovered()
    full_rate(chaos, announced_at + RECOVERY_S)
    await epochs.watch(RECOVERY_S)
    rolled_back = [partition for partition in before if before[partition] != forgotten[partition]]
    chaos.note(
        f"promoted in {took_s:.1f} s, announced {more_s:.1f} s later; {len(rolled_back)} partitions' owners forgotten"
    )
    for partition in rolled_back:
        epoch = epochs.latest[partition][1]
        chaos.expect(epoch > before[partition][1], f"partition {partition}: {epoch} came after {before[partition]}")
    for what in epochs.reused():
        chaos.problem(what)
    only_what_was_forgotten(chaos, Forgotten(since, until_, announced_at + RECOVERY_S))
    await rig.come_back()


@row(
    18,
    title="the primary made a replica under its clients (Sentinel)",
    allows=Allows(late_s=PROMOTED_S_MAX + ORPHANED_S, counters=False, duplicates=ANY, twice=ANY),
    setup=SENTINELS,
)
async def demoted_primary(rig: Rig, chaos: Chaos) -> None:
    """Nodes find the new primary at once; what the old one took after the replica was promoted is brought there."""
    assert isinstance(rig, SentinelRig)
    await chaos.balanced()
    epochs = Epochs(rig)
    await epochs.look()
    chaos.fault()
    since = monotonic()
    await rig.fail_over()
    took_s = await rig.promoted(PROMOTED_S_MAX)
    rig.demote()
    more_s = await rig.announced(PROMOTED_S_MAX)
    announced_at = monotonic()
    chaos.note(f"promoted in {took_s:.1f} s, announced {more_s:.1f} s later")
    await epochs.watch(RECOVERY_S)
    chaos.recovered()
    full_rate(chaos, announced_at + RECOVERY_S)
    await epochs.watch(RECOVERY_S)
    for what in epochs.reused():
        chaos.problem(what)
    only_what_was_forgotten(chaos, Forgotten(since, announced_at, announced_at + RECOVERY_S))
    await rig.followed()
