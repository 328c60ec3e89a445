"""WhatsApp rig: a real node, and the fake Evolution API that it sends through.

`async with whatsapp(make_node, valkey, http, version) as rig:` gives both; tasks are sent and looked up over HTTP, and
what contacts received is read from the fake.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.support.client import Answer, Client
from tests.support.evolution import Evolution, evolution
from tests.support.node import NodeProcess
from tests.support.valkey import ValkeyServer

INSTANCE = "demo"
QUICK = {
    "TASK_RETRY_DELAY": "100ms",
    "EVOLUTION_INSTANCE_NAME": INSTANCE,
    "EVOLUTION_TIMEOUT": "1s",
    "MAX_RETRIES": "2",
}


class WhatsApp:
    """A node, its client, and the fake."""

    def __init__(self, node: NodeProcess, client: Client, fake: Evolution) -> None:
        self.node = node
        self.client = client
        self.fake = fake

    async def post(self, phone: str, text: str, **more: Any) -> Answer:
        """`POST /messages`, whatever it answers."""
        return await self.client.call("POST", "/messages", {"phone": phone, "message": text, **more})

    async def send(self, phone: str, text: str, **more: Any) -> str:
        """Have a text sent; the task's id."""
        answer = await self.post(phone, text, **more)
        assert answer.status == 202, answer
        task_id: str = answer.json["task_id"]
        return task_id

    async def task(self, task_id: str, wait: float = 0) -> dict[str, Any]:
        """One task, after its end or after so many seconds."""
        answer = await self.client.call("GET", f"/tasks/{task_id}?wait={wait:g}")
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.json
        return found

    async def sent(self, phone: str, text: str, **more: Any) -> dict[str, Any]:
        """Have a text sent and wait for the task's end."""
        return await self.task(await self.send(phone, text, **more), 8)


@asynccontextmanager
async def whatsapp(
    make_node: Callable[..., NodeProcess],
    store: ValkeyServer,
    http: aiohttp.ClientSession,
    version: str = "2.4",
    fake_options: Mapping[str, Any] | None = None,
    **settings: str,
) -> AsyncIterator[WhatsApp]:
    """A node that sends through a fake of that version (`fake_options` as in `fake.Options`)."""
    async with evolution(version, **(fake_options or {})) as fake:
        given = {"EVOLUTION_API_URL": fake.url, "EVOLUTION_API_KEY": fake.fake.options.key, **QUICK, **settings}
        node = make_node(given, redis_url=store.url)
        await node.start()
        yield WhatsApp(node, Client(http, node.url), fake)
