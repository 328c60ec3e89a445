"""What a node makes of news that is old, or says the same of a partition in another way."""

from __future__ import annotations

import pytest

from actors.core.partition import PARTITIONS
from actors.core.rendezvous import winners
from actors.ports import Fenced, Owner, StoreAway
from tests.support.doubles import Stage
from tests.support.memory_store import NODE
from tests.support.virtual_time import in_virtual_time
from tests.unit.test_ownership import BOTH, OTHER, P, Rig

THEIRS = winners(BOTH).index(OTHER)
"""A partition that the other node wins."""


@in_virtual_time
async def test_old_news_changes_nothing() -> None:
    """Two nodes tell of the same partition; the one that knows less may be heard last."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.lose(P, OTHER)
        now = rig.store.owned[P].epoch
        rig.ownership.fenced(P, Fenced(now, OTHER))
        for epoch in (now - 1, now):
            rig.ownership.heard(P, epoch, "node-3")
            assert rig.ownership.known(P) == Owner(now, OTHER)
        rig.ownership.heard(P, now + 1, "node-3")
        assert rig.ownership.known(P) == Owner(now + 1, "node-3")


@in_virtual_time
async def test_another_process_of_our_name_is_another_node() -> None:
    """What it took under an epoch of its own is not ours, also when it cannot be taken back now."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        rig.store.lose(P, NODE)
        rig.store.faults.before["acquire"] = 1
        with pytest.raises(StoreAway):
            await rig.look(BOTH)
        assert rig.ownership.epoch(P) == 0
        assert rig.lost == [P]
        await rig.look(BOTH)
        assert rig.true()
        assert len(rig.ownership.held()) == PARTITIONS


@in_virtual_time
async def test_what_was_given_back_in_our_name_is_not_ours() -> None:
    """The epoch stays when a partition is given back: a write that was thought lost came late. Whoever wins it takes
    it, and that may be another."""
    async with Stage() as stage:
        rig = await Rig(stage).start()
        epoch = rig.ownership.epoch(THEIRS)
        rig.store.owned[THEIRS] = Owner(epoch, "")
        await rig.look(BOTH)
        assert rig.ownership.epoch(THEIRS) == 0
        assert rig.lost == [THEIRS]
        assert rig.store.owned[THEIRS] == Owner(epoch, "")
