"""Delivery scripts: what the Lua scripts of deliveries do, as functions of state, moment and arguments."""

from __future__ import annotations

from collections.abc import Sequence

from actors.ports import (
    Claim,
    Claimed,
    Fenced,
    Next,
    NothingOpen,
    Poisoned,
    Ready,
    Release,
    Settle,
    WrongState,
)
from tests.simulation.state import Moment, Partition, State

EARLY_MS = 50
CRASHES_MAX = 5
NOTHING = NothingOpen()


def claim(state: State, at: Moment, claims: Sequence[Claim]) -> list[Claimed | Poisoned | NothingOpen | Fenced]:
    """claim.lua"""
    return [_claim(state.partition(wish.partition), at.ms, wish) for wish in claims]


def _claim(of: Partition, now: int, wish: Claim) -> Claimed | Poisoned | NothingOpen | Fenced:
    if fence := of.fence(wish.epoch):
        return fence
    name = wish.delivery_id
    if of.ready.get(name, now + EARLY_MS + 1) > now + EARLY_MS:
        return NOTHING
    del of.ready[name]
    found = of.deliveries.get(name)
    if found is None:
        return NOTHING
    if found.claims - found.failures >= CRASHES_MAX:
        return Poisoned(of.bury(name, found, now))
    found.status = "delivering"
    found.attempts += 1
    found.claims += 1
    found.log[found.attempts] = now
    of.busy[name] = now
    batch = found.batch
    return Claimed(
        delivery_id=name,
        key=batch.key,
        attempt=found.attempts,
        failures=found.failures,
        reason=found.reason,
        policy=batch.policy,
        trace=batch.trace,
        created_ms=found.created_ms,
        messages=[(name, received_us // 1000, payload) for name, received_us, payload in batch.messages],
    )


def settle(state: State, at: Moment, outcomes: Sequence[Settle]) -> list[Next | NothingOpen | Fenced]:
    """settle.lua"""
    return [_settle(state.partition(wish.partition), at.ms, wish) for wish in outcomes]


def _settle(of: Partition, now: int, wish: Settle) -> Next | NothingOpen | Fenced:
    if fence := of.fence(wish.epoch):
        return fence
    name = wish.delivery_id
    found = of.deliveries.get(name)
    if found is None or found.status != "delivering" or found.attempts != wish.attempt:
        return NOTHING
    if wish.status == "held":
        raise ValueError("tasks are not simulated")
    of.busy.pop(name, None)
    found.status = wish.status
    found.log[wish.attempt] = wish.log
    if wish.status == "delivered":
        of.file_away(name, "done", now)
        return Next(of.leave_line(found, name, now))
    found.failures += 1
    if wish.status == "dead":
        return Next(of.bury(name, found, now))
    found.next_ms = of.ready[name] = now + wish.retry_in_ms
    return Next(None)


def release(state: State, at: Moment, releases: Sequence[Release]) -> list[Next | NothingOpen | Fenced]:
    """release.lua"""
    return [_release(state.partition(wish.partition), at.ms, wish) for wish in releases]


def _release(of: Partition, now: int, wish: Release) -> Next | NothingOpen | Fenced:
    if fence := of.fence(wish.epoch):
        return fence
    name = wish.delivery_id
    if name in of.busy:
        del of.busy[name]
        found = of.deliveries[name]
        found.status = "retrying" if found.failures > 0 else "pending"
        found.claims -= 1
    elif name not in of.ready:
        return NOTHING
    of.deliveries[name].next_ms = of.ready[name] = now + wish.in_ms
    return Next(None)


def requeue(  # noqa: PLR0911  as many answers as the script has
    state: State, at: Moment, wish: Claim
) -> Next | WrongState | NothingOpen | Fenced:
    """requeue.lua"""
    of, name, now = state.partition(wish.partition), wish.delivery_id, at.ms
    if fence := of.fence(wish.epoch):
        return fence
    found = of.deliveries.get(name)
    if found is None:
        return NOTHING
    again = Ready(wish.partition, name, found.batch.host, 0)
    if found.status == "dead":
        of.dead.pop(name, None)
        of.live[name] = found.created_ms
        found.status, found.claims, found.failures = "pending", 0, 0
        line = of.lines.setdefault(found.kid, [])
        line.append(name)
        if len(line) > 1:
            return Next(None)
        of.ready[name] = now
        return Next(again)
    if found.status not in ("retrying", "pending"):
        return WrongState(found.status)
    if name not in of.ready:
        return Next(None)
    of.ready[name] = found.next_ms = now
    return Next(again)


def discard(state: State, at: Moment, wish: Claim) -> Next | WrongState | NothingOpen | Fenced:
    """discard.lua"""
    of, name = state.partition(wish.partition), wish.delivery_id
    if fence := of.fence(wish.epoch):
        return fence
    found = of.deliveries.get(name)
    if found is None:
        return NOTHING
    if found.status not in ("pending", "retrying", "dead"):
        return WrongState(found.status)
    found.status, found.next_ms = "discarded", None
    of.ready.pop(name, None)
    of.dead.pop(name, None)
    of.file_away(name, "done", at.ms)
    return Next(of.leave_line(found, name, at.ms))
