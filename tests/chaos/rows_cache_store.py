"""Rows 56 to 59: the cache's own server killed, frozen, slow, and too small."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from time import monotonic

import redis

from tests.chaos.chaos import RECOVERY_S, Chaos
from tests.chaos.coherence_ledger import FOREIGN, Ledger, Looked, Refused, Wrote
from tests.chaos.coherence_load import PINNED
from tests.chaos.coherence_run import SERVER, CacheLoad
from tests.chaos.rig import Rig
from tests.chaos.rig_cache import CacheRig, cache_proxy
from tests.chaos.rows import row
from tests.chaos.rows_cache import OWN_SERVER
from tests.chaos.rows_network import RESET_EVERY_S, RESET_SHARE, SLOW, SLOW_FOR_S
from tests.chaos.rows_store import KNOWN_S, SUDDEN_S
from tests.support.until import until

BEFORE_S = 2.0
"""The pinned keys are near by then."""
DOWN_S = 4.0
REFUSED_S = 3.0
FROZEN_S = 8.0
AFTER_S = RECOVERY_S + 2.0
CONNECTS_MAX = 20
"""A second and node."""
NOTICED_S = 0.05
"""A request that was under way when the server went."""
MEMORY = "12mb"
FILLER_BYTES = 16 * 1024
FILLERS = 4000
EVICTED_MIN = 1000
RATES = {"batches_per_s": 60.0, "gets_per_s": 150.0, "writes_per_s": 150.0}


def polite(ledger: Ledger, down_at: float, up_at: float, known_s: float = KNOWN_S) -> Iterator[str]:
    """What may be wrong about the answers of nodes whose cache has no server from `down_at` to `up_at`: slow ones (once
    that is known: over `known_s`), and refusals before and after."""
    late = []
    lines: list[Refused | Looked | Wrote] = [*ledger.refused, *ledger.looked, *ledger.wrote]
    for each in lines:
        ended = each.acked if isinstance(each, Wrote) else each.ended
        if each.via in (FOREIGN, SERVER) or ended is None:
            continue
        took_s = ended - each.began
        known = isinstance(each, Refused) and down_at + SUDDEN_S < each.began < up_at
        if took_s > (known_s if known else SUDDEN_S):
            late.append(f"{type(each).__name__} at {each.via} took {took_s:.2f} s, {each.began - down_at:.2f} s after")
    yield from late[:5]
    for each in ledger.refused:
        if each.via != FOREIGN and not down_at - NOTICED_S <= each.ended <= up_at + RECOVERY_S:
            yield f"{each.what} at {each.via} answered {each.status}, {each.began - up_at:.2f} s after the return"
            return


def remembered(ledger: Ledger, nodes: set[str], down_at: float, up_at: float) -> Iterator[str]:
    """What may be wrong about reads of keys that every node had near: refused, or not marked; and about the time after:
    still marked, or not served at all."""
    refused = [each for each in ledger.refused if each.what == PINNED and down_at < each.began < up_at]
    if refused:
        first = refused[0]
        yield (
            f"{len(refused)} reads of keys that were near were refused, the first at {first.via} with {first.status} "
            f"after {first.began - down_at:.2f} s"
        )
    marked = {each.via for each in ledger.looked if each.stale and down_at < each.began < up_at}
    if marked != nodes:
        yield f"only {sorted(marked)} served marked answers"
    back = [each for each in ledger.looked if each.began > up_at + RECOVERY_S]
    if any(each.stale for each in back):
        yield f"{sum(each.stale for each in back)} answers were still marked {RECOVERY_S:g} s after the return"
    if not nodes <= {each.via for each in back}:
        yield f"only {sorted({each.via for each in back})} serve again"
    wrote = {each.via for each in ledger.wrote if each.began > up_at + RECOVERY_S and each.acked is not None}
    if not nodes <= wrote:
        yield f"only {sorted(wrote)} write again"


async def connects(rig: Rig, since: float) -> Mapping[str, int]:
    """The most connections that each node tried to make within a second."""
    most = {}
    for node in rig.nodes:
        times = sorted(await rig.toxics.accepted(cache_proxy(node.name), since))
        most[node.name] = max((sum(at <= other < at + 1 for other in times) for at in times), default=0)
    return most


async def judged(rig: Rig, chaos: Chaos, cache: CacheLoad, down_at: float, up_at: float) -> None:
    """Everything that holds for every absence of the server."""
    ledger = cache.ledger
    names = {node.name for node in rig.nodes}
    for problem in (*polite(ledger, down_at, up_at), *remembered(ledger, names, down_at, up_at)):
        chaos.problem(problem)
    most = await connects(rig, down_at)
    chaos.note(f"at most {max(most.values())} connections a second and node")
    chaos.expect(max(most.values()) <= CONNECTS_MAX, f"connections within a second: {most}")
    answers: list[Looked | Refused] = [*ledger.looked, *ledger.refused]
    took = [each.ended - each.began for each in answers if each.via != FOREIGN and down_at < each.began < up_at]
    chaos.note(f"slowest answer meanwhile {max(took, default=0.0):.2f} s")
    first = {
        node: min((w.acked - up_at for w in ledger.wrote if w.via == node and w.acked and w.began > up_at), default=-1)
        for node in sorted(names)
    }
    chaos.note(f"first write after the return: {', '.join(f'{node} {at:.2f} s' for node, at in first.items())}")


@row(56, title="cache: kill -9 of its server, and restart, empty", setup=OWN_SERVER)
async def kill_the_server(rig: Rig, chaos: Chaos) -> None:
    """What is near is served, marked; the rest is refused at once; two seconds after the return all is well. At first
    connections are taken and reset, so that they can be counted, then they are refused."""
    assert isinstance(rig, CacheRig)
    cache = CacheLoad(rig, chaos, RATES, ways=False)
    async with cache:
        await chaos.passing(BEFORE_S)
        down_at = monotonic()
        rig.cache.kill9()
        try:
            await chaos.passing(DOWN_S)
            for node in rig.nodes:
                await rig.toxics.refuse(cache_proxy(node.name))
            await chaos.passing(REFUSED_S)
        finally:
            up_at = monotonic()
            await rig.cache_up()
        cache.emptied(down_at, up_at := monotonic())
        await chaos.passing(AFTER_S)
    await judged(rig, chaos, cache, down_at, up_at)


@row(57, title=f"cache: its server frozen for {FROZEN_S:g} s", setup=OWN_SERVER)
async def freeze_the_server(rig: Rig, chaos: Chaos) -> None:
    """Those whom the hang catches wait a second, nobody else does."""
    assert isinstance(rig, CacheRig)
    cache = CacheLoad(rig, chaos, RATES, ways=False)
    async with cache:
        await chaos.passing(BEFORE_S)
        down_at = monotonic()
        rig.cache.freeze()
        cache.loosen(None, "server frozen", down_at)
        try:
            await chaos.passing(FROZEN_S)
        finally:
            up_at = monotonic()
            rig.cache.thaw()
        cache.loosen(None, "server thawed", up_at)
        await chaos.passing(AFTER_S)
    await judged(rig, chaos, cache, down_at, up_at)


@row(58, title="cache: its server 200±100 ms away, 5 % of connections reset", setup=OWN_SERVER)
async def slow_server(rig: Rig, chaos: Chaos) -> None:
    """Slow is not away: no answer takes longer than a second and a bit, what is near is served."""
    cache = CacheLoad(rig, chaos, RATES, ways=False)
    resets = 0
    async with cache:
        await chaos.passing(BEFORE_S)
        began = monotonic()
        for node in rig.nodes:
            await rig.toxics.set(cache_proxy(node.name), up=SLOW, down=SLOW)
        while monotonic() < began + SLOW_FOR_S:
            await chaos.passing(RESET_EVERY_S)
            for node in rig.nodes:
                resets += await rig.toxics.cut(cache_proxy(node.name), RESET_SHARE)
        for node in rig.nodes:
            await rig.toxics.heal(cache_proxy(node.name))
        ended = monotonic()
        cache.loosen(None, "slow", began, ended - began)
        await chaos.passing(AFTER_S)
    chaos.expect(resets > 0, "no connection was reset")
    for problem in polite(cache.ledger, began, ended, known_s=SUDDEN_S):
        chaos.problem(problem)
    wrote = [each for each in cache.ledger.wrote if began < each.began < ended and each.via != FOREIGN]
    done = sum(each.acked is not None for each in wrote)
    refused = sum(each.what == PINNED and began < each.began < ended for each in cache.ledger.refused)
    chaos.note(f"{resets} resets, {done} of {len(wrote)} writes done, {refused} reads of what was near refused")
    chaos.expect(done > len(wrote) / 2, f"only {done} of {len(wrote)} writes were done")
    chaos.expect(not refused, f"{refused} reads of what was near were refused")


@row(59, title="cache: a server that evicts", setup=OWN_SERVER)
async def evicting_server(rig: Rig, chaos: Chaos) -> None:
    """Entries go, nothing else: every node stays ready, no request is refused, no old value comes back."""
    assert isinstance(rig, CacheRig)
    server = rig.cache
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.command("CONFIG", "SET", "maxmemory", MEMORY)
    cache = CacheLoad(rig, chaos, RATES | {"pinned": 0}, evicts=True)
    unready: list[str] = []
    async with cache:
        await until(cache.linked, 3, every_s=0.1, what="every node has a link")
        for start in range(0, FILLERS, 100):
            await asyncio.to_thread(filled, server.client(), start)
            unready += [node.name for node in rig.nodes if not await node.ready()]
            await chaos.passing(0.1)
    with server.client() as client:
        evicted = int(client.info("stats")["evicted_keys"])
    for setting, value in (("maxmemory", "0"), ("maxmemory-policy", "noeviction")):
        server.command("CONFIG", "SET", setting, value)
    server.command("FLUSHALL")
    chaos.note(f"{evicted} keys evicted")
    chaos.expect(evicted >= EVICTED_MIN, f"only {evicted} keys were evicted")
    chaos.expect(not unready, f"not ready: {sorted(set(unready))}")
    refused = cache.ledger.refused
    chaos.expect(not refused, f"{len(refused)} requests refused, the first: {refused[:1]}")


def filled(client: redis.Redis, start: int) -> None:
    """Write what makes other entries go."""
    with client, client.pipeline(transaction=False) as pipeline:
        for number in range(start, start + 100):
            pipeline.set(f"filler:{number}", b"x" * FILLER_BYTES)
        pipeline.execute()
