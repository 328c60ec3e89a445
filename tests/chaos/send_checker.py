"""Send checker: what reached the phones, held against what nodes promised to send and what they say of it. Pure.

A message has come twice when it has come under two WhatsApp ids; under one id a phone shows it once. It may come twice
only where it was on its way when something was done: it had reached the phone shortly before, and the answer had not
been written down.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from tests.chaos.send_load import Acknowledged

SHOWN_MAX = 4


class Arrival(Struct, frozen=True):
    """A message reached a phone. `at` is Unix time."""

    text: str
    id: str
    at: float


class Deed(Struct, kw_only=True):
    """Something was done to whoever sends for these instances: what left from `since` to `until` may have no outcome
    that anybody knows. Unix time. `each`: how much of one instance may have been on its way."""

    what: str
    since: float
    until: float
    instances: frozenset[str]
    each: int


class Ended(Struct, frozen=True):
    """What a task says of itself. `key` is its WhatsApp id."""

    status: str
    key: str = ""
    error: str = ""


class Sends(Struct, kw_only=True):
    """Everything that is known at the end."""

    acknowledged: Sequence[Acknowledged]
    arrivals: Sequence[Arrival]
    ended: Mapping[str, Ended]
    """By task id."""
    deeds: Sequence[Deed]
    idempotent: bool
    """Whether the server takes message ids, so that nothing may come twice."""


class Found(Struct, kw_only=True):
    """The verdict: `problems` are sentences."""

    acknowledged: int
    arrived: int
    twice: int
    may: int
    repeated: int
    """Messages that Evolution was given again under an id that had arrived."""
    problems: list[str]


def check(sends: Sends) -> Found:
    """Judge."""
    ids: dict[str, dict[str, float]] = {}
    repeated = 0
    for each in sends.arrivals:
        copies = ids.setdefault(each.text, {})
        repeated += each.id in copies
        copies.setdefault(each.id, each.at)
    twice = {text: sorted(copies.values()) for text, copies in ids.items() if len(copies) > 1}
    may = 0 if sends.idempotent else sum(deed.each * len(deed.instances) for deed in sends.deeds)
    problems = [*_missing(sends, ids), *_unknown(sends, ids), *_disordered(sends)]
    if len(twice) > may:
        problems.append(_shown(f"messages came twice, {may} may", list(twice)))
    if not sends.idempotent:
        unexplained = [text for text, times in twice.items() if not _explained(text, times, sends.deeds)]
        if unexplained:
            problems.append(
                _shown("messages came twice and were not on their way when something was done", unexplained)
            )
    return Found(
        acknowledged=len(sends.acknowledged),
        arrived=len(ids),
        twice=len(twice),
        may=may,
        repeated=repeated,
        problems=problems,
    )


def _missing(sends: Sends, ids: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """What was promised has arrived, and its task says so, with an id under which it did."""
    lost = [each.text for each in sends.acknowledged if each.text not in ids]
    if lost:
        yield _shown("messages never arrived", lost)
    ends = [(each.text, sends.ended.get(each.task_id, Ended("unknown"))) for each in sends.acknowledged]
    failed = [f"{text} {end.status} {end.error}" for text, end in ends if end.status != "SUCCESS"]
    if failed:
        yield _shown("tasks did not end well", failed)
    strange = [text for text, end in ends if end.key and end.key not in ids.get(text, {})]
    if strange:
        yield _shown("tasks name an id that never arrived", strange)


def _unknown(sends: Sends, ids: Collection[str]) -> Iterator[str]:
    """Nothing arrives that nobody sent. What was refused at the very end may have been stored all the same."""
    last: dict[str, int] = {}
    for each in sends.acknowledged:
        last[each.contact] = max(last.get(each.contact, 0), each.sequence)
    phantoms = [text for text in ids if _sequence(text) > last.get(text.rpartition(".")[0], 0) + 1]
    if phantoms:
        yield _shown("messages arrived that nobody sent", phantoms)


def _disordered(sends: Sends) -> Iterator[str]:
    """What one contact receives comes in the order in which it was acknowledged."""
    at: dict[str, int] = {}
    seen: set[str] = set()
    wrong: list[str] = []
    for each in sends.arrivals:
        contact, sequence = each.text.rpartition(".")[0], _sequence(each.text)
        if sequence < at.get(contact, 0) and each.id not in seen:
            wrong.append(f"{each.text} after {at[contact]}")
        seen.add(each.id)
        at[contact] = max(sequence, at.get(contact, 0))
    if wrong:
        yield _shown("messages came out of order", wrong)


def _explained(text: str, times: Sequence[float], deeds: Sequence[Deed]) -> bool:
    """Whether something was done while each copy but the last was on its way."""
    instance = text.split("/")[-2]
    return all(
        any(instance in deed.instances and deed.since <= at <= deed.until for deed in deeds) for at in times[:-1]
    )


def _sequence(text: str) -> int:
    return int(text.rpartition(".")[2])


def _shown(what: str, which: Sequence[str]) -> str:
    more = f" … {len(which)} in all" if len(which) > SHOWN_MAX else ""
    return f"{len(which)} {what}: {', '.join(which[:SHOWN_MAX])}{more}"
