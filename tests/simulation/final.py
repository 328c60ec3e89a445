"""Final: what must hold when a healed cluster has settled, and when its last node has stopped."""

from __future__ import annotations

from actors.core.partition import PARTITIONS
from actors.core.rendezvous import winners
from tests.simulation.audit import Sent
from tests.simulation.cluster import Cluster
from tests.simulation.faults import STORE

TOGETHER_S = 4.0
"""A rollback of the store and the end of the node that would have brought back what was lost, this close before it or
after the store's return: a loss then takes two faults and is allowed."""
FELT_S = 10.0
"""How long after a rollback its store may be away, and what was lost be on its way back."""


def differences(cluster: Cluster) -> list[str]:
    """What is not as it must be in the end; empty when all is settled."""
    if not cluster.server.up or cluster.server.paused:
        return ["the store is away"]
    nodes = [cluster.nodes[name] for name in cluster.living()]
    found = [f"{node.name} is not up" for node in nodes if not (node.accepting and node.lanes.connected)]
    for of in cluster.server.state.partitions.values():
        left = {"open": len(of.open), "ready": len(of.ready), "busy": len(of.busy), "live": len(of.live)}
        found += [f"partition {of.number} has {count} {what}" for what, count in left.items() if count]
    return found or _misplaced(cluster)


def _misplaced(cluster: Cluster) -> list[str]:
    state, living = cluster.server.state, frozenset(cluster.living())
    found = []
    for name in sorted(living):
        if cluster.nodes[name].membership.alive() != living:
            found.append(f"{name} takes {sorted(cluster.nodes[name].membership.alive())} for the living")
    winner = winners(living)
    for partition in range(PARTITIONS):
        of = state.partition(partition)
        if of.node != winner[partition]:
            found.append(f"partition {partition} is {of.node or 'nobody'}'s and not {winner[partition]}'s")
        for name in sorted(living):
            believed = cluster.nodes[name].ownership.epoch(partition)
            if believed != (of.epoch if of.node == name else 0):
                found.append(f"{name} believes in epoch {believed} of partition {partition}, not {of.epoch}")
    return found


def judge(cluster: Cluster) -> None:
    """Hold the account of what was promised against what came of it."""
    audit = cluster.audit
    dead = {
        message_id
        for of in cluster.server.state.partitions.values()
        for name in sorted(of.dead)
        for message_id, _, _ in of.deliveries[name].batch.messages
    }
    audit.counts["dead letters"] = len(dead)
    accounted = audit.taken.keys() | dead | audit.given_up | _waiting(cluster)
    for message_id, sent in audit.sent.items():
        if sent.acked_at is not None and message_id not in accounted:
            if _two_faults(cluster, sent):
                audit.counts["lost by two faults"] += 1
            else:
                audit.violation("I1", f"{message_id} was acknowledged, and is lost")
    _order(cluster)
    for node in cluster.all_nodes:
        for line in (*node.crashes, *node.process.complaints):
            audit.violation("crash", f"{node.name}: {line}")
        for line in node.fatal:
            if any(audit.faults.restarted(node.name, rollback) for rollback in audit.faults.of("rollback")):
                audit.counts["ended by its own past"] += 1
            else:
                audit.violation("crash", f"{node.name} ended itself: {line}")
    for line in cluster.loop.complaints:
        audit.violation("crash", line)


def _waiting(cluster: Cluster) -> set[str]:
    """What the store still has; not lost, though it should have been delivered."""
    partitions = cluster.server.state.partitions.values()
    batches = [batch for of in partitions for batch in of.open.values()]
    batches += [of.deliveries[name].batch for of in partitions for name in of.live]
    return {message_id for batch in batches for message_id, _, _ in batch.messages}


def judge_empty(cluster: Cluster) -> None:
    """After planned stops nobody owns or claims anything, and no record is left."""
    state = cluster.server.state
    owned = [of.number for of in state.partitions.values() if of.node]
    if owned:
        cluster.audit.violation("stop", f"{len(owned)} partitions still have an owner, {owned[0]} one of them")
    late = any(cluster.audit.faults.of(kind) for kind in ("cut", "slow", "paused"))
    if state.nodes and not late:  # else a beat of long ago may have come in after the node had left
        cluster.audit.violation("stop", f"the records of {sorted(state.nodes)} are left")


def _two_faults(cluster: Cluster, sent: Sent) -> bool:
    assert sent.acked_at is not None
    assert sent.acked_by is not None
    faults = cluster.audit.faults.all
    for rollback in faults:
        if rollback.kind != "rollback" or not rollback.start - 0.1 <= sent.acked_at <= rollback.end:
            continue
        back_at = max(fault.end for fault in faults if fault.kind == "away" and fault.start == rollback.end)
        for other in faults:
            ended = other.kind in ("kill", "stop", "freeze", "sleep", "cut") and other.target == sent.acked_by.name
            again = (
                other.kind in ("rollback", "away", "paused") and other.target == STORE and other.start > rollback.end
            )
            close = other.start <= back_at + TOGETHER_S and other.end >= rollback.start - TOGETHER_S
            if close and (ended or again):
                return True
    return False


def _order(cluster: Cluster) -> None:
    """A client sends one after the other: what was acknowledged is first taken in the order of sending. Only where
    something else happened near a rollback may what was lost come back in another place."""
    audit = cluster.audit
    excused = any(
        other.kind in ("kill", "stop", "freeze", "sleep", "cut", "clock", "away", "paused", "slow", "reset")
        and other.start <= rollback.end + FELT_S
        and other.end >= rollback.start - TOGETHER_S
        and (other.target != STORE or other.start > rollback.end or other.kind == "clock")
        for rollback in audit.faults.of("rollback")
        for other in audit.faults.all
    )
    for key, order in sorted(audit.first_taken.items()):
        out_of_line = audit.died | audit.given_up
        numbers = [audit.sent[each].number for each in order if audit.sent[each].heard and each not in out_of_line]
        if numbers != sorted(numbers):
            if excused:
                audit.counts["reordered by two faults"] += 1
            else:
                audit.violation("I5", f"{key}: taken in the order {numbers}")
