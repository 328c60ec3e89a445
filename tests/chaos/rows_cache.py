"""Rows 53 to 55: no read of the cache is older than it may be, whatever happens to links, servers' memory and nodes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from time import monotonic

from msgspec import structs

from tests.chaos.chaos import HOLD, RECOVERY_S, Chaos
from tests.chaos.coherence_ledger import FOREIGN, Ledger
from tests.chaos.coherence_run import CacheLoad
from tests.chaos.rig import Node, Rig
from tests.chaos.rows import STANDARD_LOAD, Allows, Setup, row
from tests.support.until import until

LIGHT = tuple(structs.replace(group, rate=group.rate / 10) for group in STANDARD_LOAD)
"""Fifty messages a second beside the cache's load: they must not notice."""
OWN_SERVER = Setup(rig="cache", load=LIGHT, load_s=0, limit_s=100)
READS_MIN = 1_000_000
LONG_S = 62.0
OWN_S = 30.0
CALM_S = (1.0, 4.0)
"""Between two deeds, so that much is read without a cut, too."""
HELD_S = 2.0
LINKED_S = 3.0
AWAY_S = 2.0
AMID_S = 0.05
Deed = Callable[[CacheLoad, Chaos, Node], Awaitable[None]]


async def kill_link(cache: CacheLoad, _chaos: Chaos, node: Node) -> None:
    """The server hangs up."""
    await cache.kill_link(node)


async def hold_link(cache: CacheLoad, chaos: Chaos, node: Node) -> None:
    """Nothing passes, and nobody is told."""
    await cache.hold_link(node)
    await chaos.passing(HELD_S)
    await cache.rig.toxics.heal(cache.proxy(node))


async def kill_links(cache: CacheLoad, _chaos: Chaos, _node: Node) -> None:
    """The server hangs up on all of them."""
    for node in cache.rig.nodes:
        await cache.kill_link(node)


async def reset_all(cache: CacheLoad, chaos: Chaos, node: Node) -> None:
    """Every connection of a node to the server is reset."""
    fault = chaos.fault(node.name)
    at = monotonic()
    await cache.rig.toxics.cut(cache.proxy(node))
    cache.loosen(node, "all reset", at)
    fault.until = monotonic() + RECOVERY_S


async def hold_all(cache: CacheLoad, chaos: Chaos, node: Node) -> None:
    """Nothing passes between a node and the server."""
    at = monotonic()
    await cache.rig.toxics.set(cache.proxy(node), up=HOLD, down=HOLD)
    cache.loosen(node, "all held", at)
    await chaos.passing(HELD_S)
    healed_at = monotonic()
    await cache.rig.toxics.heal(cache.proxy(node))
    cache.loosen(node, "all released", healed_at)


async def disturbed(cache: CacheLoad, chaos: Chaos, deeds: tuple[Deed, ...], for_s: float) -> None:
    """Do one thing after the other to some node, each several times, in an order by chance."""
    ends_at = monotonic() + for_s
    turn: list[Deed] = []
    done = 0
    while monotonic() < ends_at:
        await chaos.passing(chaos.random.uniform(*CALM_S))
        await until(cache.linked, LINKED_S, every_s=0.1, what="every node has a link again")
        turn = turn or chaos.random.sample(deeds, len(deeds))
        await turn.pop()(cache, chaos, chaos.random.choice(cache.rig.nodes))
        done += 1
    await until(cache.linked, LINKED_S, every_s=0.1, what="every node has a link again")
    chaos.note(f"{done} deeds")


def unprovoked(ledger: Ledger) -> Iterator[str]:
    """Refusals by nodes to which nothing had been done."""
    refused = [
        each
        for each in ledger.refused
        if each.via != FOREIGN
        and not any(
            deed.node == each.via and deed.at <= each.ended and each.began <= deed.until + RECOVERY_S
            for deed in ledger.loosened
        )
    ]
    if refused:
        yield f"{len(refused)} requests were refused for no reason, the first: {refused[0]}"


@row(
    53,
    title="cache: three nodes and a foreign client, links killed, held, reset",
    setup=Setup(load=LIGHT, load_s=0, limit_s=LONG_S + 60),
)
async def coherence(rig: Rig, chaos: Chaos) -> None:
    """A million reads, none older than its bound, on the server that holds the messages, too."""
    cache = CacheLoad(rig, chaos, {"patterns_every_s": 1.0, "flush_every_s": 5.0})
    async with cache:
        await disturbed(cache, chaos, (kill_link, hold_link, kill_links, reset_all), LONG_S)
    chaos.expect(cache.report.reads >= READS_MIN, f"only {cache.report.reads:,} reads")
    for problem in unprovoked(cache.ledger):
        chaos.problem(problem)


@row(54, title="cache: the same on a server of its own, emptied by others, cut off", setup=OWN_SERVER)
async def coherence_on_its_own_server(rig: Rig, chaos: Chaos) -> None:
    """FLUSHALL by somebody else is noticed like anything else; a node that is cut off serves nothing unmarked for more
    than a second."""
    options = {"patterns_every_s": 2.0, "flush_every_s": 5.0, "foreign_flush_every_s": 1.5}
    cache = CacheLoad(rig, chaos, options)
    async with cache:
        await disturbed(cache, chaos, (kill_link, hold_link, reset_all, hold_all), OWN_S)
    for problem in unprovoked(cache.ledger):
        chaos.problem(problem)


@row(55, title="cache: kill -9 of a node amid writes", allows=Allows(late_s=4.0), setup=Setup(load=LIGHT, load_s=0))
async def kill_amid_writes(rig: Rig, chaos: Chaos) -> None:
    """Every write that it acknowledged is there, seen through all others and after its return through itself."""
    await chaos.balanced()
    cache = CacheLoad(rig, chaos, {"writes_per_s": 600.0, "batches_per_s": 60.0})
    async with cache:
        await chaos.passing(2)
        victim = await chaos.pick()
        await chaos.kill(victim)
        await chaos.flushed_by_others(victim)
        await chaos.passing(AWAY_S)
        await chaos.start(victim)
        await chaos.passing(1)
    killed_at = chaos.crashes[-1].at
    done = [each for each in cache.ledger.wrote if each.via == victim.name and each.acked and each.began < killed_at]
    chaos.note(f"{len(done)} writes through it until the kill")
    chaos.expect(max(each.acked or 0 for each in done) > killed_at - AMID_S, "nothing was written just before the kill")
