"""Channel probe: whether each ear hears what is published. Readiness asks how old the last proof is.

Once a second a number goes through the script that publishes everything, to a channel of this node's own at each
server; hearing it, announced and then said, proves the whole way round, which no open connection does. Anybody may
publish there: what is no number of ours proves nothing.
Invariant: an ear that was open and heard nothing for LATE_S is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from actors.adapters.valkey.channel_calls import SEED_BYTES, probe_arguments
from actors.adapters.valkey.channel_hearing import Hearing, Nobody
from actors.adapters.valkey.channel_server_ear import Subscription
from actors.adapters.valkey.keys import OWNERS, PREFIXES, probe_channel, side_channel
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.store_shard import StoreShard
from actors.adapters.valkey.wire import Moved, StoreRefused
from actors.channel_ports import Publication
from actors.core.partition import locate
from actors.ports import StoreAway

PERIOD_S = 1.0
LATE_S = 3.0
KEPT_MS = 5_000


class ServerProbe(Nobody):
    """Of one server. `now` is the loop's clock."""

    def __init__(self, shard: StoreShard, script: Script, incarnation: str, now: Callable[[], float]) -> None:
        self._shard = shard
        self._script = script
        self._incarnation = incarnation
        self._kid, _ = locate(f"probe {incarnation}")
        self._now = now
        self._partition: int | None = None
        self._said = self._heard = 0
        self.heard_at = now()
        """When the last number came, or this was made."""

    async def run_once(self) -> None:
        """Say the next number, and leave an ear that does not hear."""
        self._settle()
        if self._partition is None:
            self.heard_at = self._now()  # the server has nothing to be heard
            return
        ear = self._shard.ear
        if ear.opened_at is not None and self._now() - max(ear.opened_at, self.heard_at) > LATE_S:
            ear.lane.drop("what is published is not heard")
        elif ear.opened_at is not None:
            await self._say(self._partition)

    def arrived(self, _name: str, _epoch: str, publication: Publication) -> None:
        """A number has come round."""
        number = int(publication.data) if publication.data.isdigit() else 0
        if self._heard < number <= self._said:
            self._heard = number
            self.heard_at = self._now()

    def _settle(self) -> None:
        """Listen to the channel, in some partition that the server has."""
        partitions = self._shard.partitions
        if self._partition in partitions:
            return
        if self._partition is not None:
            self._shard.ear.leave(probe_channel(self._partition, self._kid))
        self._partition = min(partitions, default=None)
        if self._partition is not None:
            name, side = probe_channel(self._partition, self._kid), side_channel(self._partition, self._kid)
            hearing = Hearing(name, self)
            parts = {name.encode(): hearing.plain, side.encode(): hearing.side}
            self._shard.ear.listen(Subscription(name, parts, own=True))

    async def _say(self, partition: int) -> None:
        self._said += 1
        name = probe_channel(partition, self._kid)
        seed = b"%0*d" % (SEED_BYTES, self._said)
        arguments = probe_arguments(seed, KEPT_MS, PREFIXES[partition], self._kid, name, self._said)
        try:
            await self._shard.hot.script(self._script, (OWNERS[partition],), arguments)
        except StoreAway:
            self._say_bare(partition, name)
        except (Moved, StoreRefused):
            return  # not said: what that means is the affair of those whose calls it meets, and readiness sees it

    def _say_bare(self, partition: int, name: str) -> None:
        """A server that is full refuses the script, and is heard all the same."""
        number = str(self._said)
        try:
            if self._shard.hot.refusal:
                announced = f"p|probe|1|{len(number)}|probe"
                self._shard.hot.call("PUBLISH", side_channel(partition, self._kid), announced)
                self._shard.hot.call("PUBLISH", name, number)
        except StoreAway:
            return


class ChannelProbe:
    """Of all servers. `shards` gives those that there are now."""

    def __init__(
        self,
        shards: Callable[[], Sequence[StoreShard]],
        script: Script,
        incarnation: str,
        now: Callable[[], float],
    ) -> None:
        self._shards = shards
        self._script = script
        self._incarnation = incarnation
        self._now = now
        self._probes: dict[StoreShard, ServerProbe] = {}

    def age_s(self, now: float) -> float:
        """How old the oldest proof is, over all servers; 0 before the first start."""
        return max((now - each.heard_at for each in self._probes.values()), default=0.0)

    async def run(self) -> None:
        """Prove it for ever. A service: ends only by cancellation."""
        while True:
            await self.run_once()
            await asyncio.sleep(PERIOD_S)

    async def run_once(self) -> None:
        """Have each server prove itself once."""
        self._probes = {shard: self._probes.get(shard) or self._made(shard) for shard in self._shards()}
        await asyncio.gather(*(probe.run_once() for probe in self._probes.values()))

    def _made(self, shard: StoreShard) -> ServerProbe:
        return ServerProbe(shard, self._script, self._incarnation, self._now)
