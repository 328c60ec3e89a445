"""Inventory API: the inventory's routes as a program outside would call them, and the database looked at directly.

Judges nothing unless it is asked to: a refusal is an `Answer` like any other.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
from prometheus_client.parser import text_string_to_metric_families

from tests.support.child import Child
from tests.support.client import Answer, Client
from tests.support.forked import Fork
from tests.support.until import passing, until

INVENTORY = "/inventario"
COMMAND_S = 20.0
REST_S = 0.02
"""Between two commands: the channel must keep all events of a test."""


class InventoryClient(Client):
    """Calls one node."""

    async def create(self, cliente: object = "Ana", fecha: object = None, **headers: str) -> Answer:
        """Make an inventory."""
        body = {"cliente": cliente} if fecha is None else {"cliente": cliente, "fecha_caducidad": fecha}
        return await self.call("POST", INVENTORY, body, headers=_headers(headers))

    async def line(self, key: object, producto: object = "tuerca", cantidad: object = 1, **headers: str) -> Answer:
        """Add a line."""
        body = {"producto": producto, "cantidad": cantidad}
        return await self.call("POST", f"{INVENTORY}/{key}/linea", body, headers=_headers(headers))

    async def delete(self, key: object) -> Answer:
        """Remove an inventory."""
        return await self.call("DELETE", f"{INVENTORY}/{key}")

    async def get(self, key: object, after: str = "") -> Answer:
        """Look at an inventory."""
        return await self.call("GET", f"{INVENTORY}/{key}" + (f"?after={after}" if after else ""))

    async def rows(self, query: str = "limit=1000") -> list[dict[str, Any]]:
        """A page of the list, which must be given."""
        answer = await self.call("GET", f"{INVENTORY}?{query}")
        assert answer.status == 200, answer
        rows: list[dict[str, Any]] = answer.json
        return rows

    async def made(self, cliente: str = "Ana", fecha: str | None = None) -> dict[str, Any]:
        """A new inventory: the answer, which must be one."""
        answer = await self.create(cliente, fecha)
        assert answer.status == 201, answer
        made: dict[str, Any] = answer.json
        return made

    async def postgres(self) -> str:
        """What the node says of the database."""
        said: str = (await self.call("GET", "/health")).json["postgres"]
        return said

    async def number(self, name: str) -> float:
        """A metric without labels."""
        answer = await self.call("GET", "/metrics")
        assert answer.status == 200, answer
        for family in text_string_to_metric_families(answer.body.decode()):
            for sample in family.samples:
                if sample.name == name:
                    return sample.value
        raise AssertionError(f"no metric {name}")

    async def history(self, channel: str = "events") -> list[Any]:
        """What a channel keeps."""
        answer = await self.call("GET", f"/api/queue/history/{channel}?limit=1000")
        assert answer.status == 200, answer
        return [each["data"] for each in answer.json["messages"]]

    async def until_lag(self, events: int, within_s: float = 10.0) -> None:
        """Wait until the projection lacks so many events."""

        async def reached() -> bool:
            return await self.number("buzon_inventory_lag_events") == events

        await until(reached, within_s, what=f"a lag of {events} events")


def _headers(named: dict[str, str]) -> dict[str, str]:
    """`idempotency_key="k"` as the header of that name."""
    return {name.replace("_", "-"): text for name, text in named.items()}


async def value_of(url: str, statement: str, *arguments: object) -> Any:
    """One value from the database, or what a statement changes."""
    session = await asyncpg.connect(url)
    try:
        return await session.fetchval(statement, *arguments)
    finally:
        await session.close()


async def event_ids(url: str) -> list[str]:
    """The ids of all numbered events, in order."""
    session = await asyncpg.connect(url)
    try:
        return [row["event_id"] for row in await session.fetch("SELECT event_id FROM eventos ORDER BY seq")]
    finally:
        await session.close()


async def command(folder: Path, database_url: str, *words: str) -> tuple[int, str]:
    """What `buzon …` says on stdout, and its exit code."""
    argv = [sys.executable, "-m", "router", *words]
    environment = {"DATABASE_URL": database_url, "DATA_DIR": str(folder / "unused")}
    child = Child(argv, folder / "-".join(words), environment=environment, begin=Fork)
    try:
        await until(lambda: child.exit_code is not None, COMMAND_S, what=" ".join(words))
        assert child.exit_code is not None
        return child.exit_code, child.stdout_path.read_text()
    finally:
        child.close()


class Load:
    """Commands with hardly a pause until `stop`, each under a key of its own and, when it failed, not sent again.

    `acknowledged` holds what was answered 2xx: the event's id and what it did.
    """

    def __init__(self, clients: list[InventoryClient], name: str, at_once: int = 4) -> None:
        self._clients = clients
        self._name = name
        self._stopped = False
        self.acknowledged: dict[str, tuple[int, int]] = {}
        """By the event's id: the inventory and the quantity."""
        self._tasks = [asyncio.ensure_future(self._send(number)) for number in range(at_once)]

    async def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _send(self, number: int) -> None:
        turn, key = 0, 0
        while not self._stopped:
            client = self._clients[turn % len(self._clients)]
            turn += 1
            await passing(REST_S)
            try:
                if turn % 10 == 1 or not key:
                    answer = await client.create(f"{self._name} {number}.{turn}")
                else:
                    answer = await client.line(key, "tuerca", turn)
            except (aiohttp.ClientError, OSError, TimeoutError):
                continue
            if answer.status != 201:
                continue
            said = answer.json
            if "inventario_id" in said:
                self.acknowledged[said["event_id"]] = key, turn
            else:
                key = said["id"]
                self.acknowledged[said["event_id"]] = key, 0
