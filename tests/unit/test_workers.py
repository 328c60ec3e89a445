"""The parts of a parent of workers that decide: pauses, what each worker is told, ports and addresses, the line."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from router import worker_line
from router.edge.metrics_sum import Families, Family, Series
from router.listening import CannotListen, addresses, listen, reserve
from router.node_place import node_place
from router.settings import Settings, load
from router.worker_line import (
    FRAME_BYTES_MAX,
    AskSum,
    Collect,
    Failed,
    FromParent,
    FromWorker,
    Numbers,
    ParentLine,
    Ready,
    Sum,
    frame,
    from_worker,
    next_frame,
)
from router.worker_place import WorkerPlace
from router.worker_process import LIVED_S, PAUSE_S_MAX, next_pause_s
from router.workers import worker_environment

LOOPBACK = "127.0.0.1"


def test_the_pause_before_a_start_grows_and_is_short_again_after_a_long_life() -> None:
    """0.1 s, doubled up to 5 s."""
    pauses_s, pause_s = [], 0.0
    for _ in range(8):
        pause_s = next_pause_s(pause_s, 0.3)
        pauses_s.append(pause_s)

    assert pauses_s == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert next_pause_s(PAUSE_S_MAX, LIVED_S) == 0.1
    assert next_pause_s(PAUSE_S_MAX, LIVED_S - 0.1) == PAUSE_S_MAX


def test_a_worker_is_told_what_its_parent_was_told(tmp_path: Path) -> None:
    """Flags, variables under any name and the file mean the same to it; ports, name, address and store are its own."""
    file = tmp_path / "buzon.yaml"
    file.write_text("port: 1\nnode_id: shop\nmax_retries: 7\nretry_delay: 9s\nworkers: 3\nnode_url: tcp://h:7000\n")
    environment, flags = {"APP_PORT": "2", "MAX_RETRIES": "8", "DEBUG": "true"}, {"DATA_DIR": "/d", "PORT": "0,0"}
    parent = load(environment, config=file, flags=flags)

    told = worker_environment(parent, environment | flags, [4001, 4002, 4001], "unix:///d/valkey.sock?db=0", 3)
    worker = load(told, config=file).settings

    expected = {
        "ports": (4001, 4002),
        "node_id": "shop-3",
        "node_address": ("h", 7002),
        "redis_url": "unix:///d/valkey.sock?db=0",
    }
    fields = Settings.__struct_fields__
    assert {name: getattr(worker, name) for name in fields} == {
        name: expected.get(name, getattr(parent.settings, name)) for name in fields
    }


def test_a_worker_has_a_name_of_its_parents_and_finds_a_given_store_itself() -> None:
    """Also when the name was made: one that is started again finds its partitions under it. No password is copied
    into its environment; a kernel's port for nodes stays the kernel's."""
    environment = {"REDIS_HOST": "h", "REDIS_PASSWORD": "p", "WORKERS": "2", "NODE_URL": "tcp://h:0"}
    parent = load(environment)

    told = worker_environment(parent, environment, [8000], "", 2)

    assert told == environment | {
        "PORT": "8000",
        "NODE_URL": "tcp://h:0",
        "NODE_ID": f"{parent.settings.node_id}-2",
    }


def test_a_reserved_port_is_for_workers_only() -> None:
    """Several of them listen there and get the connections; nobody else can listen, and what is reserved gets none."""
    (reserved,) = reserve(LOOPBACK, [0])
    with reserved:
        port = addresses([reserved])[0][1]
        (first,), (second,) = listen(LOOPBACK, [port], shared=True), listen(LOOPBACK, [port], shared=True)
        with first, second:
            connections = [socket.create_connection((LOOPBACK, port), timeout=1) for _ in range(50)]
            accepted = [accepted_by(each) for each in (first, second)]
            for each in connections:
                each.close()
            with pytest.raises(CannotListen, match=f"^PORT: port {port} on 127.0.0.1 is taken by another program"):
                listen(LOOPBACK, [port])

    assert sum(accepted) == 50
    assert min(accepted) > 0


def accepted_by(listener: socket.socket) -> int:
    """How many connections the kernel gave to this listener."""
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "with SO_REUSEPORT"])
def test_a_port_on_which_another_program_listens_cannot_be_reserved(shared: bool) -> None:
    """Also when that program would share it, say another parent's worker: half of its connections would come to us."""
    (taken,) = listen(LOOPBACK, [0], shared=shared)
    with taken:
        port = addresses([taken])[0][1]
        with pytest.raises(CannotListen) as caught:
            reserve(LOOPBACK, [0, port])

    assert str(caught.value) == (
        f"PORT: port {port} on 127.0.0.1 is taken by another program; end it or set another PORT"
    )


def test_ports_that_the_kernel_picks_are_all_different() -> None:
    """Two of them are two, and each can be listened on by several."""
    sockets = reserve(LOOPBACK, [0, 0])
    ports = [port for _, port in addresses(sockets)]
    listeners = [listener for _ in range(2) for listener in listen(LOOPBACK, ports, shared=True)]
    for each in (*sockets, *listeners):
        each.close()

    assert len(set(ports)) == 2
    assert len(listeners) == 4


