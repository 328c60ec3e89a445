"""Clients: each owns one key and sends its messages one after the other, to any node, until one says that it has it.

What nobody answered is sent again under its old id, to another node; now and then a client loses patience and goes on
with the next message. What it was told is the audit's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import msgspec
from msgspec import Struct

from actors.core.ids import derived_delivery_id
from actors.core.intake import Limits
from actors.core.partition import dedupe_id, locate
from actors.core.policy import BufferOptions, Policy, Webhook
from actors.core.terms import terms_of
from actors.ports import Appended, Entry
from tests.simulation.cluster import Act, Cluster
from tests.support.until import passing

PATIENCE_S = 1.5
TRIES = 3
HOSTS = ("a.example", "b.example", "c.example")


class Habit(Struct, frozen=True, kw_only=True):
    """How a client sends: its key's options, and how often."""

    key: str
    host: str
    wait_ms: int
    max_wait_ms: int
    max_size: int
    messages: int
    pause_s: float


def habits(random: Random, clients: int, load_s: float) -> list[Habit]:
    """What the clients of a run are like."""
    made = []
    for number in range(clients):
        wait_ms = random.choice((50, 200, 500, 1000, 3000))
        messages = random.randint(4, 16)
        made.append(
            Habit(
                key=f"key-{number}-{random.randrange(1 << 16)}",
                host=random.choice(HOSTS),
                wait_ms=wait_ms,
                max_wait_ms=random.choice((0, 0, 3 * wait_ms)),
                max_size=random.choice((1, 2, 3, 5, 10)),
                messages=messages,
                pause_s=load_s / messages,
            )
        )
    return made


class Client:
    """One sequence of messages of one key."""

    def __init__(self, cluster: Cluster, habit: Habit) -> None:
        self._cluster = cluster
        self._habit = habit
        self._random = cluster.random
        webhook = Webhook(url=f"https://{habit.host}/hook")
        self._policy = msgspec.json.encode(Policy(webhook=webhook, buffer=BufferOptions(key=habit.key)))

    async def run(self) -> None:
        """Send everything."""
        for number in range(self._habit.messages):
            await passing(self._random.expovariate(1 / self._habit.pause_s))
            await self._send(number)

    async def _send(self, number: int) -> None:
        cluster, random = self._cluster, self._random
        entry = self._entry(number)
        cluster.audit.sends(entry, number)
        patient = random.random() < 0.95
        while True:
            name = random.choice(list(cluster.nodes))
            answered: asyncio.Future[Appended | Exception] = cluster.loop.create_future()
            cluster.request(name, entry, answered)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    outcome = await answered
            except TimeoutError:
                outcome = TimeoutError()
            if isinstance(outcome, Appended):
                cluster.audit.acknowledged(name, entry, number)
                return
            cluster.trace.note("client", "retries", (entry.message_id, name, type(outcome).__name__))
            if not patient:
                return
            await passing(random.uniform(0.02, 0.2))

    def _entry(self, number: int) -> Entry:
        habit = self._habit
        limits = Limits(habit.wait_ms, habit.max_wait_ms, habit.max_size, 1 << 20)
        terms = terms_of(habit.key, self._policy, limits, habit.host)
        message_id = f"{habit.key}/{number}"
        return Entry(
            terms=terms,
            message_id=message_id,
            dedupe=dedupe_id(terms.kid, message_id),
            payload=b'{"n":%d}' % number,
            trace="",
            batch_id="",
        )


class Operator:
    """Somebody who flushes and drops batches and retries and discards deliveries, on any node, now and then."""

    def __init__(self, cluster: Cluster, keys: Sequence[str], acts: int, load_s: float) -> None:
        self._cluster = cluster
        self._keys = keys
        self._acts = acts
        self._load_s = load_s

    async def run(self) -> None:
        """Do it all."""
        random = self._cluster.random
        for number in range(self._acts):
            await passing(random.expovariate(self._acts / self._load_s))
            act = self._act(random.choice(self._keys), number)
            for _ in range(TRIES):
                if await self._done(act):
                    break

    def _act(self, key: str, number: int) -> Act:
        random, partition = self._cluster.random, locate(key)[1]
        names = sorted(self._cluster.server.state.partition(partition).deliveries)
        what = random.choice(("flush", "flush", "drop", "retry", "discard"))
        if what == "flush" or not names:
            batch_id = derived_delivery_id(partition, f"{key} {number}")
            return lambda node: node.forwarding.flush(key, batch_id)
        if what == "drop":
            return lambda node: node.forwarding.drop(key)
        name = random.choice(names)
        if what == "retry":
            return lambda node: node.forwarding.retry(name, partition)
        return lambda node: node.forwarding.discard(name, partition)

    async def _done(self, act: Act) -> bool:
        cluster = self._cluster
        answered: asyncio.Future[object] = cluster.loop.create_future()
        cluster.operate(cluster.random.choice(list(cluster.nodes)), act, answered)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return not isinstance(await answered, Exception)
        except TimeoutError:
            return False
