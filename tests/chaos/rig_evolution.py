"""Rigs with an Evolution API: a fake one in a process of its own, which may be killed, frozen and started again.

What reached the contacts' phones is in its output, all lives of the process in one file: WhatsApp forgets nothing when
Evolution dies.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.chaos.rig import START_S, Node, Rig
from tests.chaos.rows import Row
from tests.support.child import Child
from tests.support.node import answers_200
from tests.support.until import until
from tests.support.valkey import free_port

INSTANCES = tuple(f"wa-{number}" for number in range(6))
"""Enough that each of three nodes sends for some."""
KEY = "chaos-evolution-key"
WRONG_KEY = "another-evolution-key"


class EvolutionRig(Rig):
    """`evolution` is its process. One of version 2.3 gives each send an id of its own."""

    version = "2.3"
    evolution: Child

    def __init__(self, directory: Path, row: Row) -> None:
        super().__init__(directory, row)
        self._port = free_port()

    @property
    def evolution_url(self) -> str:
        """Where the fake listens, whenever it does."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def phones(self) -> Path:
        """The fake's output, of all its lives."""
        return self.evolution.stdout_path

    async def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._stack.callback(self._end_evolution)
        await self.start_evolution()
        await super()._start()

    async def start_node(
        self, node: Node, *, failpoints: str = "", environment: Mapping[str, str] | None = None
    ) -> float:
        """It is told where Evolution is."""
        own = {"EVOLUTION_API_URL": self.evolution_url, "EVOLUTION_API_KEY": KEY}
        return await super().start_node(node, failpoints=failpoints, environment=own | dict(environment or {}))

    async def start_evolution(self, key: str = KEY) -> None:
        """Start it, knowing nothing of an earlier life, and wait until it answers."""
        self.launch_evolution(key)
        await until(self.evolution_answers, START_S, what="Evolution answers")

    def launch_evolution(self, key: str = KEY) -> None:
        """Start it, and wait for nothing."""
        options = ["--json", "--port", str(self._port), "--version", self.version]
        named = [word for instance in INSTANCES for word in ("--instance", instance)]
        argv = [sys.executable, "-m", "router", "fake-evolution", *options, *named]
        self.evolution = Child(argv, self.directory / "evolution", environment={"EVOLUTION_API_KEY": key})

    async def evolution_answers(self) -> bool:
        """Whether it says what it is."""
        return await answers_200(self._port, "/")

    async def evolution_does(self, what: str, **words: object) -> None:
        """Have something happen at Evolution (`router/fake_evolution/control.py`)."""
        url = f"{self.evolution_url}/fake/{what}"
        async with self.http.post(url, data=msgspec.json.encode(words)) as answer:
            assert answer.status == 201, await answer.text()

    async def kill_evolution(self) -> None:
        """kill -9: connections are refused, what it was sending may have gone out."""
        await asyncio.to_thread(self.evolution.kill9)

    def _end_evolution(self) -> None:
        self.evolution.close()


class IdempotentRig(EvolutionRig):
    """The same with a version that takes message ids of ours."""

    version = "2.4"
