"""The address guard where it dials: no SYN leaves for a refused address, however it is written or resolved.

The catcher is a real listener on loopback, which the guard of these tests refuses. 127.0.0.2 plays the public
internet where something must be reachable.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import pytest

from actors.adapters.http import dialing
from actors.adapters.http import egress as egress_module
from actors.adapters.http.dialing import GuardedResolver, system_lookup
from actors.adapters.http.egress import UNREACHABLE, HttpEgress
from actors.core.addresses import Guard, parse_networks
from actors.core.outcome import Answered, Failed
from actors.egress_ports import OutboundRequest
from tests.support.behaviours import Reply
from tests.support.sink import Sink
from tests.support.until import until

STRICT = Guard()
PUBLIC_STANDS_IN = Guard(allowed_networks=parse_networks(["127.0.0.2"]))


class Names:
    """A name service that is scripted: one list of answers a name, the last one for ever. Counts the look-ups."""

    def __init__(self, **answers: list[Sequence[str]]) -> None:
        self.answers = {name.replace("_", "."): list(lists) for name, lists in answers.items()}
        self.asked: list[str] = []

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answers = self.answers.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@asynccontextmanager
async def running(guard: Guard, lookup: Callable[[str], Sequence[str]] = system_lookup) -> AsyncIterator[HttpEgress]:
    """A started egress."""
    async with aclosing(HttpEgress(guard, lookup=lookup)) as egress:
        await egress.start()
        yield egress


@pytest.fixture
async def catcher() -> AsyncIterator[Sink]:
    """A listener on 127.0.0.1 that counts every connection."""
    async with Sink() as sink:
        yield sink


def post(url: str, timeout_s: float = 2.0) -> OutboundRequest:
    """A request to a webhook, past the check at accept time: the guard must hold alone."""
    return OutboundRequest(method="POST", url=url, headers={}, body=b"{}", timeout_s=timeout_s)


async def prove_untouched(catcher: Sink) -> None:
    """Connections are accepted in order: if ours is the first one seen, none came before."""
    _, writer = await asyncio.open_connection(*catcher.address)
    writer.close()
    await writer.wait_closed()
    await catcher.wait_for_connections(1)
    assert catcher.connections == 1


LITERALS = (
    "127.0.0.1 127.0.0.2 [::ffff:127.0.0.1] [::ffff:7f00:1] [::1] [::127.0.0.1] [::] 0.0.0.0 2130706433 0x7f000001"
    " 0x7f.1 017700000001 127.1 0127.0.0.1 127.0.0.1. localhost LOCALHOST localhost. a.localhost ip6-localhost"
    " \uff11\uff12\uff17.0.0.1 \u2460\u2461\u2466.0.0.1 127\u30020\u30020\u30021 user@127.0.0.1 [::ffff:0:127.0.0.1]"
    " [::1%25lo] [64:ff9b::7f00:1] [2002:7f00:1::1]"
)


@pytest.mark.parametrize("host", LITERALS.split())
async def test_no_spelling_of_loopback_is_dialled(catcher: Sink, host: str) -> None:
    """One phrase for all of them, and the listener sees nobody."""
    async with running(STRICT) as egress:
        outcome = await egress.send(post(f"http://{host}:{catcher.address[1]}/"))

    assert isinstance(outcome, Failed), outcome
    assert outcome.error == UNREACHABLE
    await prove_untouched(catcher)


async def test_the_guard_holds_for_https_too(catcher: Sink) -> None:
    """The socket is refused before there is anything to encrypt."""
    async with running(STRICT) as egress:
        outcome = await egress.send(post(f"https://127.0.0.1:{catcher.address[1]}/"))
    assert isinstance(outcome, Failed)
    assert outcome.error == UNREACHABLE
    await prove_untouched(catcher)


@pytest.mark.parametrize(
    "addresses",
    [
        *(["127.0.0.1"], ["::ffff:127.0.0.1"], ["::1"], ["fe80::1%lo"], ["10.0.0.1"], ["169.254.169.254"]),
        *(
            ["127.0.0.2", "127.0.0.1"],
            ["127.0.0.1", "127.0.0.2"],
            ["127.0.0.2", "::1"],
            ["127.0.0.2", "not-an-address"],
        ),
    ],
)
async def test_a_name_with_a_refused_address_is_refused_whole(catcher: Sink, addresses: list[str]) -> None:
    """Mixed answers too: an attacker's server would answer with both and wait for the fallback."""
    async with Sink(host="127.0.0.2", port=catcher.address[1]) as public:
        async with running(PUBLIC_STANDS_IN, Names(hook_test=[addresses])) as egress:
            outcome = await egress.send(post(f"http://hook.test:{catcher.address[1]}/"))

        assert isinstance(outcome, Failed)
        assert outcome.error == UNREACHABLE
        await prove_untouched(catcher)
        await prove_untouched(public)


