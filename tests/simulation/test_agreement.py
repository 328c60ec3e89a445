"""The simulated store and the real one: the same requests, chance deciding which, get the same answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from actors.adapters.valkey import deliveries as adapter
from actors.adapters.valkey.keys import OWNERS, PREFIXES
from actors.adapters.valkey.replay import Replay, _reclose_arguments
from actors.adapters.valkey.scripts import load_all
from actors.adapters.valkey.store import ValkeyStore
from actors.core.ids import delivery_prefix, make_id
from actors.core.partition import PARTITIONS, locate
from actors.node_ports import NodeRecord, NodeReplaced
from actors.ports import Appended, Claim, Claimed, Close, Entry, Release, Settle
from tests.simulation import scripts_deliveries
from tests.simulation.scripts import READS, WRITES
from tests.simulation.state import Moment, State
from tests.support.doubles import changed
from tests.support.store import WINDOW_MS, connected, entry, keys_in
from tests.support.valkey import ValkeyServer

STEPS = 1500
FEW = 2
"""Claims that nobody settled, before a delivery is taken for poison."""
FAR_MS = 60_000
ROWS_MAX = 1000
UNSURE_MS = 25
"""A claim this close to the time from which it may be made could go either way: the two do not ask at once."""
TIMES = ("remaining_ms", "due_in_ms", "oldest_waiting_ms", "created_ms", "received_us")


@pytest.mark.parametrize("seed", range(2))
async def test_both_stores_give_the_same_answers(
    valkey: ValkeyServer, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of appends, closes, claims, settles, releases, changes of owner, retries, discards, restores of lost
    messages, beats and looks over three keys of two partitions: every answer is the same but for times."""
    monkeypatch.setattr(adapter, "CRASHES_MAX", FEW)
    monkeypatch.setattr(scripts_deliveries, "CRASHES_MAX", FEW)
    async with connected(valkey) as store:
        pair = Pair(store, Random(seed))  # noqa: S311  chance is the point here
        for _ in range(STEPS):
            await pair.step()
        await pair.look()
        assert pair.done >= WRITES.keys() - {"leave"}
        assert pair.seen >= {"Claimed", "Next", "Fenced", "WrongState", "Poisoned", "NotDue", "ClosedBatch"}


