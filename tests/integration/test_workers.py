"""Several workers on one port: they share it, their engine and their numbers, and none outlives the others' parent."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest

from tests.support.behaviours import Reply
from tests.support.child import Child
from tests.support.client import Client
from tests.support.sink import Sink
from tests.support.talkers import Talkers
from tests.support.until import until
from tests.support.workers import Workers, alive

KEYS = [f"key {number}" for number in range(20)]
QUICK = {"RETRY_DELAY": "100ms"}
STOP_S = 5.0
GROWING = ("_total", "_bucket", "_sum", "_count")


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    """A webhook that takes what comes."""
    async with Sink() as receiver:
        yield receiver


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    """Two workers with an embedded engine, ready."""
    async with Workers(tmp_path, **QUICK) as started:
        await started.start()
        yield started


async def both_answer(workers: Workers) -> bool:
    """Whether each of the two has the port and is ready."""
    return await workers.names() == {"n-1", "n-2"}


async def test_two_workers_share_a_port_that_the_kernel_picked(tmp_path: Path) -> None:
    """One banner tells of both, on one port; each answers a part of the connections. The parent waits for nothing."""
    async with Workers(tmp_path, PORT="0") as workers:
        await workers.start()
        said = workers.child.stdout_path.read_text()

        assert await both_answer(workers)
        assert "is ready (2 workers)" in said
        assert said.count("http://127.0.0.1:") == 2, "where it listens, and its docs"
        assert f"  data       {tmp_path / 'data'} (embedded Valkey 9." in said
        assert len(workers.pids) == 2

        began = time.monotonic()
        workers.child.send_signal(signal.SIGINT)
        assert workers.child.wait(STOP_S) == 0, workers.child.output()
        assert time.monotonic() - began < STOP_S
        assert "Traceback" not in workers.child.output()
        assert workers.child.stdout_path.read_text() == said


async def test_the_metrics_of_one_worker_are_those_of_all(
    workers: Workers, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """Whoever is asked; also while one is frozen or has just been started again nothing that grows goes backwards."""
    client = Client(http, workers.url)
    for number in range(30):
        await client.send(sink.url(), f"k{number}", {}, max_size=1)
    await sink.wait_for_requests(30)
    pages = [await samples(workers) for _ in range(10)]

    assert {page["buzon_workers_answering"] for page in pages} == {2}
    assert {page["buzon_messages_accepted_total"] for page in pages} == {30}
    assert {page["buzon_batches_total size"] for page in pages} == {30}
    assert {page["buzon_nodes_alive"] for page in pages} == {2}

    first, second = workers.pids
    os.kill(first, signal.SIGSTOP)
    pages.append(await answering(workers, 1))
    os.kill(first, signal.SIGCONT)
    pages.append(await answering(workers, 2))
    os.kill(second, signal.SIGKILL)
    pages.append(await answering(workers, 1))
    await until(lambda: both_answer(workers), 15, what="both workers are ready")
    pages.append(await answering(workers, 2))

    assert pages[-1]["buzon_messages_accepted_total"] == 30
    for before, after in pairwise(pages):
        grown = {name for name in before if name.partition(" ")[0].endswith(GROWING)}
        assert {name for name in grown if after[name] < before[name]} == set()


async def samples(workers: Workers) -> dict[str, float]:
    """The page that any worker gives."""
    return (await workers.fresh("/metrics")).samples


async def answering(workers: Workers, count: int) -> dict[str, float]:
    """The first page in which so many workers are counted."""

    async def page() -> dict[str, float] | None:
        try:
            found = await samples(workers)
        except (aiohttp.ClientError, TimeoutError):
            return None
        return found if found["buzon_workers_answering"] == count else None

    found = await until(page, 15, what=f"{count} workers answer")
    assert found is not None
    return found


async def test_a_killed_worker_is_started_again_while_the_other_serves(
    workers: Workers, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """Nothing acknowledged is lost or out of order; the log says what happened."""
    first, second = workers.pids
    async with Talkers(Client(http, workers.url), sink.url("/hook"), KEYS) as talkers:
        await talkers.more(200)
        os.kill(first, signal.SIGKILL)
        await talkers.more(200)
        await until(lambda: len(set(workers.pids) - {first}) == 2, what="a new process")
        await until(lambda: both_answer(workers), 10, what="both workers are ready")
        await talkers.more(200)

    findings = await talkers.settled(sink)

    assert findings.sound, findings
    assert second in workers.pids
    assert alive([first]) == []
    assert '"worker ended"' in workers.child.stderr_path.read_text()
    assert {told.status for told in talkers.refused} <= {0, 503}


async def test_a_stop_under_load_drains_them_all(workers: Workers, http: aiohttp.ClientSession, sink: Sink) -> None:
    """Exit code 0 within five seconds; nothing acknowledged is lost, nothing comes twice, nobody is left."""
    sink.on("/hook", Reply(delay_s=0.05))
    async with Talkers(Client(http, workers.url), sink.url("/hook"), KEYS) as talkers:
        await talkers.more(300)
        left = [*workers.pids, workers.engine_pid]
        began = time.monotonic()
        workers.child.send_signal(signal.SIGTERM)
        await until(lambda: workers.child.exit_code is not None, STOP_S, what="the parent ends")
        took_s = time.monotonic() - began
        assert workers.child.exit_code == 0, workers.child.output()
        assert alive(left) == []
        await workers.start()
        await talkers.more(200)

    findings = await talkers.settled(sink)

    assert findings.clean, findings
    assert took_s < STOP_S
    assert "Traceback" not in workers.child.output()


async def test_a_worker_that_hangs_is_killed_when_the_time_is_over(workers: Workers) -> None:
    """Exit code 0 within five seconds all the same."""
    left = [*workers.pids, workers.engine_pid]
    os.kill(left[0], signal.SIGSTOP)
    began = time.monotonic()

    workers.child.send_signal(signal.SIGTERM)

    assert workers.child.wait(STOP_S + 1) == 0, workers.child.output()
    assert time.monotonic() - began < STOP_S
    assert alive(left) == []


async def test_kill_9_of_the_parent_leaves_nobody_and_the_next_start_works_at_once(
    workers: Workers, http: aiohttp.ClientSession, sink: Sink
) -> None:
    """Also a frozen worker ends; what was taken is delivered by those who come after."""
    client = Client(http, workers.url)
    await client.send(sink.url("/open"), "open", {}, wait_time=1)
    left = [*workers.pids, workers.engine_pid]
    os.kill(left[0], signal.SIGSTOP)

    workers.child.kill9()
    await workers.start()
    assert alive(left) == []

    await until(lambda: both_answer(workers), 10, what="both workers are ready")
    await client.until_status("open", "delivered")


async def test_the_engine_is_shared_and_started_again(workers: Workers) -> None:
    """By the parent; the workers stay and are ready again."""
    pids, engine = workers.pids, workers.engine_pid
    assert len(pids) == 2

    os.kill(engine, signal.SIGKILL)

    lock = workers.folder / "data/valkey/engine.lock"
    await until(lambda: lock.read_text() not in ("", str(engine)), 5, what="a new engine")
    await until(lambda: both_answer(workers), 10, what="both workers are ready")
    assert workers.pids == pids


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with SO_REUSEPORT"])
async def test_a_taken_port_is_one_line(tmp_path: Path, shared: bool) -> None:
    """Nothing was started for it."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        async with Workers(tmp_path, PORT=str(port)) as workers:
            workers.launch()

            line = workers.refused()

    assert line == f"buzon: PORT: port {port} on 127.0.0.1 is taken by another program; end it or set another PORT"
    assert not (tmp_path / "data/valkey").exists()


