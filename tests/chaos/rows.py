"""Rows: the register of faults. A row is an async function that does harm; the harness does everything else.

    @row(1, title="kill -9 of an owner", allows=Allows(late_s=4), smoke=True)
    async def kill_an_owner(rig: Rig, chaos: Chaos) -> None:
        await chaos.balanced()
        victim = chaos.pick()
        chaos.kill(victim)
        await chaos.flushed_by_others(victim)

While it runs, 500 messages a second go to all nodes. When it returns, the load goes on until `load_s` is over, the
harness heals what the row left broken, waits until everything is delivered and lets the checker judge. What a row
finds wrong by itself it says with `chaos.problem(…)` or `chaos.judge(…)`; an assertion that fails does the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from tests.chaos.evidence import Policy

if TYPE_CHECKING:
    from tests.chaos.chaos import Chaos
    from tests.chaos.rig import Rig

    Act = Callable[[Rig, Chaos], Awaitable[None]]


class Group(Struct, frozen=True, kw_only=True):
    """Keys that are loaded alike: `rate` messages a second over `keys` sequential clients.

    `path` is the webhook's, in the language of `tests.support.behaviours.behaviour_of`; `sink` 0 or 1 are two hosts.
    """

    name: str
    keys: int
    rate: float
    max_size: int
    wait_s: float
    debounce: bool = False
    max_wait_s: float = 0.0
    path: str = "/hook"
    sink: int = 0
    max_retries: int | None = None
    timeout_s: float | None = None
    payload_bytes: int = 0

    @property
    def policy(self) -> Policy:
        """What its messages ask of their buffers."""
        return Policy(max_size=self.max_size, wait_s=self.wait_s, debounce=self.debounce, max_wait_s=self.max_wait_s)


STANDARD_LOAD = (
    Group(name="size", keys=80, rate=200, max_size=3, wait_s=2),
    Group(name="time", keys=80, rate=200, max_size=100, wait_s=0.5),
    Group(name="debounce", keys=40, rate=100, max_size=50, wait_s=0.4, debounce=True, max_wait_s=1.5),
)
"""500 messages a second over 200 keys that close by size, by time and by silence."""


class Allows(Struct, frozen=True, kw_only=True):
    """What a row may cost. The defaults are what holds without any fault, but for duplicates: see there."""

    lost: int = 0
    duplicates: int | None = None
    """Deliveries that may come again; None: as many as were out at the crashes that the row made, by the sink's log."""
    twice: int = 0
    """Messages that may come in two different deliveries: only where the store itself forgot."""
    late_s: float | None = 1.5
    """The first POST of any batch, after it was full or its time had come; None: not judged."""
    first_flush_s: float = 3.0
    """From a crash to the first POST by a new owner."""
    early: int = 0
    """Batches that may come before their time: only where the store's clock is wrong."""
    failed_elsewhere: int = 0
    """Requests that failed at nodes which nothing was done to."""
    refusal_s: float | None = 1.2
    """The slowest answer that was a refusal, at nodes that were not frozen; None: not judged."""
    rss_mib: float = 150.0
    log_errors: tuple[str, ...] = ()
    """Events of level error that nodes may log, beside those that are always allowed."""
    counters: bool = True
    """Hold the nodes' own counters against the ledger, where no node was restarted."""


class Setup(Struct, frozen=True, kw_only=True):
    """What a row runs on. Rows of one kind of rig share its processes, as long as these stay healthy."""

    load: tuple[Group, ...] = STANDARD_LOAD
    load_s: float = 11.0
    """The load lasts at least so long."""
    limit_s: float = 60.0
    """After so long the row's function is given up."""
    nodes: int = 3
    environment: tuple[tuple[str, str], ...] = ()
    """Further settings of all nodes."""
    rig: str = "one store"
    """The kind of rig, a name in `tests.chaos.rigs.KINDS`."""


class Row(Struct, frozen=True, kw_only=True):
    """One row of the fault matrix."""

    numbers: tuple[str, ...]
    title: str
    act: Act
    allows: Allows
    setup: Setup
    smoke: bool

    @property
    def name(self) -> str:
        """`1`, or `3b`, or `10+11`."""
        return "+".join(self.numbers)


REGISTER: list[Row] = []


def row(
    *numbers: int | str,
    title: str,
    allows: Allows = Allows(),  # noqa: B008  frozen
    setup: Setup = Setup(),  # noqa: B008  frozen
    smoke: bool = False,
) -> Callable[[Act], Act]:
    """Register a row. A string such as "3b" numbers one of several variants."""

    def register(act: Act) -> Act:
        names = tuple(map(str, numbers))
        REGISTER.append(Row(numbers=names, title=title, act=act, allows=allows, setup=setup, smoke=smoke))
        return act

    return register


def all_rows() -> list[Row]:
    """Every row in every `rows_*.py` beside this file, by number."""
    for path in sorted(Path(__file__).parent.glob("rows_*.py")):
        import_module(f"{__package__}.{path.stem}")
    return sorted(REGISTER, key=lambda each: (_digits(each.numbers[0]), each.numbers))


def chosen(rows: Iterable[Row], wanted: Iterable[str]) -> list[Row]:
    """Those rows whose number, with or without its letter, is wanted."""
    names = set(wanted)
    known = list(rows)
    unknown = names - {name for each in known for number in each.numbers for name in (number, str(_digits(number)))}
    if unknown:
        raise ValueError(f"no such row: {', '.join(sorted(unknown))}")
    return [each for each in known if names & {n for number in each.numbers for n in (number, str(_digits(number)))}]


def _digits(number: str) -> int:
    return int("".join(filter(str.isdigit, number)))
