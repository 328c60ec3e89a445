"""Settled: what the nodes say of themselves at the end of a row, through the routes that everybody may use."""

from __future__ import annotations

import re

from tests.chaos.evidence import Counted
from tests.chaos.rig import Node, Rig
from tests.support.client import BUFFERS, DELIVERIES

UNDER_WAY = ("pending", "delivering", "retrying")
ACCEPTED = re.compile(r"^buzon_messages_accepted_total (\S+)$", re.MULTILINE)
DUPLICATES = re.compile(r"^buzon_messages_duplicate_total (\S+)$", re.MULTILINE)
DELIVERED = re.compile(r'^buzon_deliveries_total\{outcome="delivered"\} (\S+)$', re.MULTILINE)


async def not_over(rig: Rig, node: Node) -> set[str]:
    """The keys of open batches and the deliveries that are not over yet, as one node lists them."""
    client = rig.client(node)
    found = {row["key"] for row in await client.buffers(limit=1000)}
    for status in UNDER_WAY:
        found |= {f"{row['key']} {row['id']} {status}" for row in await client.deliveries(status=status, limit=1000)}
    return found


async def dead_letters(rig: Rig, prefix: str) -> list[str]:
    """The ids of the dead deliveries of keys that begin with `prefix`."""
    rows = await rig.client(rig.nodes[0]).listed(DELIVERIES, "deliveries", status="dead", limit=1000)
    return [row["id"] for row in rows if row["key"].startswith(prefix)]


async def open_keys(rig: Rig, node: Node) -> list[str]:
    """The keys of the open batches, as one node lists them."""
    return [row["key"] for row in await rig.client(node).listed(BUFFERS, "buffers", limit=1000)]


async def counted(rig: Rig) -> dict[str, Counted]:
    """What every node counted since its start."""
    found = {}
    for node in rig.nodes:
        page = (await rig.client(node).call("GET", "/metrics")).body.decode()
        found[node.name] = Counted(
            accepted=_number(ACCEPTED, page),
            duplicates=_number(DUPLICATES, page),
            delivered=_number(DELIVERED, page),
        )
    return found


def _number(pattern: re.Pattern[str], page: str) -> int:
    match = pattern.search(page)
    assert match is not None, f"no {pattern.pattern} in /metrics"
    return int(float(match[1]))
