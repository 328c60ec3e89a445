"""Metrics: every number this process exposes, in one registry of its own.

Owns names, help texts and buckets; whoever counts gets children that are bound already. Label values come from code
(reasons, outcomes, route templates), never from a request, so the number of series is bounded. Seconds and bytes.
A worker's page is the sum over all workers (`sum_up`), with the same families and no further label.
"""

from __future__ import annotations

import platform
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, GCCollector, Info, Metric, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from actors import ports
from actors.cache_ports import ReadHow, Tally
from actors.core.policy import Reason
from actors.inbound_ports import Happened
from router.edge.meters import Distribution, Distributions, Number, Numbers
from router.edge.metrics_sum import Families, Family, Series
from router.edge.usecase import Reply

Outcome = Literal["delivered", "retrying", "dead", "discarded"]
Forward = Literal["done", "away", "not_owner"]

REASONS: Final[tuple[Reason, ...]] = ("size", "bytes", "timeout", "manual")
OUTCOMES: Final[tuple[Outcome, ...]] = ("delivered", "retrying", "dead", "discarded")
TASK_OUTCOMES: Final[tuple[ports.TaskOutcome, ...]] = ("queued", "held", *OUTCOMES)
FORWARDS: Final[tuple[Forward, ...]] = ("done", "away", "not_owner")
HAPPENED: Final[tuple[Happened, ...]] = get_args(Happened)
READS: Final[tuple[ReadHow, ...]] = ("hit", "miss", "collapsed", "stale")

_FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
_REQUEST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_ATTEMPT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCH = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
_OPERATIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class RouteMeters:
    """What is counted for one method and route template. A status class gets its series when it first appears."""

    __slots__ = ("_labels", "_observe", "_requests", "_statuses")

    def __init__(self, requests: Numbers, seconds: Distribution, labels: tuple[str, str]) -> None:
        self._requests = requests
        self._labels = labels
        self._observe = seconds.observe
        self._statuses: dict[int, Number] = {}
        """By status, though they are counted by class: looked up for each answer."""

    def answered(self, status: int, seconds: float) -> None:
        """One request was answered with this status, and that took so long."""
        number = self._statuses.get(status)
        if number is None:
            self.count(status)
        else:
            number.value += 1
        self._observe(seconds)

    def count(self, status: int) -> None:
        """One request was answered with this status."""
        number = self._statuses.get(status)
        if number is None:
            number = self._statuses[status] = self._requests.child(*self._labels, f"{status // 100}xx")
        number.value += 1


class Commits:
    """What is observed of one kind of group commit."""

    def __init__(self, operations: ports.Histogram, seconds: ports.Histogram) -> None:
        self.commit_operations = operations
        self.commit_seconds = seconds


