"""Rows 29 and 40 to 42: a hundred thousand idle keys, floods of one key and of all, and takeovers with many keys."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import TypeVar

import msgspec
from msgspec import Struct, structs

from actors.adapters.valkey.keys import PREFIXES
from tests.bench.load import LoadResult, LoadSpec
from tests.bench.messages import MessageSpec, message_number
from tests.bench.prober import ProbeResult, ProbeSpec
from tests.bench.readings import resident_bytes
from tests.bench.throughput import NOWHERE
from tests.chaos import stretch
from tests.chaos.chaos import DEAD_AFTER_S, Chaos
from tests.chaos.checker import percentile
from tests.chaos.evidence import Evidence
from tests.chaos.flood import Flooded
from tests.chaos.owners import settled_owners
from tests.chaos.rig import Node, Rig
from tests.chaos.rows import STANDARD_LOAD, Allows, Setup, row
from tests.chaos.stretch import MIB
from tests.support.behaviours import Behaviour
from tests.support.child import Child
from tests.support.sink import Received, Sink
from tests.support.until import until

T = TypeVar("T")
LIGHT = tuple(structs.replace(group, rate=group.rate / 5) for group in STANDARD_LOAD)
"""A hundred messages a second: what is measured is somebody else's doing."""
OTHERS = stretch.of_group(*(group.name for group in STANDARD_LOAD))
IDLE_KEYS = 100_000
STALLS_OF_THE_MACHINE = 1
"""Over 50 ms, in ten thousand probes. Garbage collection would stall each time it looks through all keys."""
FILL_S = 90.0
REST_S = 5.0
"""The nodes keep what they acknowledged for 4 s, to say it again to a restarted store."""
BYTES_MAX = 1200
DETECTION_S = DEAD_AFTER_S + 0.4
"""T, and a beat."""
FLOOD_S = 4.0
FLOOD_CONNECTIONS = 600
"""More than twice the 256 asks that one key's mailbox takes, each with its next message as soon as it is answered."""
OTHERS_SHARE = 0.20
OTHERS_FLOOR_S = 0.250
"""The flood's sender has the same two cores."""
REFUSAL_S = 1.2
"""The longest that any answer may take."""
PEAK_S = 2.5
PEAK_CONNECTIONS = 120
OVER_CONNECTIONS = 1500
"""As many as keep every queue full for as long as a client may wait. Ten times the capacity is more than two cores
can send."""
GOODPUT = 0.9
OPEN_KEYS = 10_000
WAITS = ("9.0000", *("3600.0",) * 9)
"""A tenth of the keys falls due as the owner dies; the others only lie there."""
DUE_S = 9.0
HEAD_START_S = 0.5
DUE_LATE_S = 4.0
FLOODED = Allows(late_s=4.0, counters=False)
"""The nodes count what the driver did not send, too."""


class Named(Struct, frozen=True):
    """A message of an envelope."""

    message_id: str


class Envelope(Struct, frozen=True):
    """The body of a delivery."""

    messages: list[Named]


class CountingSink(Sink):
    """A webhook for what the driver does not send: when each message came first, and how many in two deliveries."""

    def __init__(self) -> None:
        super().__init__(keep=False)
        self.arrived: dict[int, float] = {}
        self.twice = 0
        self._seen: set[str] = set()

    def take(self, request: Received) -> Behaviour:
        """Look into a delivery once, however often it comes."""
        batch = request.headers["webhook-id"]
        if batch not in self._seen:
            self._seen.add(batch)
            for message in msgspec.json.decode(request.body, type=Envelope).messages:
                number = message_number(message.message_id)
                self.twice += number in self.arrived
                self.arrived.setdefault(number, monotonic())
        return super().take(request)


