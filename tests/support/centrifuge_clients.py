"""Centrifuge clients: the two official libraries, unmodified, each listening to one channel and telling what happens.

`events` holds what the library told, in order, as the same dictionaries for both; `do` has it act and gives the result.
The JavaScript one is a process of its own whose packages come from the npm registry, pinned and hashed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import centrifuge  # type: ignore[import-untyped]  # it has no types
import msgspec
import pytest

from tests.support.until import until

FOLDER = Path(__file__).parent / "centrifuge_js"
DO_S = 5.0
Event = dict[str, Any]


class Listener(Protocol):
    """A client of one of the libraries."""

    events: list[Event]

    async def do(self, what: str, **how: Any) -> Any: ...


class Failed(Exception):
    """The library said that something failed, with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def of(listener: Listener, event: str) -> list[Event]:
    """What was told of that kind."""
    return [each for each in listener.events if each["event"] == event]


class _ClientEvents(centrifuge.ClientEventHandler):  # type: ignore[misc]  # as above
    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell

    async def on_connected(self, ctx: Any) -> None:
        self._tell("connected")

    async def on_connecting(self, ctx: Any) -> None:
        self._tell("connecting", code=ctx.code)

    async def on_disconnected(self, ctx: Any) -> None:
        self._tell("disconnected", code=ctx.code)


class _SubscriptionEvents(centrifuge.SubscriptionEventHandler):  # type: ignore[misc]  # as above
    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell

    async def on_subscribed(self, ctx: Any) -> None:
        self._tell("subscribed", wasRecovering=ctx.was_recovering, recovered=ctx.recovered)

    async def on_publication(self, ctx: Any) -> None:
        self._tell("publication", data=ctx.pub.data, offset=ctx.pub.offset)

    async def on_unsubscribed(self, ctx: Any) -> None:
        self._tell("unsubscribed", code=ctx.code)


class PythonListener:
    """centrifuge-python, in this process."""

    def __init__(self, url: str, channel: str) -> None:
        self.events: list[Event] = []
        self._client = centrifuge.Client(
            url, events=_ClientEvents(self._tell), min_reconnect_delay=0.05, max_reconnect_delay=0.2
        )
        self._channel = channel
        self._subscription = self._client.new_subscription(channel, events=_SubscriptionEvents(self._tell))

    async def start(self) -> None:
        """Connect and subscribe."""
        await self._client.connect()
        await self._subscription.subscribe()

    async def do(self, what: str, **how: Any) -> Any:
        """Act."""
        actions: dict[str, Callable[[], Awaitable[Any]]] = {
            "publish": lambda: self._client.publish(how.get("to", self._channel), how["data"]),
            "history": lambda: self._subscription.history(limit=how["limit"], reverse=how.get("reverse", False)),
            "presence_stats": self._subscription.presence_stats,
            "disconnect": self._client.disconnect,
        }
        try:
            result = await actions[what]()
        except centrifuge.ReplyError as error:
            raise Failed(error.code) from None
        match what:
            case "history":
                publications = [{"data": each.data, "offset": each.offset} for each in result.publications]
                return {"epoch": result.epoch, "offset": result.offset, "publications": publications}
            case "presence_stats":
                return {"numClients": result.num_clients, "numUsers": result.num_users}
            case _:
                return None

    def _tell(self, event: str, **about: Any) -> None:
        self.events.append({"event": event, **about})


class JavaScriptListener:
    """centrifuge-js on Node.js."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.events: list[Event] = []
        self._process = process
        self._answers: asyncio.Queue[Event] = asyncio.Queue()

    async def listen(self) -> None:
        """Note what it tells, until it ends."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            event: Event = msgspec.json.decode(line)
            (self._answers.put_nowait if event["event"] in ("done", "failed") else self.events.append)(event)

    async def do(self, what: str, **how: Any) -> Any:
        """Act."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode({"do": what, **how}) + b"\n")
        async with asyncio.timeout(DO_S):
            answer = await self._answers.get()
        assert answer["did"] == what
        if answer["event"] == "failed":
            raise Failed(answer["code"])
        return answer["result"]


@asynccontextmanager
async def python_listener(url: str, channel: str) -> AsyncIterator[Listener]:
    """One of centrifuge-python. It closes its connections in tasks that it does not wait for: here that is done."""
    before = asyncio.all_tasks()
    listener = PythonListener(url, channel)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.do("disconnect")
        await until(lambda: asyncio.all_tasks() <= before, what="an end of what the library began")


@asynccontextmanager
async def javascript_listener(url: str, channel: str) -> AsyncIterator[Listener]:
    """One of centrifuge-js. Skips the test where Node.js is not installed."""
    await asyncio.to_thread(_install)
    process = await asyncio.create_subprocess_exec(
        *("node", str(FOLDER / "client.mjs"), url, channel),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    listener = JavaScriptListener(process)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.listen())
        try:
            yield listener
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()


def _install() -> None:
    """Have npm install what the lock names, once."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("node and npm are not installed, and CI must test against the JavaScript library")
        pytest.skip("node and npm are not installed")
    with (FOLDER / "package.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test workers install once
        done = FOLDER / "node_modules" / ".package-lock.json"
        if not done.exists() or done.stat().st_mtime < (FOLDER / "package-lock.json").stat().st_mtime:
            command = (npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")
            subprocess.run(command, cwd=FOLDER, check=True)  # noqa: S603  our own words
