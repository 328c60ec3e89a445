"""Webhooks: the hosts that batches are delivered to, and each node's way to them.

A host is in one mode at a time: it answers, is slow, hangs, fails, or refuses connections; an answer may get lost on
its way. What a host took is told to `took` when it took it, whether or not anybody still waits for its answer.
"""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random
from typing import Literal, Protocol
from urllib.parse import urlsplit

from actors.core.outcome import Answered, Failed
from actors.egress_ports import OutboundRequest, Withheld
from tests.simulation.loop import Process, SimLoop
from tests.support.until import passing

Mode = Literal["well", "slow", "hangs", "fails", "refuses"]
LATENCY_S: dict[Mode, tuple[float, float]] = {
    "well": (0.001, 0.03),
    "slow": (0.2, 1.5),
    "hangs": (30.0, 30.0),
    "fails": (0.001, 0.01),
    "refuses": (0.0, 0.0),
}
STATUSES_OF_FAILURE = (500, 503, 429, 404)


class Post:
    """One request to a host, from its start on. `ok` is what the host did, `heard` what the node was told."""

    def __init__(self, process: Process, request: OutboundRequest, started_at: float) -> None:
        self.process = process
        self.request = request
        self.name = request.headers["webhook-id"]
        self.started_at = started_at
        self.taken_at: float | None = None
        self.heard_ok_at: float | None = None
        self.ended_badly_at: float | None = None


class Watcher(Protocol):
    """Sees requests: when their first byte is written, and when a host takes one."""

    def started(self, post: Post) -> None: ...
    def took(self, post: Post) -> None: ...


class Hosts:
    """All hosts. `lost_answers` is how likely an answer is to get lost, `flaky` how likely a host that is well is to
    fail."""

    def __init__(self, loop: SimLoop, random: Random, watcher: Watcher) -> None:
        self.loop = loop
        self.random = random
        self.watcher = watcher
        self.modes: dict[str, Mode] = {}
        self.lost_answers = 0.0
        self.flaky = 0.0

    def mode(self, host: str) -> Mode:
        """How a host is now."""
        return self.modes.get(host, "well")

    def take(self, host: str, post: Post, reply: asyncio.Future[Answered | Failed]) -> None:
        """A request has arrived."""
        mode = self.mode(host)
        seconds = self.random.uniform(*LATENCY_S[mode])
        self.loop.after(seconds, partial(self._end, mode, seconds, post, reply))

    def _end(self, mode: Mode, seconds: float, post: Post, reply: asyncio.Future[Answered | Failed]) -> None:
        random, milliseconds = self.random, seconds * 1000
        failed = mode in ("fails", "hangs", "refuses") or random.random() < self.flaky
        status = random.choice(STATUSES_OF_FAILURE) if failed else 200
        if status == 200:
            post.taken_at = self.loop.now
            self.watcher.took(post)
        answer: Answered | Failed = Answered(status, None, "", milliseconds)
        if random.random() < self.lost_answers:
            answer = Failed("connection reset", milliseconds)
        self.loop.after(random.uniform(0.0001, 0.001), partial(self._return, post, reply, answer))

    def _return(self, post: Post, reply: asyncio.Future[Answered | Failed], answer: Answered | Failed) -> None:
        def resolve() -> None:
            if not reply.done():
                reply.set_result(answer)

        post.process.deliver(self.loop, resolve)


class SimEgress:
    """One node's way out."""

    def __init__(self, hosts: Hosts, process: Process) -> None:
        self._hosts = hosts
        self._process = process

    async def send(self, request: OutboundRequest) -> Answered | Failed | Withheld:
        """Connect, ask whether to go on, send, and wait for the answer."""
        hosts = self._hosts
        host = urlsplit(request.url).hostname or ""
        await passing(hosts.random.uniform(0.0002, 0.003))
        if hosts.mode(host) == "refuses":
            return Failed("connection refused", 1.0)
        if self._process.dead or not request.may_start():
            return Withheld()
        post = Post(self._process, request, hosts.loop.now)
        hosts.watcher.started(post)
        reply: asyncio.Future[Answered | Failed] = hosts.loop.create_future()
        hosts.loop.after(hosts.random.uniform(0.0001, 0.001), partial(hosts.take, host, post, reply))
        try:
            async with asyncio.timeout(request.timeout_s):
                answer = await reply
        except TimeoutError:
            answer = Failed("timeout", request.timeout_s * 1000)
        except asyncio.CancelledError:
            post.ended_badly_at = hosts.loop.now
            raise
        if isinstance(answer, Answered) and answer.status == 200:
            post.heard_ok_at = hosts.loop.now
        else:
            post.ended_badly_at = hosts.loop.now
        return answer