async def test_a_second_parent_on_the_folder_is_one_line(workers: Workers, tmp_path: Path) -> None:
    """It names the parent that has the folder."""
    (tmp_path / "second").mkdir()
    async with Workers(tmp_path / "second", DATA_DIR=str(tmp_path / "data")) as second:
        second.launch()

        line = second.refused()

    assert f"is in use by another node (pid {workers.child.pid})" in line


async def test_what_no_worker_can_start_with_is_one_line(tmp_path: Path) -> None:
    """The parent says what each of them said; the password is not told."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    async with Workers(tmp_path, REDIS_URL=f"redis://:canary@127.0.0.1:{port}/0") as workers:
        workers.launch()

        line = workers.refused()

    assert line.startswith("buzon: REDIS_URL: cannot use the store: ")
    assert "canary" not in line


def test_workers_that_crash_at_once_are_not_started_for_ever(tmp_path: Path) -> None:
    """When not one has come up the parent ends, too."""
    program = """
import os, sys
from actors.core.refusals import CannotStart
from router import settings, workers
try:
    workers.run(settings.load(os.environ), os.environ, [sys.executable, "-c", "raise SystemExit(3)"])
except CannotStart as refusal:
    sys.exit(str(refusal))
"""
    environment = {"WORKERS": "2", "PORT": "0", "REDIS_URL": "redis://127.0.0.1:1"}
    with Child([sys.executable, "-c", program], tmp_path / "parent", environment=environment) as parent:
        assert parent.wait(10) == 1, parent.output()
        assert parent.stderr_path.read_text() == "WORKERS: not one could start; what they wrote says why\n"
