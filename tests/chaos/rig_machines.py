"""A rig on which the store and every node have a machine of their own: clocks and disks that rows can spoil, and event
loops that they can block."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TypeGuard

from tests.chaos.chaos import Chaos
from tests.chaos.machine import Machine, built
from tests.chaos.rig import Node, Rig
from tests.chaos.rows import Row
from tests.support import stalling_node
from tests.support.valkey import ValkeyServer, valkey_binary

NO_COMPILER = "no C compiler here (cc), so clocks and disks cannot be spoiled"


class MachineRig(Rig):
    """`machine_of` gives a process' machine. Without a C compiler there are none, and `missing` says so."""

    program = stalling_node.SERVE

    def __init__(self, directory: Path, row: Row) -> None:
        super().__init__(directory, row)
        self.missing = ""
        self._library: Path | None = None
        self._machines: dict[str, Machine] = {}

    def machine_of(self, name: str) -> Machine:
        """The machine of a node, or the one named "store"."""
        return self._machines[name]

    async def make_store(self) -> ValkeyServer:
        """The store, running, on its machine."""
        self._library = await asyncio.to_thread(built, self.directory)
        if self._library is None:
            self.missing = NO_COMPILER
            return await super().make_store()
        program = self._machine("store").wrapped(valkey_binary(), self.directory / "store")
        return await self.engine(ValkeyServer(program, tcp=True))

    async def start_node(
        self, node: Node, *, failpoints: str = "", environment: Mapping[str, str] | None = None
    ) -> float:
        """On its machine, too."""
        own = self._machine(node.name).environment if self._library is not None else {}
        return await super().start_node(node, failpoints=failpoints, environment=own | dict(environment or {}))

    def heal_machines(self) -> None:
        """All clocks right, all disks with room."""
        for machine in self._machines.values():
            machine.heal()

    def _machine(self, name: str) -> Machine:
        assert self._library is not None
        if name not in self._machines:
            self._machines[name] = Machine(self._library, self.directory / f"{name}.machine")
        return self._machines[name]


def with_machines(rig: Rig, chaos: Chaos) -> TypeGuard[MachineRig]:
    """Whether the rig can spoil clocks and disks; if not, the row says that it is skipped."""
    assert isinstance(rig, MachineRig)
    if rig.missing:
        chaos.note(f"SKIPPED: {rig.missing}")
    return not rig.missing
