"""The parts that other tests stand on: stores, children and waiting do what their names say."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.child import ROOT, Child
from tests.support.until import NeverHappened, steady, until
from tests.support.valkey import ValkeyServer

IDLE = ["/bin/sh", "-c", "exec sleep 60"]


def test_a_store_keeps_what_it_acknowledged_through_a_crash(own_valkey: ValkeyServer) -> None:
    """kill -9 and a restart on the same directory lose nothing that the AOF had."""
    own_valkey.command("SET", "k", "v")

    own_valkey.restart()

    assert own_valkey.command("GET", "k") == "v"


def test_a_store_can_lose_its_tail(own_valkey: ValkeyServer) -> None:
    """Cutting the AOF takes the newest write and leaves the older ones."""
    own_valkey.command("SET", "old", "1")
    own_valkey.command("SET", "new", "2")

    own_valkey.kill9()
    own_valkey.cut_aof(4)
    own_valkey.start()

    assert own_valkey.command("MGET", "old", "new") == ["1", None]


def test_a_frozen_store_answers_nothing_until_it_thaws(own_valkey: ValkeyServer) -> None:
    """SIGSTOP leaves the connection open and silent; SIGCONT brings the answer that was owed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(0.1)
        connection.connect(str(own_valkey.socket_path))
        own_valkey.freeze()
        connection.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            connection.recv(64)
        own_valkey.thaw()
        connection.settimeout(5)

        assert connection.recv(64) == b"+PONG\r\n"


def test_both_engines_are_the_real_ones_and_start_empty(any_store: ValkeyServer) -> None:
    """The same fixture gives Valkey 9 and Redis 7.0, with the AOF on and nothing in them."""
    server = str(any_store.command("INFO", "server"))

    assert "'valkey_version': '9." in server or "'redis_version': '7.0." in server
    assert any_store.command("DBSIZE") == 0
    assert any_store.command("CONFIG", "GET", "appendonly") == {"appendonly": "yes"}


def test_a_child_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Killing a parent with -9 takes its leashed children along."""
    parent = (
        "import sys, pathlib, tests.support.child as c\n"
        f"child = c.Child({IDLE!r}, pathlib.Path({str(tmp_path / 'c')!r}))\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    argv = [sys.executable, "-c", parent]
    with subprocess.Popen(  # noqa: S603  our own argv, no shell
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        descriptor = os.pidfd_open(int(process.stdout.readline()))
        process.kill()

    ended = select.poll()
    ended.register(descriptor, select.POLLIN)  # a pidfd is readable once its process has ended
    assert ended.poll(5000)
    os.close(descriptor)


def test_a_child_is_frozen_thawed_and_killed_by_its_own_pid(tmp_path: Path) -> None:
    """A frozen child has not ended, a killed one says by which signal, and what it wrote is kept."""
    with Child(["/bin/sh", "-c", "echo hello; exec sleep 60"], tmp_path / "one") as child:
        child.freeze()
        assert child.wait(0.05) is None
        child.thaw()
        child.kill9()

        assert child.exit_code == -signal.SIGKILL


def test_what_a_child_wrote_is_shown(tmp_path: Path) -> None:
    """Both streams end up in its output, beside its exit code."""
    with Child(["/bin/sh", "-c", "echo hello; echo trouble >&2; exit 3"], tmp_path / "two") as child:
        child.wait(5)

        assert child.output() == "two (exit code 3)\nhello\ntrouble\n"


async def test_waiting_ends_with_the_condition_or_says_what_never_came() -> None:
    """`until` returns the first true answer, takes coroutines too, and names what it waited for."""
    happened = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, happened.set)

    assert await until(happened.is_set, 1)
    with pytest.raises(NeverHappened, match="a miracle not within"):
        await until(lambda: False, 0.03, what="a miracle")
    with pytest.raises(NeverHappened, match="peace did not stay true"):
        await steady(lambda: False, 0.03, what="peace")
