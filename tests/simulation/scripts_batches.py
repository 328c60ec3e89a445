"""Batch scripts: what the Lua scripts of open batches do, as functions of state, moment and arguments."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from actors.core.policy import Reason
from actors.ports import Appended, Close, ClosedBatch, Entry, Fenced, NotDue, NothingOpen
from tests.simulation.state import Batch, Moment, Partition, State

NOTHING = NothingOpen()


def append(state: State, at: Moment, window_ms: int, entries: Sequence[Entry]) -> list[Appended]:
    """append.lua"""
    return [_append(state.partition(entry.partition), at, window_ms, entry) for entry in entries]


def _seen(of: Partition, now: int, window_ms: int, entry: Entry) -> bool:
    """Whether a message is known; it is from now on."""
    bucket = now // window_ms
    before = of.window(bucket - 1, now)
    if before is not None and entry.dedupe in before:
        return True
    batch = of.open.get(entry.terms.kid)
    old = batch if batch is not None and now - batch.first_ms > window_ms else None
    if old is not None and any(name == entry.message_id for name, _, _ in old.messages):
        return True
    ids = of.window(bucket, now) or set()
    if entry.dedupe in ids:
        return True
    ids.add(entry.dedupe)
    of.windows[bucket] = (now + 2 * window_ms, ids)
    return False


def _append(of: Partition, at: Moment, window_ms: int, entry: Entry) -> Appended:
    now = at.ms
    batch = of.open.get(entry.terms.kid)
    seen = _seen(of, now, window_ms, entry)
    if seen:
        if batch is None:
            return Appended(0, 0, 0, 0, True, None, at.us)
        left_ms = max(batch.deadline_ms - now, 0)
        return Appended(len(batch.messages), batch.size_bytes, left_ms, batch.deadline_ms, True, None, at.us)
    if batch is None:
        batch = of.open[entry.terms.kid] = Batch(
            key=entry.terms.key, first_ms=now, deadline_ms=0, policy=b"", host="", trace="",
            messages=[], size_bytes=0, born_s=at.true_s,
        )  # fmt: skip
    batch.messages.append((entry.message_id, at.us, entry.payload))
    batch.size_bytes += len(entry.payload)
    batch.policy, batch.host, batch.trace = entry.terms.policy, entry.terms.host, entry.trace
    if entry.terms.max_wait_ms > 0:
        batch.deadline_ms = min(now + entry.terms.wait_ms, batch.first_ms + entry.terms.max_wait_ms)
    elif len(batch.messages) == 1:
        batch.deadline_ms = now + entry.terms.wait_ms
    size, size_bytes, deadline_ms = len(batch.messages), batch.size_bytes, batch.deadline_ms
    full = size >= entry.terms.max_size
    if full or size_bytes >= entry.terms.max_bytes:
        reason: Reason = "size" if full else "bytes"
        first = of.freeze(entry.terms.kid, entry.batch_id, reason, now)
        closed = ClosedBatch(entry.batch_id, size, entry.terms.host, reason, first)
        return Appended(size, size_bytes, 0, deadline_ms, False, closed, at.us)
    return Appended(size, size_bytes, max(deadline_ms - now, 0), deadline_ms, False, None, at.us)


def restore(state: State, at: Moment, window_ms: int, entries: Sequence[Entry]) -> list[bool]:
    """restore.lua"""
    return [_restore(state.partition(entry.partition), at, window_ms, entry) for entry in entries]


def _restore(of: Partition, at: Moment, window_ms: int, entry: Entry) -> bool:
    received_us = entry.received_us or at.us
    received_ms = received_us // 1000
    if _seen(of, at.ms, window_ms, entry):
        return False
    batch = of.open.get(entry.terms.kid)
    if batch is None:
        batch = of.open[entry.terms.kid] = Batch(
            key=entry.terms.key, first_ms=received_ms, deadline_ms=0, policy=b"", host="", trace="",
            messages=[], size_bytes=0, born_s=at.true_s,
        )  # fmt: skip
    place = len(batch.messages)
    while place and batch.messages[place - 1][1] > received_us:
        place -= 1
    batch.messages.insert(place, (entry.message_id, received_us, entry.payload))
    batch.size_bytes += len(entry.payload)
    if place == 0:
        batch.first_ms = received_ms
    if entry.terms.max_wait_ms > 0:
        latest = max(batch.deadline_ms, received_ms + entry.terms.wait_ms)
        batch.deadline_ms = min(latest, batch.first_ms + entry.terms.max_wait_ms)
    elif place == 0:
        batch.deadline_ms = received_ms + entry.terms.wait_ms
    if place == len(batch.messages) - 1:
        batch.policy, batch.host, batch.trace = entry.terms.policy, entry.terms.host, entry.trace
    return True


def reclose(state: State, at: Moment, entries: Sequence[Entry]) -> int:
    """reclose.lua"""
    return sum(_reclose(state.partition(entry.partition), at, entry) for entry in entries)


def _reclose(of: Partition, at: Moment, entry: Entry) -> bool:
    batch = of.open.get(entry.terms.kid)
    if batch is None or entry.batch_id in of.deliveries:
        return False
    size_bytes = 0
    for count, (_, _, payload) in enumerate(batch.messages, 1):
        size_bytes += len(payload)
        if count >= entry.terms.max_size or size_bytes >= entry.terms.max_bytes:
            break
    else:
        return False
    left = batch.messages[count:]
    rest = replace(batch, messages=left, size_bytes=batch.size_bytes - size_bytes) if left else None
    batch.messages, batch.size_bytes = batch.messages[:count], size_bytes
    of.freeze(entry.terms.kid, entry.batch_id, "size" if count >= entry.terms.max_size else "bytes", at.ms)
    if rest is not None:
        rest.first_ms = left[0][1] // 1000
        if entry.terms.max_wait_ms <= 0:
            rest.deadline_ms = rest.first_ms + entry.terms.wait_ms
        of.open[entry.terms.kid] = rest
    return True


def close(state: State, at: Moment, closes: Sequence[Close]) -> list[ClosedBatch | NotDue | NothingOpen | Fenced]:
    """close.lua"""
    return [_close(state.partition(wish.partition), at, wish) for wish in closes]


def _close(of: Partition, at: Moment, wish: Close) -> ClosedBatch | NotDue | NothingOpen | Fenced:
    if fence := of.fence(wish.epoch):
        return fence
    name = wish.batch_id
    known = of.deliveries.get(name)
    if known is not None:
        first = of.lines.get(wish.kid, [])[:1] == [name]
        return ClosedBatch(name, len(known.batch.messages), known.batch.host, wish.reason, first)
    batch = of.open.get(wish.kid)
    if batch is None:
        return NOTHING
    if wish.deadline_ms is not None and batch.deadline_ms > wish.deadline_ms:
        return NotDue(max(batch.deadline_ms - at.ms, 0), batch.deadline_ms)
    first = of.freeze(wish.kid, name, wish.reason, at.ms)
    return ClosedBatch(name, len(batch.messages), batch.host, wish.reason, first)


def cancel(state: State, at: Moment, partition: int, epoch: int, kid: str) -> int | NothingOpen | Fenced:
    """cancel.lua"""
    of = state.partition(partition)
    if fence := of.fence(epoch):
        return fence
    batch = of.open.pop(kid, None)
    return NOTHING if batch is None else len(batch.messages)
