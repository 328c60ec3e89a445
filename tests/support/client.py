"""Client: the routes of a node as a program outside would call them, with answers that tests can look into.

Sends exactly what it is told and judges nothing unless asked to: a refusal is an `Answer` like any other. Paths are
sent as they are written; `quoted` makes one path segment of a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from msgspec import Struct
from multidict import CIMultiDictProxy
from yarl import URL

from tests.support.until import until

MESSAGE = "/api/v1/message"
BUFFERS = "/api/v1/buffers"
DELIVERIES = "/api/v1/deliveries"
WHOLE_BODY_BYTES_MAX = 1024 * 1024
"""Above this aiohttp wants a body that it can write piece by piece."""
JSON_HEADERS = {"Content-Type": "application/json"}


class Answer(Struct, frozen=True):
    """What a node answered."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body."""
        return msgspec.json.decode(self.body)


def quoted(key: str) -> str:
    """A key as one segment of a path."""
    return quote(key, safe="")


def message(url: str, key: str, payload: object, **options: Any) -> dict[str, Any]:
    """The body of one message. `webhook` is merged into its webhook, `message_id` stands beside it, the rest are
    options of the buffer."""
    webhook = {"url": url, **options.pop("webhook", {})}
    named = {"message_id": options.pop("message_id")} if "message_id" in options else {}
    return {"webhook": webhook, "buffer": {"key": key, **options}, "payload": payload, **named}


class Client:
    """Calls one node."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.url = url
        self._http = http

    async def call(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request. `body`: bytes as they are, anything else as JSON, None for none."""
        text = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {**(JSON_HEADERS if text is not None else {}), **(headers or {})}
        data = BytesIO(text) if text is not None and len(text) > WHOLE_BODY_BYTES_MAX else text
        url = URL(self.url + path, encoded=True)
        async with self._http.request(method, url, data=data, headers=sent, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def send(self, url: str, key: str, payload: object, **options: Any) -> dict[str, Any]:
        """Send one message that must be taken, and give the answer; `headers` are those of the request."""
        headers = options.pop("headers", None)
        answer = await self.call("POST", MESSAGE, message(url, key, payload, **options), headers=headers)
        assert answer.status == 200, answer
        taken: dict[str, Any] = answer.json
        return taken

    async def try_send(self, url: str, key: str, payload: object, **options: Any) -> int:
        """Send one message and give the status, 0 when there was no answer."""
        try:
            return (await self.call("POST", MESSAGE, message(url, key, payload, **options))).status
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return 0

    async def buffer(self, key: str) -> Answer:
        """Look at one open batch."""
        return await self.call("GET", f"{BUFFERS}/{quoted(key)}")

    async def flush(self, key: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Close one open batch."""
        return await self.call("POST", f"{BUFFERS}/{quoted(key)}/flush", headers=headers)

    async def drop(self, key: str) -> Answer:
        """Drop one open batch."""
        return await self.call("DELETE", f"{BUFFERS}/{quoted(key)}")

    async def delivery(self, delivery_id: str) -> dict[str, Any]:
        """One delivery that must be known."""
        answer = await self.call("GET", f"{DELIVERIES}/{delivery_id}")
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.json
        return found

    async def listed(self, path: str, field: str, **query: object) -> list[dict[str, Any]]:
        """All rows of a list, page by page."""
        rows: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None:
            words = {**query, "cursor": cursor} if cursor else query
            text = "&".join(f"{name}={quoted(str(value))}" for name, value in words.items())
            answer = await self.call("GET", f"{path}?{text}")
            assert answer.status == 200, answer
            rows.extend(answer.json[field])
            cursor = answer.json["cursor"]
        return rows

    async def deliveries(self, **query: object) -> list[dict[str, Any]]:
        """All deliveries that a query gives."""
        return await self.listed(DELIVERIES, "deliveries", **query)

    async def buffers(self, **query: object) -> list[dict[str, Any]]:
        """All open batches."""
        return await self.listed(BUFFERS, "buffers", **query)

    async def until_status(self, key: str, *statuses: str, within_s: float = 10.0) -> list[dict[str, Any]]:
        """Wait until the deliveries of a key have exactly these statuses, in any order, and give them."""
        wanted = sorted(statuses)

        async def reached() -> list[dict[str, Any]]:
            rows = await self.deliveries(key=key)
            return rows if sorted(row["status"] for row in rows) == wanted else []

        return await until(reached, within_s, what=f"the deliveries of {key} are {wanted}")


@asynccontextmanager
async def raw_connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection for bytes as they are; closed for good at the end, whatever the node did to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def raw_exchange(port: int, request: bytes, *, within_s: float = 10.0) -> bytes:
    """Send bytes as they are and give all that comes back until the server closes."""
    async with raw_connection(port) as (reader, writer), asyncio.timeout(within_s):
        writer.write(request)
        return await reader.read()


def is_problem(answer: Answer, status: int, *, pointer: str | None = None) -> bool:
    """Whether an error has the one shape that all errors have (RFC 9457), and names the field at fault."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/problem+json"), answer
    problem = answer.json
    standard = {"type", "title", "status", "detail", "instance", "error", "request_id"}
    assert standard <= problem.keys(), problem
    assert problem["status"] == status
    assert problem["error"] == problem["detail"]
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    if pointer is not None:
        assert problem["pointer"] == pointer, problem
        assert problem["detail"].startswith(pointer), problem
    return True