async def test_a_name_that_is_rebound_is_refused(catcher: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Public the first time, loopback the second: what was allowed once is judged again at the next dial."""
    monkeypatch.setattr(egress_module, "LOOKUP_CACHE_S", 0)
    names = Names(hook_test=[["127.0.0.2"], ["127.0.0.1"]])
    async with Sink(host="127.0.0.2", port=catcher.address[1]) as public, running(PUBLIC_STANDS_IN, names) as egress:
        public.next(Reply(close=True))
        url = f"http://hook.test:{catcher.address[1]}/"

        first, second = await egress.send(post(url)), await egress.send(post(url))

        assert isinstance(first, Answered)
        assert isinstance(second, Failed)
        assert second.error == UNREACHABLE
        assert names.asked == ["hook.test", "hook.test"]
        assert public.count == 1
    await prove_untouched(catcher)


async def test_a_refused_address_reads_like_one_that_does_not_exist(catcher: Sink) -> None:
    """Literal, name, closed port, no such name: nobody can map our network by the texts of failures."""
    port = catcher.address[1]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
        async with running(STRICT, Names(inside_test=[["127.0.0.1"]], empty_test=[[]])) as egress:
            urls = [
                *(f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{closed}/", f"http://inside.test:{port}/"),
                *(f"http://inside.test:{closed}/", "http://nowhere.test/", "http://empty.test/", "http://10.0.0.1/"),
            ]
            outcomes = [await egress.send(post(url)) for url in urls]
    assert {outcome.error if isinstance(outcome, Failed) else outcome for outcome in outcomes} == {UNREACHABLE}


async def test_an_allowed_network_is_reached_and_no_other(catcher: Sink) -> None:
    """WEBHOOK_ALLOWED_NETWORKS at the dial: literal and by name."""
    async with Sink(host="127.0.0.2") as public, running(PUBLIC_STANDS_IN, Names(hook_test=[["127.0.0.2"]])) as egress:
        port = public.address[1]
        for host in ("127.0.0.2", "[::ffff:127.0.0.2]", "hook.test"):
            assert isinstance(await egress.send(post(f"http://{host}:{port}/")), Answered), host
        assert isinstance(await egress.send(post(catcher.url())), Failed)
    await prove_untouched(catcher)


async def test_a_default_run_reaches_localhost_by_name(catcher: Sink) -> None:
    """Through the real name service."""
    async with running(Guard(loopback_allowed=True)) as egress:
        outcome = await egress.send(post(f"http://localhost:{catcher.address[1]}/"))
    assert isinstance(outcome, Answered)


async def test_the_second_address_is_tried(catcher: Sink) -> None:
    """A host with several addresses, the first of them closed."""
    names = Names(hook_test=[["127.0.0.3", "127.0.0.1"]])
    async with running(Guard(loopback_allowed=True), names) as egress:
        outcome = await egress.send(post(f"http://hook.test:{catcher.address[1]}/"))
    assert isinstance(outcome, Answered)


class Stuck:
    """A name service that hangs until it is let go, for every name but `good.test`."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.let_go = threading.Event()

    def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host != "good.test":
            self.let_go.wait(10)
        return ["127.0.0.1"]


@pytest.fixture
async def stuck() -> AsyncIterator[Stuck]:
    """A hanging name service; its threads are gone after the test."""
    stuck = Stuck()
    yield stuck
    stuck.let_go.set()
    await until(lambda: not any(thread.name == "lookup" for thread in threading.enumerate()), what="threads end")


async def test_a_hanging_lookup_holds_up_no_other_host(
    catcher: Sink, stuck: Stuck, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty names hang; they fail within the limit for look-ups, and another host is reached meanwhile."""
    monkeypatch.setattr(dialing, "LOOKUP_S", 0.2)
    port = catcher.address[1]
    async with running(Guard(loopback_allowed=True), stuck) as egress, asyncio.TaskGroup() as group:
        hanging = [group.create_task(egress.send(post(f"http://h{n}.test:{port}/"))) for n in range(30)]
        await until(lambda: len(stuck.asked) == 30, what="all names are being looked up")

        good = await egress.send(post(f"http://good.test:{port}/"))

        assert isinstance(good, Answered)
        assert not any(task.done() for task in hanging)
    outcomes = [task.result() for task in hanging]
    assert {outcome.error for outcome in outcomes if isinstance(outcome, Failed)} == {UNREACHABLE}
    assert all(isinstance(outcome, Failed) and outcome.latency_ms < 1500 for outcome in outcomes)


async def test_a_hanging_name_costs_one_thread(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts that come later join the look-up that hangs."""
    monkeypatch.setattr(dialing, "LOOKUP_S", 0.02)
    async with running(STRICT, stuck) as egress:
        for _ in range(5):
            assert isinstance(await egress.send(post("http://hung.test/")), Failed)
        assert stuck.asked == ["hung.test"]


async def test_hanging_lookups_are_bounded(catcher: Sink, stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a name fails at once; when the others have come back it is looked up again."""
    monkeypatch.setattr(dialing, "LOOKUP_S", 0.02)
    monkeypatch.setattr(dialing, "LOOKUPS_MAX", 3)
    port = catcher.address[1]
    async with running(Guard(loopback_allowed=True), stuck) as egress:
        for n in range(5):
            assert isinstance(await egress.send(post(f"http://h{n}.test/")), Failed)
        assert isinstance(await egress.send(post(f"http://good.test:{port}/")), Failed)
        assert stuck.asked == ["h0.test", "h1.test", "h2.test"]

        stuck.let_go.set()
        await until(lambda: not any(thread.name == "lookup" for thread in threading.enumerate()), what="threads end")
        assert isinstance(await egress.send(post(f"http://good.test:{port}/")), Answered)


async def test_closing_does_not_wait_for_a_hanging_lookup(stuck: Stuck) -> None:
    """A shutdown must not take as long as a name server that is away."""
    async with running(STRICT, stuck) as egress:
        sending = asyncio.create_task(egress.send(post("http://hung.test/", timeout_s=30)))
        await until(lambda: stuck.asked)
        async with asyncio.timeout(1):
            await egress.aclose()
            assert isinstance(await sending, Failed)


async def test_odd_names_are_not_found() -> None:
    """Names that the socket module cannot even encode are unreachable, not an exception."""
    resolver = GuardedResolver(STRICT, system_lookup)
    for host in ("a" * 70 + ".test", "a..test", "-.test.", "\udc80.test"):
        with pytest.raises(OSError, match="unreachable"):
            await resolver.resolve(host)
    await resolver.close()
