"""What bounds a large deployment, on paper: `python -m tests.bench.on_paper` prints Markdown tables.

Partition spread and movement are simulated with the nodes' own function; unit costs are measured on a real store and
multiplied. Nothing of this size is run here. What a node costs stands below, from the benchmark on the same machine.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence

from actors.core.membership import BEAT_S
from actors.core.partition import PARTITIONS
from actors.membership import LOOK_S
from actors.sweeper import CROWDED_ROWS_MAX, PERIOD_S
from tests.bench import report, spread, store_costs
from tests.bench.spread import Shares
from tests.bench.store_costs import BATCH, NODES, StoreCosts

KEYS = 100_000_000
PER_S = 1_000_000
WINDOW_S = 600
"""The default of IDEMPOTENCY_TTL. Ids are kept for up to two such windows."""
NODE_MESSAGE_US = 125.0
"""The whole pipeline for one message through several nodes, by `make benchmark`: 103 µs, and a fifth more."""
DELIVERY_US = 193.0
"""The owner's part of that, for each batch."""
NODE_BUFFER_BYTES = 797.0
"""An open buffer in a node, by `make benchmark`."""
BUSY = 0.7
"""How busy a core may be on average before its queues grow."""
SHARDS = (3, 10, 30, 50)
Row = tuple[str, ...]


def main() -> None:
    """Simulate, measure, multiply, print."""
    costs = asyncio.run(store_costs.measure())
    sizes = [spread.shares(*size) for size in spread.SIZES]
    size = f"{NODES} nodes, {KEYS:,} open keys, {PER_S:,} messages/s"
    print(report.machine())
    for head, rows in (
        (("nodes", "partitions", *SPREAD_COLUMNS), [shares_row(shares) for shares in sizes]),
        (("shards", "partitions of the busiest ÷ mean"), shard_rows()),
        (("measured", ""), unit_rows(costs)),
        ((size, "needs", "from"), [*bounds(costs), *busiest_rows(sizes)]),
    ):
        print("\n" + table(head, rows))


SPREAD_COLUMNS = (
    "busiest ÷ mean",
    "idle nodes",
    "moves when one joins (1 ÷ N)",
    "moves when one leaves (1 ÷ N)",
    "to compute",
)


def shares_row(shares: Shares) -> Row:
    """One size."""
    joins, leaves = 1 / (shares.nodes + 1), 1 / shares.nodes
    return (
        f"{shares.nodes}",
        f"{shares.partitions:,}",
        shares.busiest.of(".2f"),
        f"{shares.idle.middle:.0f}",
        f"{shares.joining:.2%} ({joins:.2%})",
        f"{shares.leaving:.2%} ({leaves:.2%})",
        f"{shares.seconds * 1e3:.1f} ms",
    )


def shard_rows() -> list[Row]:
    """How unevenly hash slots spread the partitions."""
    return [(f"{shards}", f"{spread.busiest_shard(shards):.2f}") for shards in SHARDS]


def unit_rows(costs: StoreCosts) -> list[Row]:
    """What was measured on the store."""
    return [
        ("open batch with one message of 68 bytes, its id remembered", f"{costs.open_batch_bytes:,.0f} bytes"),
        ("one more message in it", f"{costs.further_message_bytes:,.0f} bytes"),
        ("a remembered message id", f"{costs.dedupe_bytes:,.0f} bytes"),
        ("a batch of two that waits for its webhook", f"{costs.waiting_bytes:,.0f} bytes"),
        ("the record of a delivered batch", f"{costs.delivered_bytes:,.0f} bytes"),
        ("a message, all its scripts, in batches of five", f"{costs.message_us:.0f} µs of the store's CPU"),
        ("commands inside its scripts", f"{costs.message_commands:.1f}"),
        (f"a beat that reads {NODES} records", f"{costs.beat_us:.0f} µs of script, {costs.beat_bytes / 1e3:.0f} kB"),
        ("the same beat in the node", f"{costs.node_beat_us:.0f} µs"),
        (f"a look at the owners of {PARTITIONS} partitions", f"{costs.look_us:.0f} µs of script"),
        (f"a sweep over {PARTITIONS} partitions, nothing due", f"{costs.sweep_us:.0f} µs of script"),
    ]