@pytest.mark.parametrize(
    ("environment", "store_url", "wanted"),
    [
        ({}, "redis://192.0.2.1:6379/0", (LOOPBACK, 0, LOOPBACK)),
        ({"APP_HOST": "::1"}, "redis://h", ("::1", 0, "::1")),
        ({"APP_HOST": "127.0.0.3"}, "unix:///s?db=0", ("127.0.0.3", 0, "127.0.0.3")),
        ({"APP_HOST": "0.0.0.0", "AUTH": "off"}, "redis://u:p@127.0.0.1:1/0", (LOOPBACK, 0, LOOPBACK)),
        ({"APP_HOST": "0.0.0.0", "AUTH": "off"}, "redis+cluster://[::1]:1,[::1]:2", ("::1", 0, "::1")),
        ({"APP_HOST": "0.0.0.0", "AUTH": "off"}, "unix:///s?db=0", (LOOPBACK, 0, LOOPBACK)),
        ({"NODE_URL": "tcp://127.0.0.2:7000"}, "redis://h", ("127.0.0.2", 7000, "127.0.0.2")),
        ({"NODE_URL": "tcp://192.0.2.1:7000"}, "redis://h", ("0.0.0.0", 7000, "192.0.2.1")),
        ({"NODE_URL": "tcp://[2001:db8::1]:7000"}, "redis://h", ("::", 7000, "2001:db8::1")),
    ],
)
def test_nodes_find_each_other_where_they_are_told_or_can_be(
    environment: dict[str, str], store_url: str, wanted: tuple[str, int, str]
) -> None:
    """NODE_URL, also one that only others know the node by; else APP_HOST; else the address used towards the store."""
    assert node_place(load(environment).settings, store_url) == wanted


def test_a_name_that_nobody_has_is_one_line() -> None:
    """It names the setting."""
    with pytest.raises(CannotListen, match=r"^NODE_URL: a\.\.b is not an address or a name that can be resolved here$"):
        node_place(load({"NODE_URL": "tcp://a..b:1"}).settings, "redis://h")


NUMBERS: Families = [Family("buzon_x", "X.", "counter", [Series("buzon_x_total", (("a", "b"),), 3.0)])]


class Parent:
    """The other end of a worker's line, in the same process: what it hears and says."""

    def __init__(self, line: ParentLine, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.line = line
        self._reader = reader
        self._writer = writer

    async def heard(self) -> FromWorker:
        """The next message of the worker."""
        body = await next_frame(self._reader)
        assert body is not None
        message: FromWorker = from_worker.decode(body)
        return message

    def say(self, *messages: FromParent) -> None:
        """Tell the worker something."""
        self._writer.write(b"".join(map(frame, messages)))


@pytest.fixture(name="parent")
async def fixture_parent() -> AsyncIterator[Parent]:
    """A line with both its ends here; the worker's own numbers are always the same."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    place = WorkerPlace(group="g", index=1, parent=os.getppid(), line=theirs.detach())
    with closing(ParentLine(place)) as line:
        await line.open()
        running = asyncio.ensure_future(line.run(lambda: NUMBERS))
        yield Parent(line, reader, writer)
        running.cancel()  # before the line ends: a worker ends with it
        await asyncio.wait([running])
    writer.close()
    await writer.wait_closed()


async def test_a_worker_tells_its_numbers_and_when_it_is_ready(parent: Parent) -> None:
    """Each time it is asked."""
    parent.line.ready("n1", "Valkey 9.1.2")
    parent.say(Collect(), Collect())

    assert [await parent.heard() for _ in range(3)] == [Ready("n1", "Valkey 9.1.2"), Numbers(NUMBERS), Numbers(NUMBERS)]


async def test_scrapes_at_once_share_one_sum(parent: Parent) -> None:
    """The parent is asked once, and both get its answer; the next scrape asks again."""
    summed = [Family("buzon_x", "X.", "counter", [Series("buzon_x_total", (("a", "b"),), 9.0)])]
    for _ in range(2):
        scrapes = [asyncio.ensure_future(parent.line.sum_up(NUMBERS)) for _ in range(2)]
        assert await parent.heard() == AskSum(NUMBERS)
        parent.say(Sum(summed))

        assert await asyncio.gather(*scrapes) == [summed, summed]


async def test_without_an_answer_a_worker_shows_its_own_numbers(
    parent: Parent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is too small is better than none; its count of workers says so."""
    monkeypatch.setattr(worker_line, "ANSWER_S", 0.05)

    assert await parent.line.sum_up(NUMBERS) is NUMBERS


async def test_the_last_word_needs_no_loop(parent: Parent) -> None:
    """Why a worker could not start is told after everything else is gone."""
    await asyncio.to_thread(parent.line.failed, "REDIS_URL: no")

    assert await parent.heard() == Failed("REDIS_URL: no")


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x05abc", (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"abc"])
async def test_half_a_frame_and_too_large_a_one_end_the_line(sent: bytes) -> None:
    """Nothing is kept for what will never be complete."""
    reader = asyncio.StreamReader()
    reader.feed_data(sent)
    reader.feed_eof()

    assert await next_frame(reader) is None
