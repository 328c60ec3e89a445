"""Warm: a process that has imported pytest and every package already, and runs pytest in a child for each request.

Nothing of this tree is imported before the child runs: each child sees the files as they are then. A request is a line
of JSON with pytest's arguments, a name for its output and a time limit; the answer is a line with the exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from select import select
from time import monotonic

import msgspec
import pytest
from msgspec import Struct

PACKAGES = (
    *("aiohttp.web", "hiredis", "hypothesis.stateful", "multidict", "prometheus_client", "pytest_asyncio.plugin"),
    *("pytest_timeout", "redis.asyncio", "structlog", "yaml", "yarl", "click", "uvloop", "_hypothesis_pytestplugin"),
)
LATE = -1
"""Stands for the exit code of a run that did not end in its time."""


class Request(Struct, frozen=True):
    """One run of pytest."""

    arguments: list[str]
    output: str
    within_s: float


def main() -> int:
    """Answer requests until there are no more."""
    for name in PACKAGES:
        import_module(name)
    for line in sys.stdin:
        request = msgspec.json.decode(line, type=Request)
        child = os.fork()
        if child == 0:
            os._exit(_run(request))
        print(_ended(child, request.within_s), flush=True)
    return 0


def _run(request: Request) -> int:
    """Be pytest. Its own process group, so that what it starts can be ended with it."""
    os.setpgid(0, 0)
    output = os.open(request.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for theirs, ours in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(theirs, ours)
    sys.dont_write_bytecode = True  # a mutant's must not be there for the next run
    code = int(pytest.main(request.arguments))
    sys.stdout.flush()
    return code


def _ended(child: int, within_s: float) -> int:
    """The child's exit code, LATE when it had to be ended."""
    process = os.pidfd_open(child)
    try:
        ends_at = monotonic() + within_s
        in_time, _, _ = select([process], [], [], max(ends_at - monotonic(), 0))
        if not in_time:
            os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(process)
    return os.waitstatus_to_exitcode(status) if in_time else LATE


if __name__ == "__main__":
    sys.exit(main())
