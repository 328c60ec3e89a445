"""WS listener: somebody who listens to `/ws` of a node, keeps what was said, and knows where it stands.

Judges what every listener may rely on: after `subscribed` each message is the successor of the one before. It comes
back elsewhere with the positions it had: `await listener.go_to(other_url)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import aiohttp
import msgspec

from tests.support.until import passing, until

LATER_S = 0.2
"""Whoever was asked to come later does."""


class WsListener:
    """Use as `async with WsListener(http, url, "a", "b") as listener`: subscribed inside."""

    def __init__(self, http: aiohttp.ClientSession, url: str, *channels: str) -> None:
        self._http = http
        self._url = url
        self.channels = channels
        self.at: dict[str, tuple[str, int]] = {}
        """Epoch and offset of each channel, as they were told."""
        self.data: dict[str, list[Any]] = {channel: [] for channel in channels}
        self.subscribed: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        self.code: int | None = None
        """Why the connection was closed."""
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.go_to(self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()

    @property
    def told(self) -> int:
        """How often it was told where it stands."""
        return len(self.subscribed)

    async def go_to(self, url: str, within_s: float = 10.0) -> list[bool]:
        """Connect to a node with what is known; gives for each channel whether all that was missed came along."""
        await self.hang_up()
        before, self.code = self.told, None
        # The official clients try again by themselves; so does this one.
        socket = await until(lambda: self._connected(url), within_s, what=f"a connection to {url}")
        assert socket is not None
        self._socket = socket
        self._reading = asyncio.ensure_future(self._read(socket))
        for channel in self.channels:
            await self._subscribe(socket, channel)
        await until(lambda: self.told >= before + len(self.channels), within_s, what="subscribed")
        return [each["recovered"] for each in self.subscribed[before:]]

    async def has(self, channel: str, values: Sequence[object], within_s: float = 5.0) -> None:
        """Wait until this is what was said on a channel since the beginning."""
        await until(lambda: len(self.data[channel]) >= len(values), within_s, what=f"{len(values)} messages")
        assert self.data[channel] == list(values)

    async def hang_up(self) -> None:
        """Leave."""
        if self._socket is not None:
            await self._socket.close()
            self._socket = None
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
            self._reading = None

    async def closed(self, within_s: float = 5.0) -> int:
        """Wait until the node has closed the connection; gives the code."""
        return await until(lambda: self.code, within_s, what="the end of the connection") or 0

    async def _connected(self, url: str) -> aiohttp.ClientWebSocketResponse | None:
        try:
            # Closed below: where its answer to the last word finds nobody, aiohttp would put 1006 in that one's place.
            return await self._http.ws_connect(f"{url}/ws", max_msg_size=0, autoclose=False)
        except (aiohttp.ClientError, OSError):
            return None

    async def _read(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            frame = msgspec.json.decode(message.data)
            match frame["type"]:
                case "subscribed":
                    self._place(frame)
                case "message":
                    self._take(frame)
                case "error":
                    self.errors.append(frame)
                    await passing(LATER_S)
                    await self._subscribe(socket, frame["channel"])
        self.code = socket.close_code
        await socket.close()

    async def _subscribe(self, socket: aiohttp.ClientWebSocketResponse, channel: str) -> None:
        frame: dict[str, Any] = {"action": "subscribe", "channel": channel}
        if channel in self.at:
            epoch, offset = self.at[channel]
            frame["since"] = {"epoch": epoch, "offset": offset}
        await socket.send_str(msgspec.json.encode(frame).decode())

    def _place(self, frame: dict[str, Any]) -> None:
        self.subscribed.append(frame)
        at = frame["epoch"], frame["offset"]
        assert not frame["recovered"] or self.at[frame["channel"]] == at, f"{frame} after {self.at}"
        self.at[frame["channel"]] = at

    def _take(self, frame: dict[str, Any]) -> None:
        epoch, offset = self.at[frame["channel"]]
        assert frame["offset"] == offset + 1, f"{frame} after {offset}"
        self.at[frame["channel"]] = epoch, frame["offset"]
        self.data[frame["channel"]].append(frame["data"])
