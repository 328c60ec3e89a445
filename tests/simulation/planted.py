"""Planted: parts with one thing wrong each, to show that the simulation finds such things.

What is planted in the store changes one script; in a node one method or constant. `PLANTED` says which invariants a
fault breaks: it is found when a run breaks one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from actors.core import membership
from actors.node_ports import NodeRecord
from actors.ports import Claimed, Entry, Settle
from tests.simulation.cluster import Mutation
from tests.simulation.scripts import Script
from tests.simulation.server import Server
from tests.simulation.sim_node import SimNode
from tests.simulation.state import Moment, State
from tests.support.until import passing


class Plant(Struct, frozen=True, kw_only=True):
    """`breaks`: invariants, any of which gives it away. `only`: the faults that bring it out, "" for the usual ones.
    `within`: the context in which the runs take place."""

    mutation: Mutation = Mutation()
    breaks: tuple[str, ...]
    only: tuple[str, ...] = ()
    within: Callable[[], Any] | None = None


def _script(name: str, wrong: Callable[[Script], Script]) -> Mutation:
    def plant(server: Server) -> None:
        server.scripts[name] = wrong(server.scripts[name])

    return Mutation(server=plant)


def _unfenced(right: Script) -> Script:
    """The epoch is not looked at."""

    def wrong(state: State, at: Moment, wishes: Sequence[Any]) -> Any:
        return right(state, at, tuple(replace(wish, epoch=state.partition(wish.partition).epoch) for wish in wishes))

    return wrong


def _no_compare(right: Script) -> Script:
    """Whoever asks gets the partition, whoever has it by now."""

    def wrong(state: State, at: Moment, node: str, seen: int, wanted: Sequence[tuple[int, int]]) -> Any:
        return right(state, at, node, seen, [(number, state.partition(number).epoch) for number, _ in wanted])

    return wrong


def _no_dedupe(right: Script) -> Script:
    """Message ids are forgotten at once."""

    def wrong(state: State, at: Moment, window_ms: int, entries: Sequence[Entry]) -> Any:
        for entry in entries:
            state.partition(entry.partition).windows.clear()
        return right(state, at, window_ms, entries)

    return wrong


def _no_line(right: Script) -> Script:
    """Every delivery of a key may start, not only the first."""

    def wrong(state: State, at: Moment, *arguments: Any) -> Any:
        reply = right(state, at, *arguments)
        for of in state.partitions.values():
            for line in of.lines.values():
                for name in line[1:]:
                    if name not in of.busy and of.deliveries[name].status == "pending":
                        of.ready.setdefault(name, at.ms)
        return reply

    return wrong


def _no_freeze(right: Script) -> Script:
    """A retry also sends what has come since."""

    def wrong(state: State, at: Moment, claims: Sequence[Any]) -> Any:
        replies = right(state, at, claims)
        for index, (wish, reply) in enumerate(zip(claims, replies, strict=True)):
            of = state.partition(wish.partition)
            kid = of.deliveries[wish.delivery_id].kid if isinstance(reply, Claimed) else ""
            if kid in of.open:
                later = [(name, us // 1000, payload) for name, us, payload in of.open[kid].messages]
                replies[index] = replace(reply, messages=[*reply.messages, *later])
        return replies

    return wrong


def _no_put_back(right: Script) -> Script:
    """What the last owner had in hand stays in nobody's."""

    def wrong(state: State, at: Moment, *arguments: Any) -> Any:
        before = {of.number: dict(of.busy) for of in state.partitions.values()}
        reply = right(state, at, *arguments)
        for of in state.partitions.values():
            for name in before.get(of.number, {}).keys() - of.busy.keys():
                of.ready.pop(name, None)
        return reply

    return wrong


def _settled_early(node: SimNode) -> None:
    """Deliveries are settled before they are tried."""
    send = node.attempts.webhooks._egress.send

    async def wrong(request: Any) -> Any:
        name = request.headers["webhook-id"]
        held = node.attempts.in_hand[name]
        settle = Settle(
            partition=held.partition,
            epoch=held.epoch,
            delivery_id=name,
            attempt=held.attempt,
            status="delivered",
            log=b"",
        )
        await node.attempts._work.ask(settle)
        return await send(request)

    setattr(node.attempts.webhooks._egress, "send", wrong)  # noqa: B010  mypy takes no other method for it