def bounds(costs: StoreCosts) -> Iterator[Row]:
    """Unit costs times size."""
    cores = PER_S * NODE_MESSAGE_US / 1e6
    yield "node processes", f"{cores / BUSY:,.0f}", f"{NODE_MESSAGE_US:.0f} µs a message, {BUSY:.0%} busy"
    store = PER_S * costs.message_us / 1e6
    shards = math.ceil(store / BUSY)
    uneven = spread.busiest_shard(shards)
    yield "Redis shards", f"{shards}", f"{store:.0f} cores of scripts, {BUSY:.0%} busy, spread evenly"
    yield (
        "the same, as hash slots spread them",
        f"{evened(store)}",
        f"the busiest of {shards} has {uneven:.2f} × the mean",
    )
    each = PER_S * costs.message_commands / shards
    yield "commands of a shard", f"{each / 1e3:,.0f} k/s", "inside its scripts"
    yield (
        "open batches in the store",
        gigabytes(KEYS * costs.open_batch_bytes),
        f"{KEYS:,} × {costs.open_batch_bytes:,.0f} bytes",
    )
    ids = PER_S * WINDOW_S * 2
    yield (
        "remembered ids, at the most",
        gigabytes(ids * costs.dedupe_bytes),
        f"2 × {WINDOW_S} s × {costs.dedupe_bytes:.0f} bytes",
    )
    yield "open batches in a node", gigabytes(KEYS / NODES * NODE_BUFFER_BYTES), f"{NODE_BUFFER_BYTES:.0f} bytes each"
    yield from _background(costs)


def _background(costs: StoreCosts) -> Iterator[Row]:
    """What happens without a message."""
    beats = NODES / BEAT_S
    sent = beats * costs.beat_bytes
    yield (
        "beats",
        f"{beats:,.0f}/s, {sent / 1e6:.1f} MB/s out of one shard",
        f"{beats * costs.beat_us / 1e6:.1%} of its core",
    )
    node = (costs.node_beat_us + 0.0) / BEAT_S / 1e6
    yield "beats in a node", f"{node:.2%} of a core", f"{sent / NODES / 1e3:.0f} kB/s in"
    looks = NODES / LOOK_S * costs.look_us / 1e6
    yield "looks at owners", f"{looks:.1%} of a core", f"with 16,384 partitions {looks * 16384 / PARTITIONS:.0%}"
    sweeps = costs.sweep_us / PERIOD_S / 1e6
    yield "sweeps", f"{sweeps:.1%} of a core", f"with 16,384 partitions {sweeps * 16384 / PARTITIONS:.0%}"
    found = CROWDED_ROWS_MAX / (2 * PERIOD_S)
    wanted = PER_S / BATCH / NODES
    yield "batches closed by time that a node's sweeps can find", f"{found:,.0f}/s", f"{wanted:,.0f}/s if all close so"
    yield "messages that reach another node than the owner", f"{1 - 1 / NODES:.0%}", "direct append: no hop; else one"
    yield "connections between nodes, INGEST=forward", f"{NODES * (NODES - 1):,}", f"{NODES - 1} out of each node"


def busiest_rows(sizes: Sequence[Shares]) -> Iterator[Row]:
    """How far the busiest node goes: messages come to all alike, deliveries by what each owns."""
    for shares in (of for of in sizes if of.nodes == NODES):
        owned = DELIVERY_US / BATCH
        busiest_us = NODE_MESSAGE_US - owned + owned * shares.busiest.middle
        reached = NODES * BUSY / busiest_us * 1e6
        name = f"the busiest node is {BUSY:.0%} busy, with {shares.partitions:,} partitions"
        yield name, f"at {reached / 1e3:,.0f} k messages/s", f"it owns {shares.busiest.middle:.2f} × the mean"


def evened(store_cores: float) -> int:
    """The fewest shards of which the busiest is not too busy; as many as there are partitions at the most."""
    fit = (n for n in range(1, PARTITIONS) if store_cores / n * spread.busiest_shard(n) <= BUSY)
    return next(fit, PARTITIONS)


def gigabytes(amount: float) -> str:
    """A number of bytes as people say it."""
    return f"{amount / 1e9:,.1f} GB"


def table(head: Sequence[str], rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
