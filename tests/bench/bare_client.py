"""What deliveries are compared with: one aiohttp client that posts the same bytes, `… bare_client SPEC_AS_JSON`.

Prints a `BareResult`. Measures its own CPU from the first request to the last answer, imports not included.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from time import monotonic

import aiohttp
import msgspec
import uvloop
from msgspec import Struct


class BareSpec(Struct, frozen=True, kw_only=True):
    """`count` posts of `body` to `url`, `concurrency` at a time."""

    url: str
    headers: dict[str, str]
    body: bytes
    concurrency: int
    count: int


class BareResult(Struct, frozen=True, kw_only=True):
    """How many were answered 200, what else happened, and what it cost."""

    ok: int
    errors: int
    seconds: float
    cpu_s: float


def own_cpu_s() -> float:
    """User + system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def run(spec: BareSpec) -> BareResult:
    """Post until the count is reached."""
    remaining = iter(range(spec.count))
    statuses: list[int] = []
    connector = aiohttp.TCPConnector(limit=spec.concurrency)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def post() -> None:
            for _ in remaining:
                async with session.post(spec.url, data=spec.body, headers=spec.headers) as response:
                    await response.read()
                    statuses.append(response.status)

        began, cpu = monotonic(), own_cpu_s()
        async with asyncio.TaskGroup() as group:
            for _ in range(spec.concurrency):
                group.create_task(post())
        cpu, seconds = own_cpu_s() - cpu, monotonic() - began
    ok = statuses.count(200)
    return BareResult(ok=ok, errors=spec.count - ok, seconds=seconds, cpu_s=cpu)


if __name__ == "__main__":
    print(msgspec.json.encode(uvloop.run(run(msgspec.json.decode(sys.argv[1], type=BareSpec)))).decode())
