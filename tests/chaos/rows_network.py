"""Rows 13 to 16: connections that are slow, reset, cut and half open."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from tests.chaos.chaos import HOLD, RECOVERY_S, SELF_FENCE_S, Chaos
from tests.chaos.evidence import Evidence, Try
from tests.chaos.rig import Node, Rig
from tests.chaos.rows import Allows, Setup, row
from tests.chaos.rows_store import KNOWN_S, SUDDEN_S
from tests.chaos.toxics import NONE, Toxic

SLOW = Toxic(latency_ms=100, jitter_ms=50)
"""Each way: a round trip takes 200 ms, 100 more or less."""
SLOW_FOR_S = 8.0
RESET_EVERY_S = 0.4
RESET_SHARE = 0.05
GOODPUT = 0.5 * 500
ON_THE_WAY_S = 0.25
"""A request that was written in time is read this late at most, on a busy machine."""
CUT_FOR_S = 6.0
PEERS_CUT_FOR_S = 4.0
USUAL_S = 3.0
ADDED_P99_S = 0.060
FORWARDED = 'buzon_forwards_total{outcome="done"}'


@row(13, title="the store 200±100 ms away, 5 % of connections reset", allows=Allows(late_s=3.0, counters=False))
async def slow_store(rig: Rig, chaos: Chaos) -> None:
    """Slow is not away: at least half gets through, and nothing twice."""
    await chaos.balanced()
    fault = chaos.fault()
    for node in rig.nodes:
        await rig.toxics.set(node.store_proxy, up=SLOW, down=SLOW)
    began = monotonic()
    resets = 0
    while monotonic() < began + SLOW_FOR_S:
        await chaos.passing(RESET_EVERY_S)
        for node in rig.nodes:
            resets += await rig.toxics.cut(node.store_proxy, RESET_SHARE)
    ended = monotonic()
    for node in rig.nodes:
        await rig.toxics.heal(node.store_proxy)
    fault.until = monotonic() + RECOVERY_S
    chaos.expect(resets > 0, "no connection was reset")
    await chaos.passing(RECOVERY_S)

    def goodput(evidence: Evidence) -> Iterator[str]:
        count = sum(each.acknowledged and began < each.answered_at < ended for each in evidence.tries)
        rate = count / (ended - began)
        chaos.note(f"{resets} resets, {rate:.0f} messages/s acknowledged meanwhile")
        if rate < GOODPUT:
            yield f"only {rate:.0f} messages/s were acknowledged"

    chaos.judge(goodput)


@row(14, title="one node cut off from the store", allows=Allows(late_s=4.5))
async def cut_off(_rig: Rig, chaos: Chaos) -> None:
    """It stops acting before the others take over, and refuses quickly."""
    await chaos.balanced()
    victim = await chaos.pick()
    await chaos.cut(victim)
    await stay_cut(chaos, victim)


@row(16, title="one node that hears nothing of the store but is heard", allows=Allows(late_s=4.5, first_flush_s=4.0))
async def half_open(_rig: Rig, chaos: Chaos) -> None:
    """What it writes arrives, no answer does: no request to it hangs longer than a second, and the others take over."""
    await chaos.balanced()
    victim = await chaos.pick()
    await chaos.cut(victim, up=NONE, down=HOLD)
    await stay_cut(chaos, victim)


async def stay_cut(chaos: Chaos, victim: Node) -> None:
    """Wait for the others, mend it, and judge what the node did meanwhile."""
    cut_at = chaos.crashes[-1].at
    await chaos.flushed_by_others(victim)
    await chaos.passing(max(0.0, cut_at + CUT_FOR_S - monotonic()))
    mended_at = monotonic()
    await chaos.mend(victim)
    await chaos.passing(RECOVERY_S)

    def judge(evidence: Evidence) -> Iterator[str]:
        fenced_at = cut_at + SELF_FENCE_S + ON_THE_WAY_S
        for post in evidence.posts:
            if post.begun.node == victim.name and fenced_at < post.begun.at < mended_at:
                yield f"the cut-off node began {post.begun.webhook_id} after {post.begun.at - cut_at:.2f} s"
        for each in evidence.tries:
            if each.node != victim.name or not cut_at < each.sent_at < mended_at - SUDDEN_S:
                continue
            took_s = each.answered_at - each.sent_at
            if took_s > (SUDDEN_S if each.sent_at < cut_at + SUDDEN_S else KNOWN_S):
                yield f"{each.id} hung for {took_s:.2f} s at the cut-off node, {each.sent_at - cut_at:.2f} s after"

    chaos.judge(judge)


@row(
    15,
    title="nodes cut off from each other only",
    allows=Allows(duplicates=0, counters=False),
    setup=Setup(environment=(("INGEST", "forward"),)),
)
async def cut_between_nodes(rig: Rig, chaos: Chaos) -> None:
    """What cannot be handed to its owner is stored at once: no request fails, none takes much longer. One that arrived
    though its answer did not is stored again under its id, so the nodes' own counts have it twice."""
    await chaos.balanced()
    before = await forwards(rig)
    measured_at = monotonic()
    await chaos.passing(USUAL_S)
    forwarded = await forwards(rig) - before
    chaos.expect(forwarded > 100, f"only {forwarded:.0f} messages were handed to their owners before the cut")
    cut_at = monotonic()
    for node in rig.nodes:
        await chaos.cut_peers(node)
    await chaos.passing(PEERS_CUT_FOR_S)
    mended_at = monotonic()
    for node in rig.nodes:
        await chaos.mend_peers(node)
    before = await forwards(rig)
    await chaos.passing(RECOVERY_S)
    chaos.expect(await forwards(rig) > before, "nothing is handed to its owner any more")

    def judge(evidence: Evidence) -> Iterator[str]:
        usual = p99_s([each for each in evidence.tries if measured_at < each.sent_at < cut_at])
        meanwhile = p99_s([each for each in evidence.tries if cut_at < each.sent_at < mended_at])
        chaos.note(f"p99 {usual * 1e3:.0f} ms, {meanwhile * 1e3:.0f} ms while cut")
        if meanwhile - usual > ADDED_P99_S:
            yield f"p99 rose from {usual * 1e3:.0f} to {meanwhile * 1e3:.0f} ms"

    chaos.judge(judge)


def p99_s(tries: list[Try]) -> float:
    """How long all but one in a hundred took at most."""
    times = sorted(each.answered_at - each.sent_at for each in tries)
    return times[int(len(times) * 0.99)]


async def forwards(rig: Rig) -> float:
    """How many messages all nodes have handed to their owners so far, by their own count."""
    total = 0.0
    for node in rig.nodes:
        page = (await rig.client(node).call("GET", "/metrics")).body.decode()
        total += sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(FORWARDED))
    return total
