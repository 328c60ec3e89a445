"""The cluster's log: what a node notes of itself and of others, once, and in its own log as well."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from actors.core.membership import BEAT_S, DEAD_AFTER_S
from actors.membership import FALLEN_S, Membership
from actors.node_ports import NodeEvent, NodeRecord
from actors.ownership import Ownership
from actors.ports import Fenced, Owner, StoreAway
from tests.support.doubles import Stage
from tests.support.memory_store import NODE, MemoryStore
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

OTHER = "node-2"


class Beats:
    """A store of beats in which another node can live."""

    def __init__(self) -> None:
        self.others: dict[str, NodeRecord] = {}
        self.log: list[NodeEvent] = []
        self.away = False

    async def beat(
        self, own: NodeRecord, buried: Sequence[NodeRecord], events: Sequence[NodeEvent]
    ) -> Sequence[NodeRecord]:
        """Take the events; the dead go."""
        if self.away:
            raise StoreAway
        self.log.extend(events)
        for record in buried:
            self.others.pop(record.node, None)
        return [own, *self.others.values()]

    async def leave(self, own: NodeRecord, events: Sequence[NodeEvent]) -> None:
        """Take the last events."""
        self.log.extend(events)

    async def events(self, before: str, limit: int) -> tuple[Sequence[NodeEvent], str | None]:
        """Nobody asks."""
        raise NotImplementedError

    def lines(self) -> list[tuple[str, str, int]]:
        """What was noted, in order."""
        return [(event.what, event.other, event.count) for event in self.log]


class Rig:
    """One node's membership."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.store = MemoryStore(owned=False)
        self.beats = Beats()
        self.ownership = Ownership(NODE, self.store, stage.clock, stage.meters)
        identity = NodeRecord(node=NODE, incarnation="1", beat=0, version="9.9")
        self.membership = Membership(identity, self.beats, self.ownership, stage.clock, stage.meters, stage.journal)

    async def beat(self, times: int = 1, *, other_beats: bool = False) -> None:
        """Beat at the usual pace."""
        for _ in range(times):
            if other_beats:
                record = self.beats.others[OTHER]
                self.beats.others[OTHER] = replace(record, beat=record.beat + 1)
            await self.membership.run_once()
            await passing(BEAT_S)


@in_virtual_time
async def test_a_life_is_told_once_and_in_both_logs() -> None:
    """Joined, took what was nobody's, left."""
    async with Stage() as stage:
        rig = Rig(stage)
        await rig.beat(3)
        await rig.membership.leave()

        assert rig.beats.lines() == [("joined", "", 0), ("took", "", 256), ("left", "", 0)]
        assert stage.journal.lines == [
            ("info", "joined", {"detail": "9.9"}),
            ("info", "took", {"count": 256}),
            ("info", "left", {}),
        ]


@in_virtual_time
async def test_a_store_that_is_away_does_not_make_a_node_join_twice() -> None:
    """What could not be written waits for the next beat."""
    async with Stage() as stage:
        rig = Rig(stage)
        rig.beats.away = True
        for _ in range(3):
            try:
                await rig.membership.run_once()
            except StoreAway:
                await passing(BEAT_S)
        rig.beats.away = False
        await rig.beat()

        assert [event.what for event in rig.beats.log] == ["joined"]
        assert stage.journal.phrases().count("joined") == 1


@in_virtual_time
async def test_a_death_and_the_takeover_are_warnings_and_the_dead_are_remembered() -> None:
    """The dead node's record goes with the next beat; whoever asks is still told of it for a while."""
    async with Stage() as stage:
        rig = Rig(stage)
        rig.beats.others[OTHER] = NodeRecord(node=OTHER, incarnation="2", beat=1)
        rig.store.owned[:] = [Owner(41, OTHER)] * len(rig.store.owned)
        await rig.beat(6, other_beats=True)
        await rig.beat(round(DEAD_AFTER_S / BEAT_S) + 4)

        assert rig.beats.lines()[-2:] == [("found dead", OTHER, 0), ("took over", OTHER, 256)]
        assert [(level, phrase) for level, phrase, _ in stage.journal.lines][-2:] == [
            ("warning", "found dead"),
            ("warning", "took over"),
        ]
        assert rig.beats.others == {}
        assert {record.node for record, _ in rig.membership.records()} == {NODE, OTHER}
        await passing(FALLEN_S)
        assert {record.node for record, _ in rig.membership.records()} == {NODE}


@in_virtual_time
async def test_many_refused_writes_are_one_line() -> None:
    """One for each node that holds what they were for, with their number, at the next beat."""
    async with Stage() as stage:
        rig = Rig(stage)
        await rig.beat(2)
        for partition in (1, 2, 2, 2, 3):
            rig.ownership.fenced(partition, Fenced(10**17, OTHER if partition < 3 else "node-3"))
        await rig.beat(2)

        assert [line for line in rig.beats.lines() if line[0] == "fenced"] == [
            ("fenced", OTHER, 4),
            ("fenced", "node-3", 1),
        ]
        assert stage.journal.phrases().count("fenced") == 2


@in_virtual_time
async def test_what_another_node_took_meanwhile_is_said_to_be_lost() -> None:
    """A node that slept learns of it by looking, not by a fence."""
    async with Stage() as stage:
        rig = Rig(stage)
        rig.beats.others[OTHER] = NodeRecord(node=OTHER, incarnation="2", beat=1)
        await rig.beat(6, other_beats=True)
        held = rig.ownership.held()
        for partition in held[:5]:
            rig.store.owned[partition] = Owner(10**17, OTHER)
        rig.ownership.reclaim()
        await rig.beat(2, other_beats=True)

        assert ("lost", OTHER, 5) in rig.beats.lines()
        assert ("warning", "lost", {"other": OTHER, "count": 5}) in stage.journal.lines
