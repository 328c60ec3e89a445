"""A node that dies, freezes or fails at a chosen step of a delivery's life. Test builds only: `router` has none of it.

`BUZON_FAILPOINT=name:action[@n][,…]`. The name is a step in `STEPS`; the action is `kill` (SIGKILL to ourselves),
`stop:MS` (the whole process freezes that long) or `raise`. With `@n` only the n-th time counts, else every time.
`BUZON_FAILPOINT=@/path` arms nothing yet: what the file says then is armed at each SIGUSR1, instead of what was.
Composes the same node as production and wraps the ports it is given.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from actors.ports import Claim, Claimed, ClosedBatch, Settle
from router.app import Node
from router.lifecycle import NodeFactory, run
from router.settings import Settings, load

STEPS = (
    "before_append",
    "after_append",
    "after_close",
    "before_claim",
    "after_claim",
    "mid_post",
    "after_post_before_settle",
    "after_settle",
)
MID_POST_S = 0.05
"""How long a request is out before `mid_post` counts as reached; the sink must hold its answer longer than that."""

SPEC = re.compile(r"(?P<step>\w+):(?P<action>kill|raise|stop:(?P<ms>\d+))(?:@(?P<nth>\d+))?")


class FailpointReached(Exception):
    """The action `raise` of a failpoint."""


class Failpoint:
    """One armed step: counts its hits and acts on the right ones."""

    def __init__(self, action: str, stop_ms: int, nth: int) -> None:
        self._action = action
        self._stop_ms = stop_ms
        self._nth = nth
        self._hits = 0

    def hit(self) -> None:
        """The step has been reached once more."""
        self._hits += 1
        if self._nth not in (0, self._hits):
            return
        if self._action == "raise":
            raise FailpointReached
        if self._action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            freeze_ourselves(self._stop_ms)


def freeze_ourselves(stop_ms: int) -> None:
    """SIGSTOP to the whole process; a shell started beforehand wakes it up again."""
    script = 'sleep "$1"; kill -CONT "$2"'
    waker = ["/bin/sh", "-c", script, "waker", f"{stop_ms / 1000:.3f}", str(os.getpid())]
    with subprocess.Popen(waker, start_new_session=True):  # noqa: S603  constant script, numbers only
        os.kill(os.getpid(), signal.SIGSTOP)


def parse(text: str) -> dict[str, Failpoint]:
    """`name:action[@n]`, separated by commas. An unknown step or action is an error: a typo must not pass a test."""
    armed: dict[str, Failpoint] = {}
    for word in filter(None, text.split(",")):
        match = SPEC.fullmatch(word)
        if match is None or match["step"] not in STEPS:
            raise ValueError(f"not a failpoint: {word!r}")
        armed[match["step"]] = Failpoint(match["action"], int(match["ms"] or 0), int(match["nth"] or 0))
    return armed


class Failpoints:
    """What is armed, by step; a step that is not armed does nothing."""

    def __init__(self, armed: Mapping[str, Failpoint]) -> None:
        self._armed = armed

    def hit(self, step: str) -> None:
        """The step has been reached."""
        if (failpoint := self._armed.get(step)) is not None:
            failpoint.hit()

    def arm(self, armed: Mapping[str, Failpoint]) -> None:
        """Arm these from now on, and no others."""
        self._armed = armed

    def armed(self, step: str) -> bool:
        """Whether anything happens at that step."""
        return step in self._armed


class Wrapped:
    """Stands in front of a port: every method passes through, those with a hook are awaited through it."""

    def __init__(self, inner: object, hooks: Mapping[str, Callable[..., Awaitable[object]]]) -> None:
        self._inner = inner
        self._hooks = hooks

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        hook = self._hooks.get(name)
        if hook is None:
            return method
        return lambda *words, **named: hook(partial(method, *words, **named))


Call = partial[Any]


async def outcome(call: Call) -> Any:
    """The result of a port's method, whether it is a plain one, a coroutine or a future."""
    answer = call()
    return await answer if inspect.isawaitable(answer) else answer


def wrap_store(store: object, points: Failpoints) -> Any:
    """The steps around the store's transitions, each of which carries a whole commit: one answer per request.

    A batch that closes inside an append is closed there, too. A claim counts as one when it took something.
    """

    async def append(call: Call) -> object:
        points.hit("before_append")
        answers = await outcome(call)
        points.hit("after_append")
        if any(answer.closed is not None for answer in answers):
            points.hit("after_close")
        return answers

    async def close(call: Call) -> object:
        answers = await outcome(call)
        if any(isinstance(answer, ClosedBatch) for answer in answers):
            points.hit("after_close")
        return answers

    async def work(call: Call) -> object:
        requests = call.args[0]
        if any(isinstance(request, Claim) for request in requests):
            points.hit("before_claim")
        answers = await outcome(call)
        if any(isinstance(answer, Claimed) for answer in answers):
            points.hit("after_claim")
        if any(isinstance(request, Settle) for request in requests):
            points.hit("after_settle")
        return answers

    return Wrapped(store, {"append": append, "close": close, "work": work})


def wrap_egress(egress: object, points: Failpoints) -> Any:
    """The steps around the request to the webhook."""

    async def send(call: Call) -> object:
        if not points.armed("mid_post"):
            answer = await outcome(call)
            points.hit("after_post_before_settle")
            return answer
        request = asyncio.ensure_future(outcome(call))
        try:
            await asyncio.wait({request}, timeout=MID_POST_S)
            points.hit("mid_post")
            return await request
        finally:
            request.cancel()

    return Wrapped(egress, {"send": send})


def node_with(points: Failpoints, later: Path | None = None) -> NodeFactory:
    """Makes the node that production makes, with the failpoints in its ports. `later`: the file to arm them from."""

    def into(store: Any) -> None:
        store.batches = wrap_store(store.batches, points)
        store.deliveries = wrap_store(store.deliveries, points)

    def make(configured: Settings, store_url: str, on_fatal: Callable[[str], None]) -> Node:
        if later is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: points.arm(parse(later.read_text())))
        return Node(configured, store_url, on_fatal, into, lambda egress: wrap_egress(egress, points))

    return make


def main() -> int:
    """Serve like `python -m router serve`, with the failpoints of the environment."""
    given = os.environ.get("BUZON_FAILPOINT", "")
    later = Path(given[1:]) if given.startswith("@") else None
    points = Failpoints({} if later else parse(given))
    return run(load(os.environ).settings, node_with(points, later))


if __name__ == "__main__":
    sys.exit(main())
