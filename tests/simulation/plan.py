"""Plan: what is done to a cluster in one run, drawn from its seed: which faults, to whom, when and for how long.

A fault is a name in `DOES`; each notes in the account of faults what it did. At the end `heal` makes everything well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from actors.membership import LOOK_S
from tests.simulation.cluster import Cluster
from tests.simulation.faults import STORE, Kind
from tests.simulation.loop import Process
from tests.simulation.webhooks import Mode
from tests.simulation.wires import QUICK_S

HOUR_S = 3600.0
SLOW_S = (0.02, 0.3)
Does = Callable[[Cluster], None]


def _somebody(cluster: Cluster) -> str | None:
    names = [name for name in cluster.living() if not cluster.nodes[name].process.frozen]
    return cluster.random.choice(names) if names else None


def _note(cluster: Cluster, kind: Kind, target: str, seconds: float, detail: object = "") -> None:
    now = cluster.loop.now
    cluster.audit.faults.note(kind, target, now, now + seconds)
    cluster.trace.note("FAULT", kind, (target, round(seconds, 6), detail))


def kill(cluster: Cluster) -> None:
    """A process dies; a new one of its name comes up later, or not before the end."""
    name = _somebody(cluster)
    if name is None or len(cluster.living()) < 2:
        return
    _note(cluster, "kill", name, 0.0)
    cluster.kill(name)
    if cluster.random.random() < 0.7:
        cluster.loop.after(cluster.random.uniform(0.05, 6.0), partial(_start, cluster, name))


def stop(cluster: Cluster) -> None:
    """A planned stop, and perhaps a start later."""
    name = _somebody(cluster)
    if name is None or len(cluster.living()) < 2:
        return
    _note(cluster, "stop", name, 4.5)
    cluster.stop(name)
    if cluster.random.random() < 0.7:
        cluster.loop.after(cluster.random.uniform(4.6, 8.0), partial(_start, cluster, name))


def freeze(cluster: Cluster) -> None:
    """A process stands still and goes on later."""
    _still(cluster, asleep=False)


def sleep(cluster: Cluster) -> None:
    """A machine sleeps: its monotonic time stands still as well."""
    _still(cluster, asleep=True)


def _still(cluster: Cluster, asleep: bool) -> None:
    name = _somebody(cluster)
    if name is None:
        return
    seconds = cluster.random.choice((0.3, 1.0, 1.4, 1.6, 1.9, 2.1, 2.5, 4.0, 6.0)) + cluster.random.uniform(0.0, 0.3)
    _note(cluster, "sleep" if asleep else "freeze", name, seconds)
    process = cluster.nodes[name].process
    process.freeze()
    cluster.loop.after(seconds, partial(_thaw, cluster, process, seconds if asleep else 0.0))


def _thaw(cluster: Cluster, process: Process, slept_s: float) -> None:
    if process.frozen and not process.dead:
        cluster.trace.note("FAULT", "goes on", process.name)
        process.thaw(cluster.loop, slept_s, timers_first=cluster.random.random() < 0.5)


def cut(cluster: Cluster) -> None:
    """A node and the store cannot reach each other, or only in one direction."""
    name = _somebody(cluster)
    if name is None:
        return
    random, path = cluster.random, cluster.nodes[name].lanes.path
    seconds, way = random.uniform(0.1, 5.0), random.choice(("both", "both", "out", "in"))
    _note(cluster, "cut", name, seconds, way)
    until = cluster.loop.now + seconds
    if way != "in":
        path.out_blocked_until = until
    if way != "out":
        path.in_blocked_until = until


def slow(cluster: Cluster) -> None:
    """A node's way to the store is slow for a while."""
    name = _somebody(cluster)
    if name is None:
        return
    path, seconds = cluster.nodes[name].lanes.path, cluster.random.uniform(0.5, 4.0)
    _note(cluster, "slow", name, seconds)
    path.delay_s = SLOW_S

    def end() -> None:
        path.delay_s = QUICK_S

    cluster.loop.after(seconds, end)


def apart(cluster: Cluster) -> None:
    """A node and the other nodes cannot reach each other; all reach the store."""
    name = _somebody(cluster)
    if name is not None:
        seconds = cluster.random.uniform(0.2, 5.0)
        _note(cluster, "apart", name, seconds)
        cluster.apart[name] = cluster.loop.now + seconds


def reset(cluster: Cluster) -> None:
    """A node's connections break; they can be made anew at once."""
    name = _somebody(cluster)
    if name is not None:
        _note(cluster, "reset", name, 0.0)
        cluster.nodes[name].lanes.path.reset()