async def ran(rig: Rig, module: str, spec: Struct, of: type[T], within_s: float) -> T:
    """Run a program of the benchmark to its end and give its result."""
    log = rig.directory / f"{module.rpartition('.')[2]}-{monotonic():.3f}"
    with Child([sys.executable, "-m", module, msgspec.json.encode(spec).decode()], log) as child:
        await until(lambda: child.exit_code is not None, within_s, every_s=0.02, what=f"{module} ends")
        assert child.exit_code == 0, child.output()
        return msgspec.json.decode(child.stdout_path.read_bytes(), type=of)


async def flooded(rig: Rig, spec: LoadSpec) -> Flooded:
    """Flood, and give what came of it."""
    return await ran(rig, "tests.chaos.flood", spec, Flooded, spec.seconds + 15)


def polite(chaos: Chaos, flood: Flooded) -> None:
    """Refusals are those of the contract, and quick."""
    chaos.expect(set(flood.statuses) <= {"200", "429", "503"}, f"answered {flood.statuses}")
    chaos.expect(not flood.without_retry_after, f"{flood.without_retry_after} refusals without Retry-After")
    chaos.expect(flood.refusals_p99_s <= REFUSAL_S, f"refusals took {flood.refusals_p99_s:.2f} s")


async def all_delivered(chaos: Chaos, sink: CountingSink, *floods: Flooded) -> None:
    """What the flood was promised has come, once."""
    accepted = {number for flood in floods for number in flood.accepted}
    await until(lambda: accepted <= sink.arrived.keys(), 20, every_s=0.1, what="the flood is delivered")
    chaos.expect(not sink.twice, f"{sink.twice} messages of the flood came in two deliveries")


@row(40, title="one key flooded", allows=FLOODED, setup=Setup(load_s=0))
async def flood_one_key(rig: Rig, chaos: Chaos) -> None:
    """Its mailbox is full: 503 with Retry-After, at once. Nobody else is refused, and at other nodes nobody waits."""
    await chaos.balanced()
    node = await chaos.pick()
    async with CountingSink() as sink:
        tag = f"one{chaos.random.randrange(10**6)}"
        message = MessageSpec(sink=sink.url(), tag=tag, keys=1, max_size=1000, waits=("0.5",), aggregate=False)
        spec = LoadSpec(port=node.process.port, message=message, connections=FLOOD_CONNECTIONS, seconds=FLOOD_S)
        quiet = stretch.begin()
        await chaos.passing(2.5)
        loud = quiet.end()
        flood = await flooded(rig, spec)
        loud.end()
        await all_delivered(chaos, sink, flood)
    sent = sum(flood.statuses.values())
    chaos.note(f"{sent / flood.seconds:.0f} messages/s: {flood.statuses}; refused within {flood.refusals_p99_s:.3f} s")
    chaos.expect("503" in flood.statuses, "nothing was refused")
    polite(chaos, flood)

    def others(evidence: Evidence) -> Iterator[str]:
        for what, here in (("at the flooded node", True), ("at the others", False)):
            asked = structs.replace(evidence, tries=[t for t in evidence.tries if (t.node == node.name) is here])
            before, now = (stretch.answered_in(asked, each, OTHERS) for each in (quiet, loud))
            chaos.note(stretch.compared(f"other keys' answers {what}", before, now))
            if here and percentile(now, 0.99) > REFUSAL_S:
                yield f"other keys' answers {what} took {percentile(now, 0.99):.2f} s at the 99th percentile"
            elif not here:
                yield from stretch.slower(f"other keys' answers {what}", before, now, OTHERS_SHARE, OTHERS_FLOOR_S)
        late = [stretch.late(evidence, each, OTHERS) for each in (quiet, loud)]
        chaos.note(stretch.compared("other keys' lateness", *late))

    chaos.judge(others)


