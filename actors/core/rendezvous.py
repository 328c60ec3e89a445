"""Rendezvous hashing: which of the living nodes a partition belongs to, known to everybody without asking anybody.

Each node has a score for each partition; the highest wins [Thaler, Ravishankar: "A Name-Based Mapping Scheme for
Rendezvous", 1996]. Invariant: when a node comes or goes, only the partitions it wins or won change their node.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import blake2b

from actors.core.partition import PARTITIONS

_SCORES_PER_DIGEST = 8
_unpack = struct.Struct(">8Q").unpack


@lru_cache(maxsize=1024)
def scores(node: str, partitions: int = PARTITIONS) -> tuple[int, ...]:
    """The node's score for each partition: 64 bits that look like chance."""
    digests = range(-(-partitions // _SCORES_PER_DIGEST))
    drawn = [score for number in digests for score in _unpack(blake2b(f"{number} {node}".encode()).digest())]
    return tuple(drawn[:partitions])


@lru_cache(maxsize=16)
def winners(nodes: frozenset[str], partitions: int = PARTITIONS) -> tuple[str, ...]:
    """The node of each partition; "" when there is no node. Equal scores go to the greater name."""
    if not nodes:
        return ("",) * partitions
    standings = [[(score, node) for score in scores(node, partitions)] for node in sorted(nodes)]
    return tuple(max(rivals)[1] for rivals in zip(*standings, strict=True))