class Metrics:
    """The registry and all that is in it; what actors see of it is `actors.ports.Meters`."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.sum_up: Callable[[Families], Awaitable[Families]] | None = None
        """Adds the families of all other workers to those of this one."""
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        build = Info("buzon_build", "What is running.", registry=self.registry)
        build.info({"version": version, "python": platform.python_version()})
        self._add_buffers()
        self._add_deliveries()
        self._add_store()
        self._add_nodes()
        self._add_cache()
        self._add_channels()
        self._add_inbound()
        self._add_inventory()
        self._add_runtime()
        self._requests = self._numbers("counter", "buzon_http_requests", "Requests answered.", "method,route,status")
        self._request_seconds = self._distributions(
            "buzon_http_request_seconds",
            "Time from a request's headers to its answer being ready; streams are not in it.",
            _REQUEST_S,
            "method,route",
        )

    def route(self, method: str, route: str) -> RouteMeters:
        """The bound meters of one route template."""
        return RouteMeters(self._requests, self._request_seconds.child(method, route), (method, route))

    async def answer(self, accept: str) -> Reply:
        """The page that a scraper gets: of all workers when this process is one of several."""
        if self.sum_up is None:
            return self.page(accept)
        return _page(_Summed(await self.sum_up(self.families())), accept)

    def page(self, accept: str) -> Reply:
        """Everything as text, in the format that the `Accept` header prefers (Prometheus or OpenMetrics)."""
        return _page(self.registry, accept)

    def families(self) -> list[Family]:
        """Everything as plain values, to be added to that of other workers."""
        return [
            Family(each.name, each.documentation, each.type, [_series(*sample[:3]) for sample in each.samples])
            for each in self.registry.collect()
        ]

    def _add_buffers(self) -> None:
        self.accepted: ports.Counter = self._counter("buzon_messages_accepted", "Messages stored.")
        self.duplicates: ports.Counter = self._counter(
            "buzon_messages_duplicate", "Messages that were there already and were not added again."
        )
        batches = self._numbers("counter", "buzon_batches", "Batches closed, by what closed them.", "reason")
        self.batches: Mapping[Reason, ports.Counter] = {reason: batches.child(reason) for reason in REASONS}
        self.batch_messages: ports.Histogram = self._histogram(
            "buzon_batch_messages", "Messages in a closed batch.", _BATCH
        )
        self.open_batches: ports.Gauge = self._gauge("buzon_open_batches", "Batches that are filling up on this node.")

    def _add_deliveries(self) -> None:
        deliveries = self._numbers("counter", "buzon_deliveries", "Attempts settled, by what came of them.", "outcome")
        self.deliveries: Mapping[Outcome, ports.Counter] = {each: deliveries.child(each) for each in OUTCOMES}
        tasks = self._numbers(
            "counter",
            "buzon_tasks",
            "WhatsApp sends taken in (queued), and attempts at them settled, by what came of them; `held`: the "
            "instance could send nothing, and no retry was used up.",
            "outcome",
        )
        self.tasks: Mapping[ports.TaskOutcome, ports.Counter] = {each: tasks.child(each) for each in TASK_OUTCOMES}
        self.lanes_held: ports.Gauge = self._gauge(
            "buzon_instances_held", "WhatsApp instances of this node for which nothing is sent for now."
        )
        self.attempt_seconds: ports.Histogram = self._histogram(
            "buzon_delivery_attempt_seconds",
            "Time one attempt at a webhook or a send took, answered or not.",
            _ATTEMPT_S,
        )
        self.oldest_waiting_seconds: ports.Gauge = self._gauge(
            "buzon_oldest_waiting_seconds",
            "Age of the oldest closed batch that is not delivered yet, or how late a task is.",
        )
        self.breaker_open: ports.Gauge = self._gauge("buzon_breakers_open", "Hosts that are not called for now.")

    def _add_store(self) -> None:
        self.commit_operations: ports.Histogram = self._histogram(
            "buzon_commit_operations", "Operations that went to the store in one commit.", _OPERATIONS
        )
        self.commit_seconds: ports.Histogram = self._histogram(
            "buzon_commit_seconds", "Time one commit took, from the write to the last answer.", _FAST_S
        )
        self.store_restarts: ports.Counter = self._counter("buzon_store_restarts", "Times the store came back as new.")
        self.replayed: ports.Counter = self._counter(
            "buzon_messages_replayed", "Acknowledged messages written again after the store restarted."
        )
        self.repaired: ports.Counter = self._counter(
            "buzon_rollback_repairs", "Acknowledged messages that a store had lost and got back from here."
        )
        self.fenced: ports.Counter = self._counter(
            "buzon_fenced_writes", "Writes refused because another node owns the partition."
        )

    def _add_nodes(self) -> None:
        self.nodes_alive: ports.Gauge = self._gauge("buzon_nodes_alive", "Nodes whose beats this node sees.")
        self.partitions_held: ports.Gauge = self._gauge("buzon_partitions_held", "Partitions this node owns.")
        self.takeovers: ports.Counter = self._counter("buzon_takeovers", "Partitions taken over from a dead node.")
        self.handovers: ports.Counter = self._counter("buzon_handovers", "Partitions given to another node as planned.")
        self.handover_seconds: ports.Histogram = self._histogram(
            "buzon_handover_seconds", "From holding a partition back to its new owner having taken it.", _FAST_S
        )
        forwards = self._numbers("counter", "buzon_forwards", "Requests passed on to their owner.", "outcome")
        self.forwards: Mapping[Forward, ports.Counter] = {each: forwards.child(each) for each in FORWARDS}
        self.direct_appends: ports.Counter = self._counter(
            "buzon_direct_appends", "Messages stored for a partition that another node owns."
        )
        self.rings: ports.Counter = self._counter("buzon_rings", "Hints sent to the owners of partitions.")

    def _add_cache(self) -> None:
        reads = self._numbers(
            "counter",
            "buzon_cache_reads",
            "Cache keys read, by where from: this process (hit), the store (miss, collapsed), this process while the "
            "store was away (stale).",
            "how",
        )
        self.cache_reads: Mapping[ReadHow, Tally] = {each: reads.child(each) for each in READS}
        self.cache_absent: Tally = self._counter("buzon_cache_absent", "Cache keys read that held nothing.")
        self.cache_writes: Tally = self._counter("buzon_cache_writes", "Cache keys written, expired or deleted.")
        self.cache_invalidations: Tally = self._counter(
            "buzon_cache_invalidations", "Names that the store said had changed."
        )
        self.cache_near_evicted: Tally = self._counter(
            "buzon_cache_near_evicted", "Entries that left the near cache for want of room."
        )
        self.cache_near_bytes: ports.Gauge = self._gauge("buzon_cache_near_bytes", "Memory of the near cache.")
        self.cache_near_entries: ports.Gauge = self._gauge("buzon_cache_near_entries", "Entries in the near cache.")
        self.cache_commits = Commits(
            self._histogram("buzon_cache_commit_operations", "Cache keys that one call carried.", _OPERATIONS),
            self._histogram("buzon_cache_commit_seconds", "Time one call for cache keys took.", _FAST_S),
        )

    def _add_channels(self) -> None:
        self.channel_publications: ports.Counter = self._counter(
            "buzon_channel_publications", "Messages that this node published."
        )
        self.channel_foreign: ports.Counter = self._counter(
            "buzon_channel_foreign", "Messages of other Redis clients that this node heard."
        )
        self.channel_deliveries: ports.Counter = self._counter(
            "buzon_channel_deliveries", "Messages handed to listening connections."
        )
        self.channel_lost: ports.Counter = self._counter(
            "buzon_channel_lost", "Times that a channel's listeners were told that messages cannot be brought back."
        )
        self.channel_events_dropped: ports.Counter = self._counter(
            "buzon_channel_events_dropped", "Events of the router's own that were not told: too many at once."
        )
        self.channel_slow: ports.Counter = self._counter(
            "buzon_channel_slow_closed", "Listening connections closed because their readers were too slow."
        )
        self.channels_listened: ports.Gauge = self._gauge("buzon_channels", "Channels that somebody here listens to.")
        self.channel_listeners: ports.Gauge = self._gauge(
            "buzon_channel_listeners", "Seats taken: a connection that listens to two channels counts twice."
        )
        self.connections: ports.Gauge = self._gauge("buzon_connections", "Listening connections (WebSocket and SSE).")
        self.channel_commits = Commits(
            self._histogram(
                "buzon_channel_commit_operations", "Requests of channels that one call carried.", _OPERATIONS
            ),
            self._histogram("buzon_channel_commit_seconds", "Time one call for channels took.", _FAST_S),
        )

    def _add_inbound(self) -> None:
        events = self._numbers(
            "counter", "buzon_inbound_events", "Webhook calls of Evolution API, by what became of them.", "happened"
        )
        self.inbound_events: Mapping[Happened, ports.Counter] = {
            each: events.child(each.replace(" ", "_")) for each in HAPPENED
        }
        self.inbound_takeovers: ports.Counter = self._counter(
            "buzon_inbound_takeovers", "Messages that people wrote on the phone of an instance."
        )

    def _add_inventory(self) -> None:
        self.inventory_events: ports.Counter = self._counter(
            "buzon_inventory_events", "Events that came into the inventory's projection while this node moved it."
        )
        self.inventory_lag_seconds: ports.Gauge = self._gauge(
            "buzon_inventory_lag_seconds", "Age of the oldest event that the inventory's projection lacks."
        )
        self.inventory_lag_events: ports.Gauge = self._gauge(
            "buzon_inventory_lag_events", "Events that the inventory's projection lacks."
        )

    def _add_runtime(self) -> None:
        self.mailbox_depth: ports.Gauge = self._gauge(
            "buzon_mailbox_depth", "Asks that buffer actors have not answered yet."
        )
        self.loop_lag_seconds: ports.Histogram = self._histogram(
            "buzon_loop_lag_seconds", "How late the event loop ran a timer.", _FAST_S
        )
        self.actor_restarts: ports.Counter = self._counter("buzon_actor_restarts", "Actors restarted after a crash.")
        self.quarantined: ports.Gauge = self._gauge("buzon_quarantined_keys", "Keys set aside because they crash.")
        self._gauge("buzon_workers_answering", "Workers whose numbers are in here; 1 for a node of its own.").set(1)

    def _counter(self, name: str, text: str) -> Number:
        return self._numbers("counter", name, text).child()

    def _gauge(self, name: str, text: str) -> Number:
        return self._numbers("gauge", name, text).child()

    def _histogram(self, name: str, text: str, bounds: tuple[float, ...]) -> Distribution:
        return self._distributions(name, text, bounds).child()

    def _numbers(self, kind: Literal["counter", "gauge"], name: str, text: str, labels: str = "") -> Numbers:
        numbers = Numbers(kind, name, text, labels.split(",") if labels else ())
        self.registry.register(numbers)
        return numbers

    def _distributions(self, name: str, text: str, bounds: tuple[float, ...], labels: str = "") -> Distributions:
        distributions = Distributions(name, text, bounds, labels.split(",") if labels else ())
        self.registry.register(distributions)
        return distributions


class _Summed(Collector):
    """Families of several processes, as the encoders want them."""

    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Give each as the client library has it."""
        for family in self._families:
            metric = Metric(family.name, family.text, family.kind)
            for each in family.series:
                metric.add_sample(each.name, dict(each.labels), each.value)
            yield metric


def _page(collector: Collector, accept: str) -> Reply:
    encode, content_type = choose_encoder(accept)
    return Reply(200, encode(collector), {"Content-Type": content_type})


def _series(name: str, labels: Mapping[str, str], value: float) -> Series:
    return Series(name, tuple(labels.items()), value)
