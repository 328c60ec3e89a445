"""What `/monitoring` makes of records, owners and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from actors.core.evolution_server import Server
from actors.core.partition import PARTITIONS
from actors.core.rendezvous import winners
from actors.core.tasks import TaskState
from actors.node_ports import NodeEvent, NodeRecord
from actors.ports import Owner, StoreAway
from router.api.monitoring import EventPosition, MonitoringRoutes, NodeState, node_view, partitions_view, state_of
from router.api.whatsapp_view import WhatsApp
from router.edge.errors import BadInput
from router.edge.paging import Cursor
from router.edge.usecase import Call, RequestHeaders

BOTH = frozenset({"a", "b"})


def record(node: str, **fields: Any) -> NodeRecord:
    """What a node says of itself."""
    return NodeRecord(node=node, incarnation=f"{node}-1", beat=7, **fields)


class Cluster:
    """A node `a` of two, and its store."""

    connected = True
    refusal = ""
    server_name = "Valkey 9.0.0"
    cluster = "c1"
    url = "http://evolution.example"
    server = Server("2.3.7", "v2", honours_message_id=False)
    node = "a"

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, str]] = {}
        self.stored = [Owner(100 + partition, node) for partition, node in enumerate(winners(BOTH))]
        self.log = [NodeEvent(node="a", what="joined", id=f"{at}-0", at_ms=at) for at in range(9, 0, -1)]
        self.seen = [
            (record("b", open_batches=3, undelivered=2, oldest_waiting_ms=1500), 0.2),
            (record("a", open_batches=4, undelivered=1, oldest_waiting_ms=500), 0.1),
        ]

    @property
    def partitions(self) -> Cluster:
        """The store's part that knows owners."""
        return self

    @property
    def membership(self) -> Cluster:
        """The store's part that keeps the log."""
        return self

    def alive(self) -> frozenset[str]:
        """Both."""
        return BOTH

    def records(self) -> Sequence[tuple[NodeRecord, float]]:
        """What they last said."""
        return self.seen

    def known(self, partition: int) -> Owner:
        """What node `a` remembers: an older epoch."""
        return Owner(1, self.stored[partition].node)

    async def owners(self, partitions: Sequence[int]) -> Sequence[Owner]:
        """Who owns what by the store."""
        if not self.connected:
            raise StoreAway
        return [self.stored[partition] for partition in partitions]

    async def counts(self) -> Mapping[TaskState, int]:
        """Tasks by state."""
        if not self.connected:
            raise StoreAway
        return {"PENDING": 2, "SUCCESS": 1}

    async def note(self, facts: Mapping[tuple[str, str], str]) -> None:
        """Nothing is noted here."""

    async def read(self) -> Mapping[str, Mapping[str, str]]:
        """What is known of instances."""
        if not self.connected:
            raise StoreAway
        return self.facts

    async def events(self, before: str, limit: int) -> tuple[Sequence[NodeEvent], str | None]:
        """A page of the log."""
        if not self.connected:
            raise StoreAway
        older = [event for event in self.log if not before or event.at_ms < int(before.partition("-")[0])]
        return older[:limit], older[limit - 1].id if len(older) > limit else None


async def ask(cluster: Cluster, **query: str) -> Any:
    """What the route answers."""
    headers = RequestHeaders(path="/monitoring", request_id="r")
    routes = MonitoringRoutes(cluster, cluster, cluster, WhatsApp(cluster, cluster, cluster))
    reply = await routes.monitoring(Call(params={}, query=query, body=b"", headers=headers))
    assert reply.status == 200
    return msgspec.json.decode(reply.body)


@pytest.mark.parametrize(
    ("silent_s", "leaving", "alive", "state"),
    [
        (0.3, False, True, "alive"),
        (1.2, False, True, "silent"),
        (9.0, False, True, "silent"),
        (2.1, False, False, "dead"),
        (0.3, True, False, "leaving"),
        (2.1, True, False, "dead"),
    ],
)
def test_nobody_is_dead_whom_the_detector_has_not_found_so(
    silent_s: float, leaving: bool, alive: bool, state: NodeState
) -> None:
    """While the store is away every beat stands still, and everybody is only silent."""
    found = state_of(record("b", leaving=leaving), silent_s, {"b"} if alive else set())

    assert found == state


