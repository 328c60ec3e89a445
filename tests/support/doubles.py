"""Doubles: what stands around an actor in a unit test: meters, journal, webhooks, a supervisor that is stopped.

They record and do as they are told; none of them checks anything. The store's double is in `memory_store`. A `Stage`
belongs to a test in virtual time; its clock is the loop's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from actors.attempt import Tools
from actors.core.outcome import Answered, Failed
from actors.core.partition import dedupe_id, locate
from actors.core.policy import BufferOptions, Policy, Reason, Terms, Webhook
from actors.egress_ports import OutboundRequest, Withheld
from actors.ports import Counter, Entry, Gauge, Histogram, TaskOutcome
from actors.runtime.supervisor import Supervisor
from actors.webhook_call import DeliveryRules
from tests.support.until import passing
from tests.support.virtual_time import VirtualClock

REASONS: tuple[Reason, ...] = ("size", "bytes", "timeout", "manual")
OUTCOMES: tuple[Literal["delivered", "retrying", "dead", "discarded"], ...] = (
    *("delivered", "retrying", "dead", "discarded"),
)
TASK_OUTCOMES: tuple[TaskOutcome, ...] = ("queued", "held", *OUTCOMES)
RULES = DeliveryRules(timeout_s=10.0, max_retries=3, retry_delay_s=5.0, user_agent="buzon/test")
JITTER = 0.5
"""The middle: a wait is exactly the delay."""
OK = Answered(200, None, "", 3.0)
REFUSED = Failed("connection refused", 3.0)


class Tally:
    """Counter, histogram and gauge in one: the sum, the observations, the last value."""

    def __init__(self) -> None:
        self.value = 0.0
        self.observed: list[float] = []

    def inc(self, amount: float = 1) -> None:
        """One more."""
        self.value += amount

    def observe(self, amount: float) -> None:
        """One observation."""
        self.observed.append(amount)

    def set(self, value: float) -> None:
        """The value of now."""
        self.value = value


def value(of: object) -> float:
    """What a counter or gauge of `TallyMeters` says."""
    assert isinstance(of, Tally)
    return of.value


def observed(of: object) -> list[float]:
    """What a histogram of `TallyMeters` was shown."""
    assert isinstance(of, Tally)
    return of.observed


class TallyMeters:
    """Meters that can be read: `value(meters.accepted)`."""

    def __init__(self) -> None:
        self.accepted: Counter = Tally()
        self.duplicates: Counter = Tally()
        self.batches: Mapping[Reason, Counter] = {reason: Tally() for reason in REASONS}
        self.batch_messages: Histogram = Tally()
        self.deliveries: Mapping[Literal["delivered", "retrying", "dead", "discarded"], Counter] = {
            outcome: Tally() for outcome in OUTCOMES
        }
        self.tasks: Mapping[TaskOutcome, Counter] = {outcome: Tally() for outcome in TASK_OUTCOMES}
        self.lanes_held: Gauge = Tally()
        self.attempt_seconds: Histogram = Tally()
        self.oldest_waiting_seconds: Gauge = Tally()
        self.open_batches: Gauge = Tally()
        self.mailbox_depth: Gauge = Tally()
        self.commit_operations: Histogram = Tally()
        self.commit_seconds: Histogram = Tally()
        self.loop_lag_seconds: Histogram = Tally()
        self.store_restarts: Counter = Tally()
        self.replayed: Counter = Tally()
        self.repaired: Counter = Tally()
        self.fenced: Counter = Tally()
        self.actor_restarts: Counter = Tally()
        self.quarantined: Gauge = Tally()
        self.breaker_open: Gauge = Tally()
        self.nodes_alive: Gauge = Tally()
        self.partitions_held: Gauge = Tally()
        self.takeovers: Counter = Tally()
        self.handovers: Counter = Tally()
        self.handover_seconds: Histogram = Tally()
        self.forwards: Mapping[Literal["done", "away", "not_owner"], Counter] = {
            "done": Tally(),
            "away": Tally(),
            "not_owner": Tally(),
        }
        self.direct_appends: Counter = Tally()
        self.rings: Counter = Tally()


class JournalLines:
    """A journal that keeps its lines: level, phrase, fields."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def info(self, event: str, **fields: object) -> None:
        """A transition."""
        self.lines.append(("info", event, fields))

    def warning(self, event: str, **fields: object) -> None:
        """Something for people to look at."""
        self.lines.append(("warning", event, fields))

    def error(self, event: str, **fields: object) -> None:
        """Something that must not happen."""
        self.lines.append(("error", event, fields))

    def phrases(self) -> list[str]:
        """The phrases in order."""
        return [phrase for _, phrase, _ in self.lines]