def restart(cluster: Cluster) -> None:
    """The store dies and comes back with all it had."""
    _restart(cluster, 0.0)


def rollback(cluster: Cluster) -> None:
    """The store dies and comes back without the end of its log."""
    _restart(cluster, cluster.random.uniform(0.01, 2.0))


def _restart(cluster: Cluster, lost_s: float) -> None:
    server = cluster.server
    if not server.up or server.paused:
        return
    seconds = cluster.random.choice((0.02, 0.2, 1.0, 2.0, 5.0)) * cluster.random.uniform(0.8, 1.2)
    _note(cluster, "away", STORE, seconds)
    lost = server.stop(lost_s)
    if lost_s:
        now = cluster.loop.now
        cluster.audit.faults.note("rollback", STORE, now - lost_s, now)
        cluster.trace.note("FAULT", "rollback", (round(lost_s, 6), lost))
    cluster.loop.after(seconds, server.start)


def pause(cluster: Cluster) -> None:
    """The store stands still and goes on later with what has come meanwhile."""
    server = cluster.server
    if not server.up or server.paused:
        return
    seconds = cluster.random.choice((0.1, 0.9, 1.2, 3.0, 6.0)) * cluster.random.uniform(0.8, 1.2)
    _note(cluster, "paused", STORE, seconds)
    server.pause()

    def end() -> None:
        if server.paused:
            server.resume()

    cluster.loop.after(seconds, end)


def clock(cluster: Cluster) -> None:
    """The store's clock jumps by an hour; one that jumped back is put right in the end, as what is due waits for it."""
    jump_s = cluster.random.choice((-HOUR_S, HOUR_S))
    _note(cluster, "clock", STORE, HOUR_S if jump_s < 0 else 0.0, jump_s)
    cluster.server.jump(jump_s)


def webhook(cluster: Cluster) -> None:
    """A host behaves badly for a while, or loses answers."""
    random, hosts = cluster.random, cluster.hosts
    host, mode = random.choice(("a.example", "b.example")), random.choice(("slow", "hangs", "fails", "refuses"))
    seconds = random.uniform(0.5, 5.0)
    _note(cluster, "webhook", host, seconds, mode)
    hosts.modes[host] = _MODES[mode]
    cluster.loop.after(seconds, lambda: hosts.modes.pop(host, None))


_MODES: Mapping[str, Mode] = {"slow": "slow", "hangs": "hangs", "fails": "fails", "refuses": "refuses"}
DOES: Mapping[str, Does] = {
    does.__name__: does
    for does in (kill, stop, freeze, sleep, cut, slow, apart, reset, restart, rollback, pause, clock, webhook)
}
OFTEN = ("kill", "kill", "freeze", "freeze", "cut", "stop", "rollback", "webhook")
"""Drawn more often than the others."""


MANY = 6


def lay(cluster: Cluster, load_s: float, only: Sequence[str] = ()) -> int:
    """Draw the faults of a run and set them going; gives how many. `only` these kinds, and many of them."""
    random = cluster.random
    many = MANY if only else random.choice((0, 1, 1, 1, 2, 2, 3, 4, 6))
    for _ in range(many):
        name = random.choice(only or (*DOES, *OFTEN))
        cluster.loop.after(random.uniform(0.5, load_s), partial(DOES[name], cluster))
    if many and random.random() < 0.3:
        cluster.hosts.lost_answers = random.choice((0.05, 0.2))
    if random.random() < 0.3:
        cluster.hosts.flaky = random.choice((0.05, 0.2))
    if random.random() < 0.3:
        cluster.bell_loss = random.choice((0.2, 1.0))
        cluster.audit.bell_excuse_s = LOOK_S
    return many


def heal(cluster: Cluster) -> None:
    """Nothing is wrong any more: the store is there, every node runs, every host answers."""
    cluster.hosts.modes.clear()
    cluster.apart.clear()
    cluster.bell_loss = 0.0
    cluster.server.clock_error_s = cluster.server.clock_error_s_max
    cluster.hosts.flaky = cluster.hosts.lost_answers = 0.0
    for name, node in list(cluster.nodes.items()):
        path = node.lanes.path
        path.delay_s = QUICK_S
        if max(path.out_blocked_until, path.in_blocked_until) > cluster.loop.now:
            path.out_blocked_until = path.in_blocked_until = 0.0
            path.reset()
        if node.process.dead and cluster.random.random() < 0.5:
            _start(cluster, name)
    if not cluster.living():
        _start(cluster, next(iter(cluster.nodes)))


def _start(cluster: Cluster, name: str) -> None:
    if cluster.nodes[name].process.dead:
        _note(cluster, "start", name, 0.0)
        cluster.start(name)
