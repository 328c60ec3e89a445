"""Rigs by the name that a row's setup gives."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.rig import Rig
from tests.chaos.rig_cache import CacheRig
from tests.chaos.rig_evolution import EvolutionRig, IdempotentRig
from tests.chaos.rig_machines import MachineRig
from tests.chaos.rig_poison import PoisonRig
from tests.chaos.rig_sentinel import SentinelRig
from tests.chaos.rows import Row

KINDS: dict[str, type[Rig]] = {
    "one store": Rig,
    "cache": CacheRig,
    "evolution 2.3": EvolutionRig,
    "evolution 2.4": IdempotentRig,
    "machines": MachineRig,
    "poison": PoisonRig,
    "sentinel": SentinelRig,
}


def rig_of(row: Row, directory: Path) -> Rig:
    """The rig that a row wants, not started."""
    return KINDS[row.setup.rig](directory, row)
