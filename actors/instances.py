"""Instances: the WhatsApp instances whose sends this node makes: which lanes are held, how fast the others go.

A lane is held when Evolution says that nothing can be sent through it, or cannot be reached. While it is held the
instance is asked for, more and more rarely, and nothing else is sent; it is free again as soon as it is open. What is
known is told to all nodes, and what they heard of it (CONNECTION_UPDATE) is looked at once a second.
Invariants: only what Evolution itself says to this node holds a lane; of one instance one question is under way at a
time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from msgspec import Struct, field

from actors.core.evolution_answers import Trouble, confirmed
from actors.core.evolution_server import InstanceState, Paused
from actors.core.tasks import instance_of, lane_of
from actors.evolution import Evolution
from actors.host import FREE, Lane
from actors.ports import Clock, Gauge, Journal, Overloaded, StoreAway
from actors.runtime.supervisor import Supervisor
from actors.task_ports import HealthStore

LOOK_S = 1.0
ASK_S_MIN = 1.0
ASK_S_MAX = 15.0
ASKED_MAX = 64
"""Held instances that are asked for at once."""
INSTANCES_MAX = 1024
"""Of more, facts are not kept between two looks, and what others hear is not looked at."""


class Pacing(Struct, frozen=True, kw_only=True):
    """How fast one instance may send: the least time between two sends, and a random gap. None: as fast as it goes."""

    every_s: float = 0.0
    gap_s: tuple[float, float] | None = None

    def wait_s(self, chance: float) -> float:
        """From one send to the next; `chance` in [0, 1)."""
        if self.gap_s is None:
            return self.every_s
        shortest, longest = self.gap_s
        return max(self.every_s, shortest + chance * (longest - shortest))


class HeldLane(Struct):
    """Why and since when (monotonic) a lane is held, and when its instance is asked for next."""

    paused: Paused
    since: float
    ask_at: float
    ask_s: float = ASK_S_MIN


class _Question(Struct):
    """What is asked of an instance, and what was found when it was asked last."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked_at: float = float("-inf")
    found: Paused | None = None
    waiting: int = 0
    """Those who want to know; without any it is forgotten."""


class InstanceTools(Struct, frozen=True, kw_only=True):
    """What instances work with. `chance` gives 0…1."""

    clock: Clock
    chance: Callable[[], float]
    journal: Journal
    held: Gauge
    supervisor: Supervisor