class Pair:
    """Both stores, and what is known of them. Asks the real one first: the simulated one is given its time."""

    def __init__(self, store: ValkeyStore, random: Random) -> None:
        self.store = store
        self.random = random
        self.state = State()
        self.keys = [*keys_in(3, 2), *keys_in(200, 1)]
        self.partitions = (3, 200)
        self.made: list[Entry] = []
        self.deliveries: list[str] = []
        self.attempts: dict[str, int] = {}
        self.done: set[str] = set()
        self.seen: set[str] = set()
        self.replay = Replay(load_all(), WINDOW_MS, apart=False)

    async def step(self) -> None:
        """One request, chance deciding which."""
        acts = (self._append, self._append, self._append, self._close, self._claim, self._claim, self._settle)
        rare = (self._release, self._cancel, self._acquire, self._hand_over, self._resign, self._requeue)
        act = self.random.choice(
            (*acts, *acts, *rare, self._requeue, self._discard, self._restore, self._turn_back, self._beat, self.look)
        )
        await act()

    async def look(self) -> None:
        """What both say of who owns what and of what waits."""
        real = await self.store.partitions.owners(self.partitions)
        await self._same("owners", real, self.partitions)
        due, ready = await self.store.partitions.sweep(self.partitions, 2 * FAR_MS, ROWS_MAX)
        at = Moment(await self._now_ms(), 0, 0.0)
        simulated_due, simulated_ready = READS["sweep"](self.state, at, self.partitions, 2 * FAR_MS, ROWS_MAX, {})
        assert _timeless(sorted(due, key=str)) == _timeless(sorted(simulated_due, key=str))
        assert {row.delivery_id for row in ready} == {row.delivery_id for row in simulated_ready}
        census = await self.store.partitions.census(self.partitions)
        simulated, _ = READS["census"](self.state, at, self.partitions)
        assert sorted(census.claimed) == sorted(simulated.claimed)
        assert (census.open_batches, census.undelivered) == (simulated.open_batches, simulated.undelivered)

    async def _append(self) -> None:
        entries = [self._entry() for _ in range(self.random.choice((1, 1, 3)))]
        self.made += entries
        real = await self.store.batches.append(entries)
        received_us = next(of.received_us for of in real if isinstance(of, Appended))
        self._closed(real)
        await self._same("append", real, WINDOW_MS, entries, us=received_us)

    async def _close(self) -> None:
        key = self.random.choice(self.keys)
        of = entry(key, "")
        batch = self.state.partition(of.partition).open.get(of.terms.kid)
        known = [name for name in self.deliveries if name.startswith(delivery_prefix(of.partition))]
        wish = Close(
            partition=of.partition,
            epoch=self._epoch(of.partition),
            kid=of.terms.kid,
            deadline_ms=self.random.choice((None, 0, batch.deadline_ms if batch else None)),
            reason="manual",
            batch_id=self.random.choice([self._delivery_id(of.partition), *known[:1]]),
        )
        real = await self.store.batches.close([wish])
        self._closed(real)
        await self._same("close", real, [wish])

    async def _claim(self) -> None:
        name = self._delivery()
        claim = self._named(name)
        ready_ms = self.state.partition(claim.partition).ready.get(name, 0)
        early_ms = ready_ms - await self._now_ms() - scripts_deliveries.EARLY_MS
        if abs(early_ms) <= UNSURE_MS:
            return
        real = await self.store.deliveries.work([claim])
        if isinstance(real[0], Claimed):
            self.attempts[name] = real[0].attempt
        await self._same("claim", real, [claim])

    async def _settle(self) -> None:
        name = self._delivery()
        claim, random = self._named(name), self.random
        wish = Settle(
            partition=claim.partition,
            epoch=claim.epoch,
            delivery_id=name,
            attempt=self.attempts.get(name, 1),
            status=random.choice(("delivered", "retrying", "retrying", "dead")),
            log=b"{}",
            retry_in_ms=random.choice((0, FAR_MS)),
        )
        await self._same("settle", await self.store.deliveries.work([wish]), [wish])

    async def _release(self) -> None:
        claim = self._named(self._delivery())
        wish = Release(
            partition=claim.partition,
            epoch=claim.epoch,
            delivery_id=claim.delivery_id,
            in_ms=self.random.choice((0, 0, FAR_MS)),
        )
        await self._same("release", await self.store.deliveries.release([wish]), [wish])

    async def _cancel(self) -> None:
        of = entry(self.random.choice(self.keys), "")
        epoch = self._epoch(of.partition)
        real = await self.store.batches.cancel(of.partition, epoch, of.terms.kid)
        await self._same("cancel", real, of.partition, epoch, of.terms.kid)

    async def _requeue(self) -> None:
        claim = self._named(self._delivery())
        await self._same("requeue", await self.store.deliveries.requeue(claim), claim)

    async def _discard(self) -> None:
        claim = self._named(self._delivery())
        if self.random.random() < 0.3:
            await self._same("discard", await self.store.deliveries.discard(claim), claim)

    async def _acquire(self) -> None:
        partition, node = self.random.choice(self.partitions), self.random.choice(("node-1", "node-2"))
        wanted, before = [(partition, self._epoch(partition))], self.state.partition(partition).epoch
        real = await self.store.partitions.acquire(node, 0, wanted)
        us = real[0].epoch if real[0].epoch != before else None
        await self._same("acquire", real, node, 0, wanted, us=us)

    async def _hand_over(self) -> None:
        partition, node = self.random.choice(self.partitions), self.random.choice(("node-1", "node-2"))
        moves, before = [(partition, self._epoch(partition), node)], self.state.partition(partition).epoch
        real = await self.store.partitions.hand_over(moves)
        us = real[0].epoch if real[0].epoch != before else None
        await self._same("hand_over", real, moves, us=us)

    async def _resign(self) -> None:
        partition = self.random.choice(self.partitions)
        held = [(partition, self._epoch(partition))]
        await self.store.partitions.resign(held)
        await self._same("resign", None, held)

    async def _turn_back(self) -> None:
        key = self.random.choice(self.keys)
        partition = locate(key)[1]
        turned = [(partition, self._epoch(partition), FAR_MS // 2)]
        arguments = [PREFIXES[partition], *turned[0][1:]]
        (reply,) = await self._script("turn_back", arguments, [entry(key, "")])
        await self._same("turn_back", [reply[0] == b"OK"], turned)

    async def _restore(self) -> None:
        """A message of long ago, one of now, and one that is known; then what they filled is closed."""
        now_us = 1000 * await self._now_ms()
        fresh = [replace(self._entry(), received_us=now_us - self.random.randrange(5_000_000)) for _ in range(3)]
        entries = [*fresh, *[replace(of, received_us=now_us) for of in self.made[-1:]]]
        self.made += fresh
        added = await self._script("restore", self.replay._restore_arguments(entries), entries)
        await self._same("restore", [bool(each) for each in added], WINDOW_MS, entries)
        entries = [replace(of, batch_id=self._delivery_id(of.partition)) for of in fresh]
        (closed,) = await self._script("reclose", _reclose_arguments(entries), entries)
        await self._same("reclose", closed, entries)
        self.deliveries += [
            of.batch_id for of in entries if of.batch_id in self.state.partition(of.partition).deliveries
        ]

    async def _beat(self) -> None:
        random = self.random
        own = NodeRecord(
            node=random.choice(("a", "b")), incarnation=random.choice(("x", "y")), beat=random.randint(1, 3)
        )
        buried = [NodeRecord(node="b", incarnation="x", beat=random.randint(1, 3))]
        try:
            real: Any = list(await self.store.membership.beat(own, buried, []))
        except NodeReplaced as error:
            real = error
        at = Moment(0, 0, 0.0)
        simulated = WRITES["beat"](self.state, at, own, buried, [])
        assert isinstance(real, Exception) == isinstance(simulated, Exception), (real, simulated)
        if not isinstance(real, Exception):
            assert sorted(real, key=str) == sorted(simulated, key=str)
        self.done.add("beat")

    async def _script(self, name: str, arguments: list[Any], entries: Sequence[Entry]) -> list[Any]:
        keys = [OWNERS[partition] for partition in {of.partition for of in entries}]
        source = self.replay._scripts[name].source
        return cast(list[Any], await self.store.hot.call("EVAL", source, len(keys), *keys, *arguments))

    async def _same(self, name: str, real: object, *arguments: Any, us: int | None = None) -> None:
        """Run it in the simulated store at the real one's time, and compare."""
        at_us = 1000 * await self._now_ms() if us is None else us
        script: Callable[..., Any] = {**WRITES, **READS}[name]
        simulated = script(self.state, Moment(at_us // 1000, at_us, 0.0), *arguments)
        assert _timeless(simulated) == _timeless(real), (name, arguments)
        self.done.add(name)
        self.seen.update(type(each).__name__ for each in (real if isinstance(real, list) else [real]))

    async def _now_ms(self) -> int:
        seconds, micros = await self.store.hot.call("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    def _entry(self) -> Entry:
        random = self.random
        key = random.choice(self.keys)
        plain = entry(key, f"m{random.randrange(60)}", b"x" * random.choice((1, 10, 30)))
        return changed(
            plain,
            max_size=random.choice((1, 2, 3, 5)),
            max_bytes=random.choice((50, 10_000)),
            max_wait_ms=random.choice((0, 0, 2 * FAR_MS)),
            batch_id=self._delivery_id(plain.partition),
        )

    def _epoch(self, partition: int) -> int:
        """The owner's, as a rule."""
        return self.state.partition(partition).epoch - (self.random.random() < 0.1)

    def _named(self, name: str) -> Claim:
        partition = int(name[4:6], 16)
        return Claim(partition=partition, epoch=self._epoch(partition), delivery_id=name)

    def _delivery(self) -> str:
        """One at the head of its line as a rule; else any of late, or one that does not exist."""
        parts = [self.state.partition(partition) for partition in self.partitions]
        heads = sorted(name for of in parts for name in (*of.ready, *of.busy))
        return self.random.choice([*heads, *heads, *self.deliveries[-3:], self._delivery_id(3)])

    def _delivery_id(self, partition: int) -> str:
        return make_id(delivery_prefix(partition), 1_800_000_000_000, self.random.randbytes(10))

    def _closed(self, outcomes: Sequence[Any]) -> None:
        for outcome in outcomes:
            closed = getattr(outcome, "closed", outcome)
            name = getattr(closed, "delivery_id", "")
            if name and name not in self.deliveries:
                self.deliveries.append(name)


def _timeless(answer: object) -> object:
    """An answer without what depends on the moment; times of messages are times of appends and stay."""
    plain = msgspec.to_builtins(answer)

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: walk(each) for name, each in value.items() if name not in TIMES}
        return [walk(each) for each in value] if isinstance(value, list | tuple) else value

    return type(answer).__name__ in {"list", "tuple"}, walk(plain)


def test_the_simulated_store_has_the_real_ones_limits() -> None:
    """They are written down twice."""
    assert scripts_deliveries.CRASHES_MAX == adapter.CRASHES_MAX
    assert PARTITIONS == 256