def test_partitions_are_settled_when_each_is_with_its_winner() -> None:
    """Vacant: its owner is nobody or lives no more. Misplaced: its owner is to give it away."""
    owners = [Owner(5, node) for node in winners(BOTH)]
    settled = partitions_view(owners, BOTH, listed=False)
    owners[:3] = [Owner(0, ""), Owner(9, "gone"), Owner(7, "b" if owners[2].node == "a" else "a")]
    unsettled = partitions_view(owners, BOTH, listed=True)

    assert (settled.total, settled.vacant, settled.misplaced, settled.settled) == (PARTITIONS, 0, 0, True)
    assert sum(share.partitions for share in settled.nodes.values()) == PARTITIONS
    assert settled.owners is None
    assert (unsettled.vacant, unsettled.misplaced, unsettled.settled) == (2, 1, False)
    assert unsettled.nodes["gone"].epoch == 9
    assert unsettled.owners is not None
    assert [(owner.partition, owner.node, owner.epoch) for owner in unsettled.owners[:2]] == [
        (0, None, 0),
        (1, "gone", 9),
    ]


async def test_queues_are_sums_over_the_nodes_that_are_not_dead() -> None:
    """What a dead node said lies in partitions that others count now."""
    cluster = Cluster()
    cluster.seen.append((record("c", open_batches=50, undelivered=50, oldest_waiting_ms=90_000), 30.0))
    answer = await ask(cluster)

    assert [(node["id"], node["state"]) for node in answer["nodes"]] == [("a", "alive"), ("b", "alive"), ("c", "dead")]
    assert answer["queues"] == {"open_batches": 7, "undelivered": 3, "oldest_waiting_seconds": 1.5}
    assert answer["redis"] == {"connected": True, "server": "Valkey 9.0.0", "cluster": "c1", "refusal": None}
    assert answer["tasks"] == {"PENDING": 2, "SUCCESS": 1}


async def test_instances_are_shown_with_all_that_is_known_of_them() -> None:
    """By name, and no more than a hundred; times as everywhere."""
    cluster = Cluster()
    cluster.facts = {f"i{number:03}": {"sent_at": "0"} for number in range(120)}
    cluster.facts["a"] = {
        "state": "close",
        "state_reason": "401",
        "state_at": "1000",
        "held": "why",
        "held_at": "2000",
        "sent_at": "3000",
        "failed_at": "4000",
        "failed": "what",
        "event_at": "5000",
    }
    cluster.facts["b"] = {"state": "open", "state_reason": "-"}
    answer = (await ask(cluster))["evolution"]

    assert (answer["url"], answer["version"], answer["total"]) == ("http://evolution.example", "2.3.7", 122)
    assert len(answer["instances"]) == 100
    assert answer["instances"][0] == {
        "instance": "a",
        "state": "close",
        "state_reason": 401,
        "state_at": "1970-01-01T00:00:01.000Z",
        "held": "why",
        "held_at": "1970-01-01T00:00:02.000Z",
        "last_failure": "what",
        "last_sent_at": "1970-01-01T00:00:03.000Z",
        "last_failed_at": "1970-01-01T00:00:04.000Z",
        "last_event_at": "1970-01-01T00:00:05.000Z",
    }
    assert answer["instances"][1] == {"instance": "b", "state": "open"}


async def test_while_the_store_is_away_the_node_tells_what_it_knows() -> None:
    """No events and older epochs, but an answer."""
    cluster = Cluster()
    cluster.connected = False
    answer = await ask(cluster, partitions="true")

    assert (answer["redis"]["connected"], answer["events"], answer["cursor"]) == (False, [], None)
    assert {owner["epoch"] for owner in answer["partitions"]["owners"]} == {1}
    assert [node["id"] for node in answer["nodes"]] == ["a", "b"]


async def test_events_come_in_pages_newest_first() -> None:
    """Every event once, whatever the size of a page."""
    cluster = Cluster()
    pages = [await ask(cluster, limit="4")]
    while (cursor := pages[-1]["cursor"]) is not None:
        pages.append(await ask(cluster, limit="4", cursor=cursor))

    assert [len(page["events"]) for page in pages] == [4, 4, 1]
    times = [event["at"] for page in pages for event in page["events"]]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 9
    assert pages[0]["events"][0] == {
        "at": "1970-01-01T00:00:00.009Z",
        "node": "a",
        "what": "joined",
        "other": None,
        "count": None,
        "detail": None,
    }


@pytest.mark.parametrize("before", ["0-0", "-", "+", "1", "1-", "99999999999999999999-0", "1-1 COUNT"])
async def test_a_position_that_the_store_would_refuse_is_the_callers_mistake(before: str) -> None:
    """Anybody can make a cursor up."""
    with pytest.raises(BadInput):
        await ask(Cluster(), cursor=Cursor(EventPosition).encode(EventPosition(before)))


def test_a_node_is_shown_in_seconds_and_instants() -> None:
    """Milliseconds stay inside."""
    view = node_view(
        record("b", started_ms=1_800_000_000_250, oldest_waiting_ms=1234, pid=5, machine="m"), 0.12345, BOTH
    )

    assert (view.started_at, view.oldest_waiting_seconds) == ("2027-01-15T08:00:00.250Z", 1.234)
    assert (view.silent_seconds, view.pid, view.machine) == (0.123, 5, "m")