@row(
    41,
    title="all keys flooded",
    allows=Allows(late_s=None, refusal_s=None, counters=False),
    setup=Setup(load=LIGHT, load_s=0),
)
async def flood_all_keys(rig: Rig, chaos: Chaos) -> None:
    """As much as at the best of times gets through, the rest is refused; memory stays bounded, nobody seems dead."""
    await chaos.balanced()
    before = await settled_owners(chaos)
    first, *more = rig.ports().values()
    async with CountingSink() as sink:
        tag = f"all{chaos.random.randrange(10**6)}"
        message = MessageSpec(sink=sink.url(), tag=tag, keys=500, max_size=1000, waits=("2.0",), aggregate=False)
        peak = LoadSpec(
            port=first, more_ports=tuple(more), message=message, connections=PEAK_CONNECTIONS, seconds=PEAK_S
        )
        faults = [chaos.fault(node.name) for node in rig.nodes]
        best = await flooded(rig, peak)
        over = structs.replace(peak, first=10**6, connections=OVER_CONNECTIONS, seconds=FLOOD_S)
        flood = await flooded(rig, over)
        again = await flooded(rig, structs.replace(peak, first=2 * 10**6))
        for fault in faults:
            fault.until = monotonic() + 1
        await all_delivered(chaos, sink, best, flood, again)
    peak_rate = (best.rate + again.rate) / 2
    chaos.note(f"{flood.rate:.0f} messages/s of {peak_rate:.0f} at best; {flood.statuses}")
    chaos.expect(flood.rate >= GOODPUT * peak_rate, f"goodput fell from {peak_rate:.0f}/s to {flood.rate:.0f}/s")
    polite(chaos, flood)
    chaos.expect(await chaos.owners() == before, "partitions changed hands")


async def taken_over(chaos: Chaos, victim: Node, owned: frozenset[int], within_s: float) -> None:
    """Wait until others own everything that a killed node had."""
    killed_at = chaos.crashes[-1].at

    async def done() -> bool:
        owners = await chaos.owners()
        return all(owners[partition][0] not in ("", victim.name) for partition in owned)

    await until(done, DETECTION_S + within_s + 2, every_s=0.02, what="others own everything")
    took_s = monotonic() - killed_at
    chaos.note(f"all {len(owned)} partitions taken over {took_s:.2f} s after the kill")
    chaos.expect(
        took_s <= DETECTION_S + within_s, f"takeover took {took_s:.2f} s, allowed {DETECTION_S + within_s:g} s"
    )


@row(42, title=f"an owner killed, {OPEN_KEYS:,} keys open", allows=FLOODED, setup=Setup(load=LIGHT, load_s=0))
async def kill_with_many_keys(rig: Rig, chaos: Chaos) -> None:
    """All is taken over within a second after the death is seen; what falls due meanwhile comes in time."""
    await chaos.balanced()
    first, *more = rig.ports().values()
    async with CountingSink() as sink:
        tag = f"due{chaos.random.randrange(10**6)}"
        message = MessageSpec(sink=sink.url(), tag=tag, keys=OPEN_KEYS, max_size=10, waits=WAITS, aggregate=False)
        spec = LoadSpec(port=first, more_ports=tuple(more), message=message, count=OPEN_KEYS, ledger=True)
        filled = await ran(rig, "tests.bench.load", spec, LoadResult, 30)
        chaos.expect(filled.errors == 0, f"{filled.errors} were refused: {filled.error_samples}")
        due = {number: at + DUE_S for number, _, at in filled.ledger if number % len(WAITS) == 0}
        await chaos.passing(min(due.values()) - monotonic() - HEAD_START_S)
        victim = await chaos.pick()
        await chaos.kill(victim)
        killed_at = monotonic()
        await taken_over(chaos, victim, chaos.crashes[-1].partitions, 1.0)
        await chaos.flushed_by_others(victim)
        await until(lambda: len(sink.arrived) == len(due), DUE_S + 10, every_s=0.1, what="all that is due has come")
    late = [sink.arrived[number] - due_at for number, due_at in due.items()]
    while_away = sum(killed_at < due_at < killed_at + DEAD_AFTER_S for due_at in due.values())
    chaos.note(f"{while_away} due while nobody owned them, late p99/max {percentile(late, 0.99):.2f}/{max(late):.2f} s")
    chaos.expect(while_away > 0, "nothing fell due meanwhile")
    chaos.expect(max(late) <= DUE_LATE_S, f"a batch came {max(late):.2f} s late")
    chaos.expect(not sink.twice, f"{sink.twice} messages came in two deliveries")
    found = await asyncio.to_thread(forgotten, rig)
    chaos.expect(found == OPEN_KEYS - len(due), f"{found} of {OPEN_KEYS - len(due)} idle keys are there")