def _always_acts(node: SimNode) -> None:
    """A node does not ask itself whether it may still act."""
    setattr(node.ownership, "may_act", lambda _partition, _epoch: True)  # noqa: B010


def _no_tail(node: SimNode) -> None:
    """Nothing is brought back to a store that has lost its end."""
    node.lanes.unreplayed = tuple


def _no_sweep(node: SimNode) -> None:
    """What a node was not told of it does not look for."""

    async def wrong() -> tuple[int, int]:
        return 0, 0

    setattr(node.sweeper, "run_once", wrong)  # noqa: B010


def _hasty(node: SimNode) -> None:
    """A planned move does not wait for what is under way."""
    node.handover.busy = tuple


def _no_look(node: SimNode) -> None:
    """A node that may have been taken for dead does not look before it acts again."""
    beaten = node.ownership.beaten

    async def beat_first() -> None:
        while True:
            await passing(membership.BEAT_S)
            beaten(node.clock.boottime())

    node.supervisor.service("hasty", beat_first)


def _same_incarnation(right: Script) -> Script:
    """A beat does not change a node's record."""

    def wrong(state: State, at: Moment, own: NodeRecord, *rest: Any) -> Any:
        known = state.nodes.get(own.node)
        return right(state, at, own if known is None else replace(own, beat=known.beat), *rest)

    return wrong


@contextmanager
def _no_gap() -> Iterator[None]:
    """Reads far apart count as uninterrupted."""
    gap_s = membership.GAP_S
    setattr(membership, "GAP_S", float("inf"))  # noqa: B010  a constant, but for this
    try:
        yield
    finally:
        setattr(membership, "GAP_S", gap_s)  # noqa: B010


STANDS_STILL = ("freeze", "pause", "kill")
CUT_OFF = ("cut", "cut", "webhook")
PLANTED: Mapping[str, Plant] = {
    "close unfenced": Plant(mutation=_script("close", _unfenced), breaks=("I3",), only=CUT_OFF),
    "claim unfenced": Plant(mutation=_script("claim", _unfenced), breaks=("I3",), only=("slow", "cut")),
    "settle unfenced": Plant(mutation=_script("settle", _unfenced), breaks=("I3",), only=CUT_OFF),
    "release unfenced": Plant(mutation=_script("release", _unfenced), breaks=("I3",), only=CUT_OFF),
    "acquire compares nothing": Plant(mutation=_script("acquire", _no_compare), breaks=("I3",)),
    "append takes everything": Plant(mutation=_script("append", _no_dedupe), breaks=("I4",)),
    "all of a line start": Plant(mutation=_script("append", _no_line), breaks=("I4", "I5")),
    "a retry sends more": Plant(mutation=_script("claim", _no_freeze), breaks=("I2",)),
    "nothing is put back": Plant(mutation=_script("acquire", _no_put_back), breaks=("I9",), only=STANDS_STILL),
    "beats change nothing": Plant(mutation=_script("beat", _same_incarnation), breaks=("I3",)),
    "settled before tried": Plant(mutation=Mutation(node=_settled_early), breaks=("I1",)),
    "may always act": Plant(mutation=Mutation(node=_always_acts), breaks=("I3",)),
    "acts before it looks": Plant(mutation=Mutation(node=_no_look), breaks=("I3",)),
    "no tail": Plant(mutation=Mutation(node=_no_tail), breaks=("I1",), only=("rollback",)),
    "no sweep": Plant(mutation=Mutation(node=_no_sweep), breaks=("I9", "I6")),
    "moves cut off requests": Plant(mutation=Mutation(node=_hasty), breaks=("I3", "I4")),
    "gaps are ignored": Plant(breaks=("I3",), only=("pause", "restart"), within=_no_gap),
}
