"""Owner scripts: what the Lua scripts of partitions, nodes and sweeps do, as functions of state and moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from actors.node_ports import NodeEvent, NodeRecord, NodeReplaced
from actors.ports import Census, DueBatch, Fenced, Owner, Ready
from tests.simulation.state import Moment, Partition, State

CLAIMED_SHOWN_MAX = 100


def owners(state: State, at: Moment, partitions: Sequence[int]) -> list[Owner]:
    """owners.lua"""
    return [Owner(of.epoch, of.node) for of in map(state.partition, partitions)]


def acquire(state: State, at: Moment, node: str, seen: int, wanted: Sequence[tuple[int, int]]) -> list[Owner]:
    """acquire.lua"""
    replies = []
    for partition, expected in wanted:
        of = state.partition(partition)
        if of.epoch == expected:
            of.epoch, of.node = max(of.epoch + 1, at.us, seen + 1), node
            of.put_back(at.ms)
        replies.append(Owner(of.epoch, of.node))
    return replies


def hand_over(state: State, at: Moment, moves: Sequence[tuple[int, int, str]]) -> list[Owner | Fenced]:
    """hand_over.lua"""
    replies: list[Owner | Fenced] = []
    for partition, held, node in moves:
        of = state.partition(partition)
        fence = of.fence(held)
        if fence is None:
            of.epoch, of.node = max(held + 1, at.us), node
            of.put_back(at.ms)
        replies.append(fence or Owner(of.epoch, of.node))
    return replies


def resign(state: State, at: Moment, held: Sequence[tuple[int, int]]) -> None:
    """resign.lua"""
    for partition, epoch in held:
        of = state.partition(partition)
        if of.fence(epoch) is None:
            of.node = ""


def beat(
    state: State, at: Moment, own: NodeRecord, buried: Sequence[NodeRecord], events: Sequence[NodeEvent]
) -> list[NodeRecord] | NodeReplaced:
    """beat.lua"""
    stored = state.nodes.get(own.node)
    if stored is not None and own.beat != 1 and stored.incarnation != own.incarnation:
        return NodeReplaced(f"another process uses the name {own.node}")
    state.nodes[own.node] = own
    for record in buried:
        stands = state.nodes.get(record.node)
        if stands is not None and (stands.incarnation, stands.beat) == (record.incarnation, record.beat):
            del state.nodes[record.node]
    state.events.extend(event.what for event in events)
    return list(state.nodes.values())


def leave(state: State, at: Moment, own: NodeRecord, events: Sequence[NodeEvent]) -> None:
    """leave.lua"""
    stored = state.nodes.get(own.node)
    if stored is not None and stored.incarnation == own.incarnation:
        del state.nodes[own.node]
    state.events.extend(event.what for event in events)


def sweep(
    state: State, at: Moment, partitions: Sequence[int], ahead_ms: int, limit: int, skip: Mapping[int, int]
) -> tuple[list[DueBatch], list[Ready]]:
    """sweep.lua"""
    until, due, ready = at.ms + ahead_ms, [], []
    for partition in partitions:
        of = state.partitions.get(partition)
        if of is None or not (of.open or of.ready):
            continue
        rows = sorted((batch.deadline_ms, kid) for kid, batch in of.open.items() if batch.deadline_ms <= until)
        due += [DueBatch(partition, kid, deadline, max(deadline - at.ms, 0)) for deadline, kid in rows[:limit]]
        first = skip.get(partition, 0)
        names = sorted((from_ms, name) for name, from_ms in of.ready.items() if from_ms <= until)
        ready += [
            Ready(partition, name, of.deliveries[name].batch.host, max(from_ms - at.ms, 0))
            for from_ms, name in names[first : first + limit]
        ]
    return due, ready


def turn_back(state: State, at: Moment, turned: Sequence[tuple[int, int, int]]) -> list[bool]:
    """turn_back.lua"""
    return [_turn_back(state.partition(partition), at.ms, epoch, ms) for partition, epoch, ms in turned]


def _turn_back(of: Partition, now: int, epoch: int, ms: int) -> bool:
    if of.fence(epoch):
        return False
    for batch in of.open.values():
        if batch.deadline_ms > now:
            batch.deadline_ms -= ms
            batch.first_ms -= ms
    for name, from_ms in of.ready.items():
        if from_ms > now:
            of.ready[name] = from_ms - ms
            found = of.deliveries[name]
            found.next_ms = None if found.next_ms is None else found.next_ms - ms
    return True


def census(state: State, at: Moment, partitions: Sequence[int]) -> tuple[Census, int]:
    """census.lua"""
    open_batches, undelivered, oldest, claimed = 0, 0, at.ms, []
    for partition in partitions:
        of = state.partitions.get(partition)
        if of is None:
            continue
        open_batches += len(of.open)
        if of.live:
            undelivered += len(of.live)
            oldest = min(oldest, *of.live.values())
            claimed += sorted(of.busy, key=lambda name: (of.busy[name], name))[:CLAIMED_SHOWN_MAX]
    return Census(open_batches, undelivered, at.ms - oldest, tuple(claimed)), at.ms
