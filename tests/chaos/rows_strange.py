"""Rows 20, 23 and 24: a store that must not be used, one that is not ours any more, one that forgets its scripts."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic

from actors.adapters.valkey.keys import CONFIG
from tests.chaos.chaos import READY_S, RECOVERY_S, Chaos
from tests.chaos.checker import SETTLE_S, check
from tests.chaos.evidence import Evidence
from tests.chaos.rig import Node, Rig
from tests.chaos.rows import Allows, Setup, row
from tests.chaos.rows_store import full_rate
from tests.support.client import Client
from tests.support.node import NodeProcess, answers_200
from tests.support.until import until
from tests.support.valkey import ValkeyServer

ANY = 1_000_000
"""The row itself judges which."""
SHARED = Setup(rig="machines")
"""Nothing of it is needed here, but the rows before and after run on it."""
NOTICED_S = 1.0
"""A node notices with its next beat, a third of a second later, that the store is not its own any more."""
STRANGE_S = 2.0
OTHER_CLUSTER = "0123456789abcdef"
STARTS_S = 4.0
"""Nodes that start beside the load take the cores from it."""
FLUSH_EVERY_S = 0.05
FLUSHES = 100
UNSAFE = {
    "maxmemory-policy": ("--maxmemory-policy", "allkeys-lru"),
    "appendonly": ("--appendonly", "no"),
}
ALARM = "store must not be used"


@row(
    20,
    title="a store that evicts, one without a log, at the start",
    allows=Allows(duplicates=0, late_s=STARTS_S),
    setup=SHARED,
)
async def unsafe_store(rig: Rig, chaos: Chaos) -> None:
    """The node says so, names the setting and is not ready; unless it was told that this is wanted."""
    for setting, options in UNSAFE.items():
        store = ValkeyServer(tcp=True)
        try:
            store.start(*options)
            await refuses_to_serve(rig, chaos, store, setting)
        finally:
            store.close()


async def refuses_to_serve(rig: Rig, chaos: Chaos, store: ValkeyServer, setting: str) -> None:
    """One node on an unsafe store: not ready with a reason, ready when it is allowed to be."""
    node = NodeProcess(rig.directory / f"unsafe-{setting}-{monotonic():.0f}", redis_url=store.url)
    try:
        node.launch()

        async def answers() -> bool:
            return node.child.exit_code is not None or await answers_200(node.port, "/livez")

        await until(answers, READY_S, every_s=0.05, what="the node answers or ends")
        if node.child.exit_code is not None:
            chaos.expect(setting in node.output(), f"the node ended without naming {setting}: {node.output()}")
            return
        ready = await Client(rig.http, node.url).call("GET", "/readyz")
        chaos.expect(ready.status == 503, f"the node is ready on a store whose {setting} is unsafe: {ready.status}")
        chaos.expect(setting in ready.body.decode(), f"/readyz does not name {setting}: {ready.body.decode()}")
        chaos.expect(setting in node.output(), f"the log does not name {setting}")
        stopped = await node.sigterm()
        chaos.expect(stopped.exit_code == 0, f"exit code {stopped.exit_code}")
        node.environment["ALLOW_UNSAFE_STORE"] = "true"
        await node.start()
        await node.sigterm()
    finally:
        node.close()


@row(
    23,
    title="another database where the store's was: empty, then another cluster's; then the right one again",
    allows=Allows(lost=ANY, duplicates=ANY, late_s=NOTICED_S + 2 * STRANGE_S + 3),
    setup=SHARED,
)
async def wrong_database(rig: Rig, chaos: Chaos) -> None:
    """Nodes take no part in it and say so; nobody makes it theirs. With the old data all is as before; only what was
    acknowledged before anybody could notice stays in the wrong place."""
    await chaos.balanced()
    with rig.store.client() as store:
        record = store.hgetall(CONFIG)
        alarms = [alarmed(node) for node in rig.nodes]
        chaos.fault()
        swapped_at = monotonic()
        store.execute_command("SWAPDB", 0, 1)
        try:
            await refused_by_all(rig, chaos, "an empty store")
            store.execute_command("CLIENT", "KILL", "TYPE", "normal")
            await chaos.passing(STRANGE_S)
            await refused_by_all(rig, chaos, "an empty store, connected anew")
            chaos.expect(not store.exists(CONFIG), "somebody made the empty store a cluster's")
            store.hset(CONFIG, mapping=record | {"cluster": OTHER_CLUSTER})
            store.execute_command("CLIENT", "KILL", "TYPE", "normal")
            await chaos.passing(STRANGE_S)
            await refused_by_all(rig, chaos, "another cluster's store")
            chaos.expect(store.hget(CONFIG, "cluster") == OTHER_CLUSTER, "somebody took the other cluster's store")
        finally:
            store.execute_command("SWAPDB", 0, 1)
            back_at = monotonic()
            with rig.store.client() as other:
                other.select(1)
                other.flushdb()
    for node, before in zip(rig.nodes, alarms, strict=True):
        chaos.expect(alarmed(node) > before, f"{node.name} raised no alarm")
    chaos.recovered(after_s=RECOVERY_S)
    full_rate(chaos, back_at + RECOVERY_S)
    await chaos.passing(RECOVERY_S + 2)

    def unnoticed(evidence: Evidence) -> Iterator[str]:
        report = check(evidence)
        noticed_at = swapped_at + NOTICED_S
        for each in evidence.tries:
            if each.acknowledged and each.id in report.lost and not swapped_at < each.answered_at < noticed_at:
                yield f"{each.id} is lost, acknowledged {each.answered_at - swapped_at:.2f} s after the exchange"
        first = {post.begun.webhook_id: post.answered_at for post in reversed(evidence.posts) if post.taken}
        for batch in report.repeated:
            if not swapped_at - SETTLE_S < first[batch] < noticed_at:
                yield f"{batch} came again, first taken {first[batch] - swapped_at:.2f} s after the exchange"
        chaos.note(f"{len(report.lost)} acknowledged into the wrong database before it was noticed")

    chaos.judge(unnoticed)


async def refused_by_all(rig: Rig, chaos: Chaos, what: str) -> None:
    """Every node is unready within a moment."""

    async def none_ready() -> bool:
        return not any([await node.ready() for node in rig.nodes])

    await until(none_ready, NOTICED_S, every_s=0.05, what=f"no node is ready with {what}")
    chaos.expect(all([await answers_200(node.process.port, "/livez") for node in rig.nodes]), "a node is not alive")


def alarmed(node: Node) -> int:
    """How often a node has raised the alarm."""
    return node.process.child.stderr_path.read_text().count(ALARM)


@row(24, title="scripts flushed twenty times a second", allows=Allows(duplicates=0), setup=SHARED)
async def forgotten_scripts(rig: Rig, chaos: Chaos) -> None:
    """Nobody notices."""
    await chaos.balanced()
    with rig.store.client() as store:
        for _ in range(FLUSHES):
            store.script_flush()
            await chaos.passing(FLUSH_EVERY_S)