class Webhooks:
    """The other side of egress. `answers` of a host are used up in order, then `default` holds; each takes `took_s`.

    A host that is `refusing` never answers. A request is asked whether it may start after `connecting_s`."""

    def __init__(self) -> None:
        self.default: Answered | Failed = OK
        self.answers: dict[str, deque[Answered | Failed]] = {}
        self.refusing: set[str] = set()
        self.took_s: dict[str, float] = {}
        self.connecting_s = 0.0
        self.withheld: list[OutboundRequest] = []
        self.sent: list[tuple[float, OutboundRequest]] = []
        self.under_way: dict[str, int] = {}
        self.under_way_max: dict[str, int] = {}
        self.on_send: Callable[[OutboundRequest], None] = lambda _request: None
        self._clock = VirtualClock()

    async def send(self, request: OutboundRequest) -> Answered | Failed | Withheld:
        """Take a request."""
        if self.connecting_s:
            await passing(self.connecting_s)
        if not request.may_start():
            self.withheld.append(request)
            return Withheld()
        host = urlsplit(request.url).hostname or ""
        self.sent.append((self._clock.monotonic(), request))
        self.on_send(request)
        self.under_way[host] = self.under_way.get(host, 0) + 1
        self.under_way_max[host] = max(self.under_way_max.get(host, 0), self.under_way[host])
        try:
            await passing(self.took_s.get(host, 0.0))
        finally:
            self.under_way[host] -= 1
        if host in self.refusing:
            return REFUSED
        answers = self.answers.get(host)
        return answers.popleft() if answers else self.default

    def ids(self) -> list[str]:
        """The `webhook-id` of every request, in order."""
        return [request.headers["webhook-id"] for _, request in self.sent]

    def times(self) -> list[float]:
        """When each request came."""
        return [at for at, _ in self.sent]


class Stage:
    """Clock, supervisor, meters and journal for one test; use it as a context, and it is stopped at the end."""

    def __init__(self, jobs_max: int = 4096) -> None:
        self.clock = VirtualClock()
        self.meters = TallyMeters()
        self.journal = JournalLines()
        self.crashes: list[tuple[str, str, BaseException]] = []
        self.fatal: list[str] = []
        self.supervisor = Supervisor(
            self.clock,
            lambda phrase, name, error: self.crashes.append((phrase, name, error)),
            self.fatal.append,
            jobs_max,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.supervisor.stop()

    def tools(self) -> Tools:
        """What deliveries work with."""
        return Tools(
            supervisor=self.supervisor,
            clock=self.clock,
            jitter=lambda: JITTER,
            journal=self.journal,
            meters=self.meters,
        )

    def crash_names(self) -> list[str]:
        """The names of what crashed, in order."""
        return [name for _, name, _ in self.crashes]


def make_policy(url: str = "https://a.example/hook", **webhook: Any) -> Policy:
    """A policy that posts envelopes to `url`."""
    return Policy(webhook=Webhook(url=url, **webhook), buffer=BufferOptions(key="k"))


def make_entry(key: str = "k", message_id: str = "m1", payload: bytes = b"{}", **fields: Any) -> Entry:
    """One message; without more words it is the first of a window of 20 s for five, for a.example."""
    kid, partition = locate(key)
    host = fields.get("host", "a.example")
    plain = Entry(
        terms=Terms(
            partition=partition,
            kid=kid,
            key=key,
            wait_ms=20_000,
            max_wait_ms=0,
            max_size=5,
            max_bytes=1 << 20,
            policy=msgspec.json.encode(make_policy(f"https://{host}/hook")),
            host=host,
        ),
        message_id=message_id,
        dedupe=dedupe_id(kid, message_id),
        payload=payload,
        trace="",
        batch_id=f"dlv_{partition:02x}{message_id}",
    )
    return changed(plain, **fields)


def changed(entry: Entry, **fields: Any) -> Entry:
    """The same message but for some of its fields, or of its terms'."""
    of_terms = {name: fields.pop(name) for name in Terms.__struct_fields__ if name in fields}
    return replace(entry, terms=replace(entry.terms, **of_terms), **fields)