@row(
    "29",
    "42b",
    title=f"{IDLE_KEYS:,} idle keys, then an owner killed",
    allows=Allows(late_s=4.0, rss_mib=400),
    setup=Setup(load=LIGHT, load_s=0, limit_s=150),
)
async def many_idle_keys(rig: Rig, chaos: Chaos) -> None:
    """No loop stalls over them, leases are kept, each weighs little; when an owner dies the others have them soon."""
    await chaos.balanced()
    before = await settled_owners(chaos)
    rested = await resident(rig)
    victim = await chaos.pick()
    prober = ProbeSpec(port=victim.process.port, pid=victim.process.pid)
    argv = [sys.executable, "-m", "tests.bench.prober", msgspec.json.encode(prober).decode()]
    with Child(argv, rig.directory / f"prober-{monotonic():.3f}") as probing:
        first, *more = rig.ports().values()
        message = MessageSpec(sink=NOWHERE, tag=f"idle{chaos.random.randrange(10**6)}", keys=IDLE_KEYS, max_size=1000)
        spec = LoadSpec(port=first, more_ports=tuple(more), message=message, connections=96, count=IDLE_KEYS)
        filled = await ran(rig, "tests.bench.load", spec, LoadResult, FILL_S)
        chaos.expect(filled.errors == 0, f"{filled.errors} were refused: {filled.error_samples}")
        await chaos.passing(REST_S)
        probing.send_signal(signal.SIGTERM)
        await until(lambda: probing.exit_code is not None, 5, what="the prober ends")
        probes = msgspec.json.decode(probing.stdout_path.read_bytes(), type=ProbeResult)
    now = await resident(rig)
    each = sum(now[name] - rested[name] for name in now) / IDLE_KEYS
    chaos.note(f"filled in {filled.seconds:.0f} s; {each:.0f} bytes a key, {max(now.values()) / MIB:.0f} MiB")
    chaos.note(f"longest stall {probes.max_ms:.0f} ms, {probes.max_raw_ms:.0f} with waits for a core")
    chaos.expect(each <= BYTES_MAX, f"a key weighs {each:.0f} bytes")
    stalled = probes.stalls > STALLS_OF_THE_MACHINE
    chaos.expect(
        not stalled, f"the loop stood still for over 50 ms {probes.stalls} times, once for {probes.max_ms:.0f} ms"
    )
    chaos.expect(await chaos.owners() == before, "partitions changed hands")

    await chaos.kill(victim)
    await taken_over(chaos, victim, chaos.crashes[-1].partitions, 4.0)
    await chaos.flushed_by_others(victim)
    await chaos.passing(1)
    found = await asyncio.to_thread(forgotten, rig)
    chaos.expect(found == IDLE_KEYS, f"{found} of {IDLE_KEYS} idle keys are there")


async def resident(rig: Rig) -> Mapping[str, int]:
    """The memory of each node now."""
    return {node.name: resident_bytes(node.process.pid) for node in rig.nodes}


def forgotten(rig: Rig) -> int:
    """Take the idle keys out of the store, so that nobody need wait an hour; gives how many there were. The nodes
    find out when their time comes."""
    count = 0
    with rig.store.client() as client:
        far_ms = (int(client.time()[0]) + 600) * 1000
        for prefix in PREFIXES:
            idle = client.zrangebyscore(f"{prefix}open", far_ms, "+inf")
            count += len(idle)
            if idle:
                client.unlink(*(f"{prefix}{kind}:{kid}" for kind in "mb" for kid in idle))
                client.zrem(f"{prefix}open", *idle)
    return count
