"""Two keys of one partition through any life that hypothesis thinks of: the real scripts against a model.

After every step the store shows what the model says. Beside the model a ledger, which knows nothing of the rules,
holds what was accepted against what was handed out: nothing lost, nothing twice without a crash, in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from actors.adapters.valkey import deliveries as adapter
from actors.core.partition import locate
from actors.ports import (
    Appended,
    Census,
    Claimed,
    ClosedBatch,
    Entry,
    Fenced,
    Next,
    NotDue,
    NothingOpen,
    Poisoned,
    WrongState,
)
from tests.support.store import (
    HOST,
    IDS,
    Hand,
    all_deliveries,
    all_open,
    connected,
    dump,
    entry,
    keys_in,
    ready_now,
    stored,
)
from tests.support.valkey import ValkeyServer

PARTITION = 77
CRASHES_MAX = 2
"""Fewer than in earnest, so that poison is met within the steps of one life."""
KEYS = tuple(keys_in(PARTITION, 2))
YEAR_MS = 31_536_000_000
T = TypeVar("T")

keys = st.sampled_from(KEYS)
any_one = st.integers(0, 1000)
"""Chooses among what there is, whatever that is by then."""
options = st.fixed_dictionaries(
    {
        "max_size": st.sampled_from([1, 2, 3, 5]),
        "max_bytes": st.sampled_from([10_000, 60, 20]),
        "wait_ms": st.sampled_from([1000, 60_000]),
        "max_wait_ms": st.sampled_from([0, 0, 90_000]),
    }
)
messages = st.tuples(keys, st.none() | any_one, st.sampled_from([10, 20, 30]), options)


@dataclass
class Delivery:
    """A frozen batch, as it must be."""

    key: str
    messages: list[tuple[str, bytes]]
    reason: str
    status: str = "pending"
    attempts: int = 0
    failures: int = 0
    unsettled: int = 0
    """Claims since it was last queued that nobody settled."""


@dataclass
class Line:
    """One key: its open batch, and its deliveries that are neither delivered nor dead."""

    open: list[tuple[str, bytes]] = field(default_factory=list)
    began_ms: int = 0
    deadline_ms: int = 0
    waiting: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)


@dataclass
class Ledger:
    """What was accepted, dropped and handed out, by key and message id."""

    accepted: dict[str, list[str]] = field(default_factory=lambda: {key: [] for key in KEYS})
    dropped: set[tuple[str, str]] = field(default_factory=set)
    handed: dict[str, Claimed] = field(default_factory=dict)
    """By delivery, as it was handed out first, in that order."""
    in_hand: set[str] = field(default_factory=set)
    came_back: set[str] = field(default_factory=set)
    """Dead deliveries that were tried again: they have lost their place."""

    def hand_out(self, claimed: Claimed) -> None:
        """Note a claim: not while another has it, and always the same content."""
        name = claimed.delivery_id
        assert name not in self.in_hand, "handed out twice without a crash"
        self.in_hand.add(name)
        first = self.handed.setdefault(name, claimed)
        assert (first.messages, first.policy, first.reason) == (claimed.messages, claimed.policy, claimed.reason)

    def check(self) -> None:
        """No message in two batches; in order within and across the batches of a key."""
        seen = [(claimed.key, name) for claimed in self.handed.values() for name, _, _ in claimed.messages]
        assert len(seen) == len(set(seen)), "a message in two batches"
        for key, accepted in self.accepted.items():
            places = [
                accepted.index(name)
                for delivery, claimed in self.handed.items()
                if claimed.key == key and delivery not in self.came_back
                for name, _, _ in claimed.messages
            ]
            assert places == sorted(places), "out of order"


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _open(machine: StoreMachine) -> bool:
    return any(line.open for line in machine.lines.values())


def _may_start(machine: StoreMachine) -> bool:
    return any(machine.startable(name, delivery) for name, delivery in machine.deliveries.items())


def _in_hand(machine: StoreMachine) -> bool:
    return any(delivery.status == "delivering" for delivery in machine.deliveries.values())


class StoreMachine(RuleBasedStateMachine):
    """The rules; each does one thing to the store and to the model."""

    def __init__(self, server: ValkeyServer) -> None:
        super().__init__()
        server.command("FLUSHALL")
        self.runner = asyncio.Runner()
        self.resources = AsyncExitStack()
        self.store = self.run(self.resources.enter_async_context(connected(server)))
        self.hand = Hand(server, self.store)
        self.old_epochs: list[int] = [0]
        self.run(self.hand.take(PARTITION))
        self.lines = {key: Line() for key in KEYS}
        self.deliveries: dict[str, Delivery] = {}
        self.ledger = Ledger()

    def run(self, work: Awaitable[T]) -> T:
        return self.runner.run(_awaited(work))

    @rule(batch=st.lists(messages, min_size=1, max_size=4))
    def append(self, batch: list[tuple[str, int | None, int, dict[str, int]]]) -> None:
        """Fresh messages and ones that were sent before, in one call."""
        entries = []
        for number, (key, again, size, chosen) in enumerate(batch):
            accepted = self.ledger.accepted[key]
            fresh = again is None or not accepted
            name = f"m{len(accepted)}-{number}" if fresh else accepted[(again or 0) % len(accepted)]
            entries.append(entry(key, name, name.encode().ljust(size), **chosen))
        for sent, outcome in zip(entries, stored(self.run(self.store.batches.append(entries))), strict=True):
            self.appended(sent, outcome)

    def appended(self, sent: Entry, outcome: Appended) -> None:
        line = self.lines[sent.terms.key]
        if sent.message_id in line.known:
            assert (outcome.duplicate, outcome.closed) == (True, None)
            assert (outcome.size, outcome.size_bytes) == (len(line.open), _bytes(line))
            assert outcome.deadline_ms == (line.deadline_ms if line.open else 0)
            return
        line.known.add(sent.message_id)
        self.ledger.accepted[sent.terms.key].append(sent.message_id)
        line.open.append((sent.message_id, sent.payload))
        assert (outcome.duplicate, outcome.size, outcome.size_bytes) == (False, len(line.open), _bytes(line))
        self.check_deadline(line, sent, outcome)
        reason = (
            "size"
            if len(line.open) >= sent.terms.max_size
            else "bytes"
            if _bytes(line) >= sent.terms.max_bytes
            else None
        )
        if reason is None:
            assert outcome.closed is None
        else:
            self.froze(sent.terms.key, sent.batch_id, reason, outcome.closed)

    def check_deadline(self, line: Line, sent: Entry, outcome: Appended) -> None:
        """Deadlines are the store's own; the model knows how they move."""
        if len(line.open) == 1:
            line.began_ms = outcome.deadline_ms - sent.terms.wait_ms
        elif sent.terms.max_wait_ms == 0:
            assert outcome.deadline_ms == line.deadline_ms
        else:
            assert line.began_ms < outcome.deadline_ms <= line.began_ms + sent.terms.max_wait_ms
        line.deadline_ms = outcome.deadline_ms
        assert outcome.closed is not None or 0 < outcome.remaining_ms <= max(line.deadline_ms - line.began_ms, 1)

    def froze(self, key: str, name: str, reason: str, closed: object) -> None:
        line = self.lines[key]
        assert closed == ClosedBatch(name, len(line.open), HOST, reason, not line.waiting)  # type: ignore[arg-type]  # reason
        self.deliveries[name] = Delivery(key, line.open, reason)
        line.open = []
        line.waiting.append(name)

    @precondition(_open)
    @rule(key=keys, how=st.sampled_from(["due", "early", "manual"]))
    def close(self, key: str, how: str) -> None:
        """A timer that is right, one that is wrong, somebody who asks."""
        line, name = self.lines[key], IDS.delivery_id(PARTITION)
        believed = {"due": line.deadline_ms, "early": line.deadline_ms - 1}.get(how)
        reason = "manual" if how == "manual" else "timeout"
        answer = self.run(self.hand.close(key, believed, reason, name))  # type: ignore[arg-type]  # one of two reasons
        if not line.open:
            assert answer == NothingOpen()
        elif how == "early":
            assert isinstance(answer, NotDue)
            assert answer.deadline_ms == line.deadline_ms
        else:
            self.froze(key, name, reason, answer)

    @precondition(lambda self: self.deliveries)
    @rule(which=any_one)
    def close_again(self, which: int) -> None:
        """A close whose answer was lost."""
        name, delivery = self.pick(which)
        answer = self.run(self.hand.close(delivery.key, None, delivery.reason, name))  # type: ignore[arg-type]  # reason
        first = self.lines[delivery.key].waiting[:1] == [name]
        assert answer == ClosedBatch(name, len(delivery.messages), HOST, delivery.reason, first)  # type: ignore[arg-type]

    @precondition(_open)
    @rule(key=keys)
    def cancel(self, key: str) -> None:
        """Somebody drops the open batch."""
        line = self.lines[key]
        assert self.run(self.hand.cancel(key)) == (len(line.open) or NothingOpen())
        self.ledger.dropped |= {(key, name) for name, _ in line.open}
        line.open = []

    @precondition(_may_start)
    @rule(which=any_one)
    def claim(self, which: int) -> None:
        """An attempt begins, if it may."""
        name, delivery = self.pick(which, self.startable)
        self.run(self.hand.make_due(name))
        answer = self.run(self.hand.claim(name))
        if self.lines[delivery.key].waiting[:1] != [name] or delivery.status == "delivering":
            assert answer == NothingOpen()
        elif delivery.unsettled == CRASHES_MAX:
            assert answer == Poisoned(self.left(name, "dead"))
        else:
            delivery.attempts += 1
            delivery.unsettled += 1
            delivery.status = "delivering"
            assert isinstance(answer, Claimed)
            assert [(message, payload) for message, _, payload in answer.messages] == delivery.messages
            assert (answer.attempt, answer.failures) == (delivery.attempts, delivery.failures)
            assert (answer.key, answer.reason) == (delivery.key, delivery.reason)
            self.ledger.hand_out(answer)

    @precondition(_in_hand)
    @rule(which=any_one, status=st.sampled_from(["delivered", "retrying", "dead"]))
    def settle(self, which: int, status: str) -> None:
        """An attempt ends."""
        name, delivery = self.pick(which, _under_way)
        answer = self.run(self.hand.settle(name, delivery.attempts, status, retry_in_ms=1000))
        if delivery.status != "delivering":
            assert answer == NothingOpen()
            return
        self.ledger.in_hand.discard(name)
        delivery.unsettled -= 1
        delivery.failures += status != "delivered"
        delivery.status = status
        assert answer == Next(None if status == "retrying" else self.left(name, status))

    @precondition(_may_start)
    @rule(statuses=st.lists(st.sampled_from(["delivered", "retrying", "dead", "crash"]), min_size=1, max_size=4))
    def attempts(self, statuses: list[str]) -> None:
        """Several attempts in a row, each of one delivery that may start."""
        for status in statuses:
            self.claim(0)
            if status == "crash":
                self.crash()
            else:
                self.settle(0, status)

    @precondition(_in_hand)
    @rule(which=any_one, status=st.sampled_from(["delivered", "retrying", "dead"]))
    def settle_late(self, which: int, status: str) -> None:
        """The outcome of an older attempt comes when another is under way."""
        name, delivery = self.pick(which, _under_way)
        assert self.run(self.hand.settle(name, delivery.attempts - 1, status)) == NothingOpen()

    @precondition(_in_hand)
    @rule(which=any_one)
    def release(self, which: int) -> None:
        """A stopping node gives back what it has in hand, or puts off what it has not."""
        name, delivery = self.pick(which, _under_way)
        answer = self.run(self.hand.release(name))
        if self.lines[delivery.key].waiting[:1] != [name]:
            assert answer == NothingOpen()
            return
        assert answer == Next(None)
        if delivery.status == "delivering":
            self.ledger.in_hand.discard(name)
            delivery.unsettled -= 1
            delivery.status = "retrying" if delivery.failures else "pending"

    @precondition(lambda self: self.deliveries)
    @rule(which=any_one)
    def requeue(self, which: int) -> None:
        """Somebody wants a delivery to be tried again."""
        name, delivery = self.pick(which, lambda _, of: of.status == "dead")
        line = self.lines[delivery.key]
        answer = self.run(self.hand.requeue(name))
        if delivery.status in {"delivering", "delivered", "discarded"}:
            assert answer == WrongState(delivery.status)  # type: ignore[arg-type]  # a status
            return
        if delivery.status == "dead":
            line.waiting.append(name)
            delivery.status = "pending"
            delivery.failures = delivery.unsettled = 0
            self.ledger.came_back.add(name)
        assert answer == Next(ready_now(name) if line.waiting[0] == name else None)

    @precondition(lambda self: self.deliveries)
    @rule(which=any_one)
    def discard(self, which: int) -> None:
        """Somebody gives a delivery up."""
        name, delivery = self.pick(which)
        answer = self.run(self.hand.discard(name))
        if delivery.status in {"delivering", "delivered", "discarded"}:
            assert answer == WrongState(delivery.status)  # type: ignore[arg-type]  # a status
        else:
            assert answer == Next(self.left(name, "discarded"))

    @precondition(_in_hand)
    @rule()
    def crash(self) -> None:
        """The owner dies and a new one takes over: what was in hand may start again."""
        self.old_epochs.append(self.hand.epochs[PARTITION])
        self.run(self.hand.take(PARTITION))
        assert self.hand.epochs[PARTITION] > self.old_epochs[-1]
        self.ledger.in_hand.clear()
        for delivery in self.deliveries.values():
            if delivery.status == "delivering":
                delivery.status = "retrying" if delivery.failures else "pending"

    @precondition(lambda self: self.deliveries)
    @rule(which=any_one, key=keys, epoch=any_one)
    def zombie(self, which: int, key: str, epoch: int) -> None:
        """A dead owner wakes up and does what it was about to do: everything is refused."""
        held = self.hand.epochs[PARTITION]
        before = dump(self.hand.server)
        name, delivery = self.pick(which)
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: self.hand.close(key, None),
            lambda: self.hand.cancel(key),
            lambda: self.hand.claim(name),
            lambda: self.hand.settle(name, delivery.attempts, "delivered"),
            lambda: self.hand.release(name),
            lambda: self.hand.requeue(name),
            lambda: self.hand.discard(name),
        ]
        self.hand.epochs[PARTITION] = self.old_epochs[epoch % len(self.old_epochs)]
        for write in writes:
            assert self.run(write()) == Fenced(held, "node-1")
        self.hand.epochs[PARTITION] = held
        assert dump(self.hand.server) == before

    @invariant()
    def the_store_shows_what_the_model_says(self) -> None:
        """Open batches, deliveries, what may start, and how much waits."""
        for key, line in self.lines.items():
            batch = self.run(self.store.batches.peek(key))
            assert [(name, payload) for name, _, payload in (batch.messages if batch else ())] == line.open
        listed = {batch.key: (batch.size, batch.size_bytes) for batch in self.run(all_open(self.store, limit=1))}
        assert listed == {key: (len(line.open), _bytes(line)) for key, line in self.lines.items() if line.open}
        assert {
            (row.delivery_id, row.key, row.status, row.size, row.reason, len(row.attempts))
            for row in self.run(all_deliveries(self.store, limit=3))
        } == {
            (name, of.key, of.status, len(of.messages), of.reason, of.attempts) for name, of in self.deliveries.items()
        }
        ready = self.run(self.hand.ready(PARTITION, ahead_ms=YEAR_MS))
        heads = [line.waiting[0] for line in self.lines.values() if line.waiting]
        assert {of.delivery_id for of in ready} == {h for h in heads if self.deliveries[h].status != "delivering"}
        census: Census = self.run(self.store.partitions.census([PARTITION]))
        assert (census.open_batches, census.undelivered, set(census.claimed)) == (
            len(listed),
            sum(len(line.waiting) for line in self.lines.values()),
            {name for name, of in self.deliveries.items() if of.status == "delivering"},
        )
        self.ledger.check()

    def teardown(self) -> None:
        """Deliver everything: each accepted message is somewhere, once."""
        try:
            self.crash()
            self.deliver_all()
            self.ledger.check()
            ended: dict[str, set[tuple[str, str]]] = {"delivered": set(), "dead": set(), "discarded": set()}
            for of in self.deliveries.values():
                ended[of.status] |= {(of.key, name) for name, _ in of.messages}
            accepted = [(key, name) for key, names in self.ledger.accepted.items() for name in names]
            found = [*self.ledger.dropped, *(message for group in ended.values() for message in group)]
            assert sorted(found) == sorted(accepted)
            assert ended["delivered"] <= {
                (claimed.key, name) for claimed in self.ledger.handed.values() for name, _, _ in claimed.messages
            }
        finally:
            self.run(self.resources.aclose())
            self.runner.close()

    def deliver_all(self) -> None:
        for key in KEYS:
            self.close(key, "due")
        while ready := self.run(self.hand.ready(PARTITION, ahead_ms=YEAR_MS)):
            number = 4 * list(self.deliveries).index(ready[0].delivery_id) + 3
            self.claim(number)
            self.settle(number, "delivered")
        self.the_store_shows_what_the_model_says()

    def pick(
        self, which: int, preferred: Callable[[str, Delivery], bool] = lambda _name, _of: True
    ) -> tuple[str, Delivery]:
        """One of the deliveries; three times of four one of the preferred, if there is any."""
        rows = list(self.deliveries.items())
        best = [(name, delivery) for name, delivery in rows if preferred(name, delivery)]
        chosen = best if best and which % 4 < 3 else rows
        return chosen[which // 4 % len(chosen)]

    def startable(self, name: str, delivery: Delivery) -> bool:
        return self.lines[delivery.key].waiting[:1] == [name] and delivery.status != "delivering"

    def left(self, name: str, status: str) -> Any:
        """A delivery leaves its line; what may start now, if it was at the head."""
        delivery = self.deliveries[name]
        delivery.status = status
        waiting = self.lines[delivery.key].waiting
        was_head = waiting[:1] == [name]
        if name in waiting:
            waiting.remove(name)
        return ready_now(waiting[0]) if was_head and waiting else None


def _under_way(_: str, delivery: Delivery) -> bool:
    return delivery.status == "delivering"


def _bytes(line: Line) -> int:
    return sum(len(payload) for _, payload in line.open)


def test_the_keys_share_a_partition() -> None:
    """Or they would not meet in the same scripts."""
    assert {locate(key)[1] for key in KEYS} == {PARTITION}


def lives(server: ValkeyServer, bounds: settings) -> None:
    """Any sequences of appends, timers, claims, outcomes, crashes and wishes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "CRASHES_MAX", CRASHES_MAX)
        run_state_machine_as_test(partial(StoreMachine, server), settings=bounds)  # type: ignore[arg-type]  # a factory


def test_the_store_does_what_the_model_says(any_store: ValkeyServer) -> None:
    """Whatever happens to two keys, in whatever order."""
    lives(any_store, settings(max_examples=12, stateful_step_count=30, deadline=None))
