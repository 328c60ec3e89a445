"""Checker: holds the driver's ledger against the sink's log and names everything that does not add up. Pure.

Lost = acknowledged, neither delivered nor in the dead letters. Phantom = delivered and never sent. Twice = in two
deliveries. Repeated = one delivery taken again. Mutated = one webhook-id, two bodies. Disordered = a key whose
acknowledged messages first arrived in another order than its one client sent them. Early and late = the first POST of a
batch against the instant at which it was full or its time had come, as far as somebody outside can know that instant:
an append happened between the first try and the acknowledgement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from actors.core.partition import locate
from tests.chaos.evidence import BROKEN, EVERY_NODE, OK, TIMED_OUT, Crash, Evidence, Post, Try

SETTLE_S = 0.1
"""An answer of the sink is in the store at the latest so long after it was sent, on a busy machine."""
EARLY_S = 0.02
"""Clocks of one machine, read in two processes and rounded to milliseconds."""
EXPECTED_STATUSES = frozenset({OK, BROKEN, TIMED_OUT, 503})
SAMPLES_SHOWN = 4


class Report(Struct, frozen=True, kw_only=True):
    """What was found. Lateness in seconds; `early` are webhook-ids."""

    acknowledged: int
    lost: frozenset[str] = frozenset()
    phantom: frozenset[str] = frozenset()
    twice: frozenset[str] = frozenset()
    repeated: Mapping[str, int] = {}
    budget: int = 0
    mutated: frozenset[str] = frozenset()
    disordered: frozenset[str] = frozenset()
    early: frozenset[str] = frozenset()
    late_p99_s: float = 0.0
    late_max_s: float = 0.0
    latest: str = ""
    first_flushes_s: tuple[float, ...] = ()
    failed_elsewhere: tuple[str, ...] = ()
    refusal_max_s: float = 0.0
    silence_s: float = 0.0
    probe_p99_s: float = 0.0
    strange: tuple[str, ...] = ()
    miscounted: tuple[str, ...] = ()
    still_open: frozenset[str] = frozenset()
    rss_max_bytes: int = 0

    @property
    def duplicates(self) -> int:
        """Deliveries that were taken once more than needed."""
        return sum(self.repeated.values())


def check(evidence: Evidence) -> Report:
    """Everything that can be said from outside."""
    taken = [post for post in evidence.posts if post.taken]
    batches = {post.begun.webhook_id: post.begun.ids for post in taken}
    delivered = Counter(message for ids in batches.values() for message in ids)
    sent = {each.id for each in evidence.tries}
    acknowledged = {each.id for each in evidence.tries if each.acknowledged}
    times = Counter(post.begun.webhook_id for post in taken if post.whole)
    late = sorted(lateness(evidence))
    return Report(
        acknowledged=len(acknowledged),
        lost=frozenset(acknowledged - delivered.keys() - evidence.dead),
        phantom=frozenset(delivered.keys() - sent),
        twice=frozenset(message for message, count in delivered.items() if count > 1),
        repeated={batch: count - 1 for batch, count in times.items() if count > 1},
        budget=sum(out_at(crash, evidence.posts) for crash in evidence.crashes),
        mutated=frozenset(_mutated(evidence.posts)),
        disordered=frozenset(_disordered(evidence.tries, taken)),
        early=frozenset(_early(evidence)),
        late_p99_s=percentile([seconds for seconds, _ in late], 0.99),
        late_max_s=late[-1][0] if late else 0.0,
        latest=late[-1][1] if late else "",
        first_flushes_s=tuple(_first_flushes(evidence)),
        failed_elsewhere=tuple(_failed_elsewhere(evidence)),
        refusal_max_s=max(_refusals(evidence), default=0.0),
        silence_s=_silence(evidence.tries),
        probe_p99_s=percentile(_probe_times(evidence), 0.99),
        strange=tuple(_strange(evidence.tries)),
        miscounted=tuple(_miscounted(evidence)),
        still_open=evidence.still_open,
        rss_max_bytes=max((sample.rss_bytes for sample in evidence.samples), default=0),
    )


def out_at(crash: Crash, posts: Iterable[Post]) -> int:
    """The requests of a node that were under way when it crashed, by the sink's own view: not answered, or answered so
    shortly before that the store may not have heard. Their batches may come again."""
    return sum(
        post.begun.node in ("", crash.node)
        and post.begun.at < crash.until
        and post.answered_at > crash.at - SETTLE_S
        and (post.begun.at < crash.at or post.begun.node == crash.node)
        for post in posts
    )


def lateness(evidence: Evidence) -> Iterator[tuple[float, str]]:
    """For the first POST of every batch, how long after it could have come; and its webhook-id. Time in which something
    was done to all nodes, as the store was taken away, does not count."""
    outages = [fault for fault in evidence.faults if fault.node == EVERY_NODE]
    known = _instants(evidence.tries)
    for post in _first_posts(evidence.posts):
        policy = evidence.policies.get(post.begun.key)
        if policy is None or any(message not in known for message in post.begun.ids) or not post.begun.ids:
            continue
        ends = [known[message][1] for message in post.begun.ids]
        if float("inf") in (ends[0], ends[-1]):
            continue  # never acknowledged: who knows when it was stored
        match post.begun.reason:
            case "size" | "bytes" | "manual":
                due = ends[-1]
            case _ if policy.debounce:
                due = min(ends[-1] + policy.wait_s, ends[0] + policy.max_wait_s)
            case _:
                due = ends[0] + policy.wait_s
        away_s = sum(max(0.0, min(post.begun.at, each.until) - max(due, each.at)) for each in outages)
        yield post.begun.at - due - away_s, post.begun.webhook_id


def _early(evidence: Evidence) -> Iterator[str]:
    known = _instants(evidence.tries)
    for post in _first_posts(evidence.posts):
        policy = evidence.policies.get(post.begun.key)
        ids = post.begun.ids
        if policy is None or not ids or any(message not in known for message in ids):
            continue
        begins = [known[message][0] for message in ids]
        if post.begun.reason == "size":
            if len(ids) < policy.max_size:
                yield post.begun.webhook_id
        elif post.begun.reason == "timeout":
            due = begins[0] + policy.wait_s
            if policy.debounce:
                due = min(begins[-1] + policy.wait_s, begins[0] + policy.max_wait_s)
            if post.begun.at < due - EARLY_S:
                yield post.begun.webhook_id


def _instants(tries: Iterable[Try]) -> dict[str, tuple[float, float]]:
    """By message: when it was first sent, and when it was acknowledged (inf: never)."""
    known: dict[str, tuple[float, float]] = {}
    for each in tries:
        first, acknowledged = known.get(each.id, (each.sent_at, float("inf")))
        if each.acknowledged:
            acknowledged = min(acknowledged, each.answered_at)
        known[each.id] = (min(first, each.sent_at), acknowledged)
    return known


def _first_posts(posts: Iterable[Post]) -> Iterable[Post]:
    first: dict[str, Post] = {}
    for post in posts:
        first.setdefault(post.begun.webhook_id, post)
    return first.values()


def _mutated(posts: Iterable[Post]) -> Iterator[str]:
    first: dict[str, str] = {}
    for post in posts:
        if first.setdefault(post.begun.webhook_id, post.begun.sha256) != post.begun.sha256:
            yield post.begun.webhook_id


def _disordered(tries: Iterable[Try], taken: Iterable[Post]) -> Iterator[str]:
    arrived: dict[str, dict[str, None]] = {}
    for post in taken:
        arrived.setdefault(post.begun.key, {}).update(dict.fromkeys(post.begun.ids))
    sequences: dict[str, dict[str, int]] = {}
    for each in tries:
        if each.acknowledged:
            sequences.setdefault(each.key, {})[each.id] = each.sequence
    for key, sequence in sequences.items():
        seen = [sequence[message] for message in arrived.get(key, ()) if message in sequence]
        if seen != sorted(seen):
            yield key


def _first_flushes(evidence: Evidence) -> Iterator[float]:
    """Seconds from each crash to the first POST by another node of a key in a partition that the crashed one had; inf
    when such keys were loaded and nobody delivered any."""
    for crash in evidence.crashes:
        keys = {key for key in evidence.policies if locate(key)[1] in crash.partitions}
        victims = {other.node for other in evidence.crashes if other.at == crash.at}
        if keys:
            yield min(
                (
                    post.begun.at - crash.at
                    for post in evidence.posts
                    if post.begun.at > crash.at and post.begun.key in keys and post.begun.node not in ("", *victims)
                ),
                default=float("inf"),
            )


def _failed_elsewhere(evidence: Evidence) -> Iterator[str]:
    asked = [
        *((each.node, each.id, each.sent_at, each.answered_at, each.status) for each in evidence.tries),
        *((each.node, each.path, each.at, each.ended_at, each.status) for each in evidence.probes),
    ]
    for node, what, began, ended, status in asked:
        if status != OK and not _at_fault(evidence, node, began, ended):
            yield f"{what} at {node}: {status} after {ended - began:.2f} s"


def _at_fault(evidence: Evidence, node: str, began: float, ended: float) -> bool:
    """Whether something was being done to a node, or to all, meanwhile."""
    return any(
        fault.node in (node, EVERY_NODE) and fault.at <= ended and began <= fault.until for fault in evidence.faults
    )


def _refusals(evidence: Evidence) -> Iterator[float]:
    """How long refusals took. Where no answer came at all, the node was frozen or cut off from its clients."""
    return (each.answered_at - each.sent_at for each in evidence.tries if each.status > OK)


def _silence(tries: Iterable[Try]) -> float:
    """The longest time in which nothing at all was acknowledged."""
    times = sorted(each.answered_at for each in tries if each.acknowledged)
    return max((after - before for before, after in pairwise(times)), default=0.0)


def _probe_times(evidence: Evidence) -> list[float]:
    """How long nodes that nothing was done to took to answer the prober."""
    return [probe.took_s for probe in evidence.probes if not _at_fault(evidence, probe.node, probe.at, probe.ended_at)]


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of the values does not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def _strange(tries: Iterable[Try]) -> Iterator[str]:
    return (f"{each.id}: {each.status}" for each in tries if each.status not in EXPECTED_STATUSES)


def _miscounted(evidence: Evidence) -> Iterator[str]:
    """Counters that cannot be true. Whether a message without an answer was stored nobody outside knows; if it was, the
    next try is a duplicate."""
    counted = evidence.counted
    if counted is None:
        return
    answers = sum(each.acknowledged for each in evidence.tries)
    stored = counted.accepted + counted.duplicates
    if not answers <= stored <= len(evidence.tries):
        yield f"stored or there already {stored}, but {answers} to {len(evidence.tries)} were"
    sent = len({each.id for each in evidence.tries})
    if counted.accepted > sent:
        yield f"accepted {counted.accepted}, but only {sent} were sent"
    delivered = len({post.begun.webhook_id for post in evidence.posts if post.taken})
    unsure = _settled_into_silence(evidence)
    if not delivered - unsure <= counted.delivered <= delivered:
        yield f"delivered {counted.delivered}, but the webhook took {delivered}"


def _settled_into_silence(evidence: Evidence) -> int:
    """Deliveries whose outcome met a store that did not answer: a node that hears later that it is settled already may
    not count it."""
    outages = [fault for fault in evidence.faults if fault.node == EVERY_NODE]
    return sum(
        post.taken and any(fault.at - SETTLE_S < post.answered_at < fault.until for fault in outages)
        for post in evidence.posts
    )


def shown(what: str, found: Sequence[str] | frozenset[str]) -> str:
    """A problem with its first few cases."""
    some = ", ".join(sorted(found)[:SAMPLES_SHOWN])
    return f"{len(found)} {what} ({some}{', …' if len(found) > SAMPLES_SHOWN else ''})"
