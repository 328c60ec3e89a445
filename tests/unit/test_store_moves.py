"""Planned moves when the server of a partition is away: nobody knows, and nothing is taken for done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from actors.adapters.valkey.partitions import ValkeyPartitions
from actors.adapters.valkey.runner import Runner
from actors.ports import Fenced, Owner, StoreAway
from tests.support.virtual_time import in_virtual_time


class HalfAway:
    """A runner; the server of odd partitions is away."""

    async def each(self, _transition: object, requests: Sequence[Any]) -> list[Owner | StoreAway]:
        """A new epoch for what can be reached."""
        return [
            StoreAway("its server is away") if of.partition % 2 else Owner(of.epoch + 1, of.node) for of in requests
        ]


@in_virtual_time
async def test_a_move_of_which_nobody_knows_is_not_done() -> None:
    """The others are; of this one the last that was known is told, and the node that gave it acts no more for it."""
    partitions = ValkeyPartitions(cast(Runner, HalfAway()))
    moved = await partitions.hand_over([(2, 10, "b"), (3, 20, "b")])
    assert moved == [Owner(11, "b"), Fenced(0, "")]


@in_virtual_time
async def test_a_partition_that_cannot_be_reached_is_not_taken() -> None:
    """Under no epoch: the next look finds out."""
    partitions = ValkeyPartitions(cast(Runner, HalfAway()))
    taken = await partitions.acquire("a", 0, [(2, 10), (3, 20)])
    assert taken == [Owner(11, "a"), Owner(20, "")]