class Instances:
    """The lanes of one node. `run` is a service."""

    def __init__(self, evolution: Evolution, store: HealthStore, pacing: Pacing, tools: InstanceTools) -> None:
        self._evolution = evolution
        self._store = store
        self._pacing = pacing
        self._clock = tools.clock
        self._chance = tools.chance
        self._journal = tools.journal
        self._gauge = tools.held
        self._supervisor = tools.supervisor
        self._asked: set[str] = set()
        """Held instances that a question is under way for."""
        self._heard_more = asyncio.Event()
        self._held: dict[str, HeldLane] = {}
        self._questions: dict[str, _Question] = {}
        self._facts: dict[tuple[str, str], str] = {}
        self._lanes: dict[str, str] = {}
        """Instances that this node has sent for, and the last word of others about them that was looked at."""
        self.owns: Callable[[str], bool] = lambda _instance: True
        """Whether this node sends for an instance; set once by the composition root, as the next."""
        self.owned_for_s: Callable[[str], float] = lambda _instance: float("inf")
        """For how long it does so already."""
        self.on_free: Callable[[str], None] = lambda _lane: None
        """Told of each lane that may go on."""
        self.on_held: Callable[[str, Paused | None], None] = lambda _instance, _paused: None
        """Told of each instance whose lane is held, or (None) free again."""

    def lane(self, name: str) -> Lane:
        """What holds for a line of deliveries; those of webhooks are free."""
        instance = instance_of(name)
        if instance is None:
            return FREE
        longest_s = self._pacing.wait_s(1.0)
        # Another node may have sent right before it gave the instance away.
        rest_s = max(longest_s - self.owned_for_s(instance), 0.0)
        return Lane(
            held=lambda: instance in self._held,
            pace=(lambda: self._pacing.wait_s(self._chance())) if longest_s > 0 else None,
            alone=self._pacing.gap_s is not None,
            begins_at=self._clock.monotonic() + rest_s,
        )

    def held(self) -> Mapping[str, HeldLane]:
        """The lanes that are held here, by instance."""
        return self._held

    def why_held(self, instance: str) -> Paused | None:
        """Why nothing is sent for an instance; None when something may be."""
        lane = self._held.get(instance)
        return None if lane is None else lane.paused

    def note(self, what: str, instance: str, value: str = "") -> None:
        """Tell all nodes a fact, soon; without a value it is the time of now, in ms."""
        if len(self._facts) < INSTANCES_MAX:
            self._facts[what, instance] = value or str(round(self._clock.wall() * 1000))

    def hold(self, instance: str, paused: Paused) -> None:
        """Send nothing for an instance until it is found open."""
        known = self._held.get(instance)
        if known is not None:
            known.paused = paused
            return
        now = self._clock.monotonic()
        self._held[instance] = HeldLane(paused, now, now + ASK_S_MIN)
        self._gauge.set(len(self._held))
        self.note("held", instance, paused.reason)
        self.note("held_at", instance)
        self._journal.warning("whatsapp instance held", instance=instance, cause=paused.cause, reason=paused.reason)
        self.on_held(instance, paused)

    async def doubt(self, instance: str, trouble: Trouble) -> Paused | None:
        """A send has failed: ask what the instance is, and hold its lane if nothing can be sent. Those who ask at the
        same time get one answer."""
        began = self._clock.monotonic()
        question = self._questions.setdefault(instance, _Question())
        question.waiting += 1
        try:
            async with question.lock:
                if question.asked_at < began:
                    question.asked_at = self._clock.monotonic()
                    question.found = await self._ask(instance, trouble)
                return question.found
        finally:
            question.waiting -= 1
            if not question.waiting:
                self._questions.pop(instance, None)

    def sent(self, instance: str) -> None:
        """A send went well."""
        self._listen_for(instance)
        self.note("sent_at", instance)

    def failed(self, instance: str, reason: str) -> None:
        """A send did not."""
        self._listen_for(instance)
        self.note("failed_at", instance)
        self.note("failed", instance, reason)

    def event_heard(self, instance: str) -> None:
        """Evolution has told something of an instance."""
        self.note("event_at", instance)

    def connection_changed(self, instance: str, state: InstanceState, status_reason: int | None) -> None:
        """Evolution has told that an instance is connected to WhatsApp, or is not any more."""
        self.note("state", instance, state)
        self.note("state_at", instance)
        self.note("state_reason", instance, "-" if status_reason is None else str(status_reason))

    async def run(self) -> None:
        """Tell and hear what is known of all instances. A service: ends only by cancellation."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._tell()
                await self._hear()
            except StoreAway:
                pass  # facts are for people: what was not told now is told at the next look

    async def ask(self) -> None:
        """Ask for held instances when it is time. A service: ends only by cancellation."""
        while True:
            self._ask_for_held()
            self._heard_more.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._heard_more.wait()
            except TimeoutError:
                pass

    async def _ask(self, instance: str, trouble: Trouble) -> Paused | None:
        self._listen_for(instance)
        state = await self._evolution.state(instance)
        found = state if isinstance(state, Paused) else confirmed(trouble, state)
        if isinstance(found, Paused):
            self.hold(instance, found)
            return found
        return None

    def _ask_for_held(self) -> None:
        """Those that are due, each by itself: one that does not answer must not keep the others waiting."""
        now = self._clock.monotonic()
        for instance, lane in self._held.items():
            if now < lane.ask_at or instance in self._asked or len(self._asked) >= ASKED_MAX:
                continue
            try:
                self._supervisor.spawn("ask for an instance", self._ask_again(instance))
            except Overloaded:
                return
            self._asked.add(instance)

    async def _ask_again(self, instance: str) -> None:
        try:
            state = await self._evolution.state(instance) if self.owns(instance) else None
        finally:
            self._asked.discard(instance)
        lane = self._held.get(instance)
        if lane is None:
            return
        if not self.owns(instance):
            self._let_go(instance)
            return
        paused = state if isinstance(state, Paused) else _paused(state)
        if paused is None:
            self._free(instance)
            return
        lane.paused = paused
        self.note("held", instance, paused.reason)
        lane.ask_s = min(2 * lane.ask_s, ASK_S_MAX)
        lane.ask_at = self._clock.monotonic() + lane.ask_s

    def _let_go(self, instance: str) -> None:
        """Another node sends for it now, and finds out by itself."""
        self._held.pop(instance, None)
        self._gauge.set(len(self._held))

    def _free(self, instance: str) -> None:
        lane = self._held.pop(instance)
        if lane.paused.cause == "unreachable":  # Evolution is back, and perhaps for all
            for other in self._held.values():
                other.ask_at, other.ask_s = self._clock.monotonic(), ASK_S_MIN
            self._heard_more.set()
        self._gauge.set(len(self._held))
        self._facts["held", instance] = self._facts["held_at", instance] = ""
        self._evolution.forget()
        for_s = round(self._clock.monotonic() - lane.since, 1)
        self._journal.info("whatsapp instance free", instance=instance, held_seconds=for_s)
        self.on_held(instance, None)
        self.on_free(lane_of(instance))

    def _listen_for(self, instance: str) -> None:
        """Look from now on at what others hear of an instance. Callers choose the names, so only of so many."""
        if len(self._lanes) < INSTANCES_MAX:
            self._lanes.setdefault(instance, "")

    async def _tell(self) -> None:
        told = dict(self._facts)
        await self._store.note(told)
        self._facts = {fact: value for fact, value in self._facts.items() if told.get(fact) != value}

    async def _hear(self) -> None:
        """Look at what others heard of the instances that this node sends for: it is a reason to ask, no more."""
        if not self._lanes:
            return
        known = await self._store.read()
        for instance, last in list(self._lanes.items()):
            facts = known.get(instance, {})
            word = f"{facts.get('state', '')} {facts.get('state_at', '')}"
            if word == last:
                continue
            self._lanes[instance] = word
            lane = self._held.get(instance)
            if lane is not None:
                lane.ask_at, lane.ask_s = self._clock.monotonic(), ASK_S_MIN
                self._heard_more.set()
            elif last and not word.startswith("open "):
                await self.doubt(instance, Trouble("closed", "the connection to WhatsApp changed"))


def _paused(state: InstanceState | None) -> Paused | None:
    """Why an instance in this state can send nothing; what says nothing may be tried."""
    found = confirmed(Trouble("other", ""), state)
    return found if isinstance(found, Paused) else None
