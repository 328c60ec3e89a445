"""Streams in the store: every message gets one offset, and whoever listens, node or not, hears it."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from actors.adapters.valkey.channel_calls import HEAD_MS_MIN
from actors.adapters.valkey.keys import PREFIXES
from actors.channel_ports import Position, Publish
from actors.core.partition import locate
from actors.ports import StoreAway
from tests.support.channel_store import (
    Server,
    channel,
    confirm,
    data_of,
    foreigner,
    joined_all,
    names_in,
    node_on,
    report,
    server_of,
)
from tests.support.store import dump, key_names
from tests.support.until import until
from tests.support.valkey import ValkeyServer

NAME = "pedidos/café"
DATA = '{"a":"é"}'.encode()
MANY = [f"channel-{number}" for number in range(40)]


def key(kind: str, name: str = NAME) -> str:
    """A channel's key of some kind."""
    return f"{PREFIXES[channel(name).partition]}{kind}:{channel(name).kid}"


async def test_messages_are_numbered(any_topology: Server) -> None:
    """From 1 on, by the channel, in the order in which they were given; each channel has an epoch of its own."""
    async with node_on(any_topology) as node:
        first = await node.publish(NAME, b"1", b"2")
        mixed = await node.send(*(Publish(channel(name), name, name.encode()) for name in (*MANY, NAME, *MANY)))

        assert [each.position.offset for each in first] == [1, 2]
        assert [each.position.offset for each in mixed] == [1] * 40 + [3] + [2] * 40
        assert len({each.position.epoch for each in mixed}) == 41
        found = await node.recall(NAME)
        assert [(each.offset, each.data) for each in found.publications] == [(1, b"1"), (2, b"2"), (3, NAME.encode())]
        assert found.top == Position(first[0].position.epoch, 3)
        assert [each.id for each in found.publications][-1] == NAME


async def test_a_position_gives_what_comes_after_it(any_topology: Server) -> None:
    """Of its own epoch only; no position gives where the stream stands."""
    async with node_on(any_topology) as node:
        *_, last = await node.publish(NAME, b"1", b"2", b"3")
        epoch = last.position.epoch
        assert data_of(await node.recall(NAME, Position(epoch, 1))) == [b"2", b"3"]
        assert data_of(await node.recall(NAME, Position(epoch, 3))) == []
        assert data_of(await node.recall(NAME, Position("another", 1))) == []
        assert data_of(await node.recall(NAME, Position("", 2))) == [b"3"]
        joined = await node.recall(NAME, mark="m")
        assert (joined.top, joined.publications) == (last.position, ())
        assert data_of(await node.recall(NAME, Position(epoch, 1), mark="m")) == [b"2", b"3"]


async def test_a_stream_keeps_so_many_messages(any_topology: Server) -> None:
    """Exactly, and their numbers."""
    async with node_on(any_topology, history_size=5) as node:
        await node.publish(NAME, *(b"%d" % number for number in range(1, 120)))
        found = await node.recall(NAME)
        assert [each.offset for each in found.publications] == [115, 116, 117, 118, 119]
        assert server_of(any_topology, NAME).command("XLEN", key("h")) == 5


async def test_a_quiet_stream_forgets_its_messages_but_not_where_it_stands(any_topology: Server) -> None:
    """A position in it still says that nothing was missed."""
    async with node_on(any_topology, history_ms=150) as node:
        *_, last = await node.publish(NAME, b"1", b"2")
        assert data_of(await node.recall(NAME)) == [b"1", b"2"]

        async def forgotten() -> bool:
            return not data_of(await node.recall(NAME))

        await until(forgotten, what="its messages expiring")
        assert (await node.recall(NAME)).top == last.position
        (following,) = await node.publish(NAME, b"3")
        assert following.position == Position(last.position.epoch, 3)
        assert data_of(await node.recall(NAME)) == [b"3"]


async def test_a_stream_without_a_head_begins_anew(any_topology: Server) -> None:
    """Nothing of the epoch before is ever read under the new one."""
    async with node_on(any_topology) as node:
        (before,) = await node.publish(NAME, b"old")
        assert (await node.recall("never used")).top == Position("", 0)
        server_of(any_topology, NAME).command("DEL", key("c"))
        (after,) = await node.publish(NAME, b"new")
        assert after.position.offset == 1
        assert after.position.epoch != before.position.epoch
        assert data_of(await node.recall(NAME)) == [b"new"]


async def test_what_is_published_once_is_not_published_again(any_topology: Server) -> None:
    """Also within one call; its answer is the first one's, and nobody hears it twice. By the id and the channel."""
    once = Publish(channel(NAME), "request-1", b"1", once=True)
    async with node_on(any_topology) as node:
        await node.listen(NAME)
        first, second = await node.send(once, once)
        (third,) = await node.send(once)
        await node.send(Publish(channel("other"), "request-1", b"1", once=True))
        (other,) = await node.send(Publish(channel(NAME), "request-2", b"2", once=True))

        assert (first.again, second.again, third.again, other.again) == (False, True, True, False)
        assert first.position == second.position == third.position
        assert other.position.offset == 2
        await until(lambda: node.noted.data(NAME) == [b"1", b"2"], what="both messages, once each")
        assert data_of(await node.recall("other")) == [b"1"]


async def test_what_is_published_once_may_be_again_when_that_is_long_ago(any_topology: Server) -> None:
    """So long is the name of a request remembered."""
    async with node_on(any_topology, once_ms=100) as node:
        once = Publish(channel(NAME), "request-1", b"1", once=True)

        async def twice() -> bool:
            return (await node.send(once))[0].position.offset == 2

        await until(twice, what="the same again")


async def test_other_redis_clients_hear_the_plain_message(any_topology: Server) -> None:
    """And nothing else; they are counted, the nodes are not. Those that listen to a pattern as well."""
    at = server_of(any_topology, NAME)
    async with node_on(any_topology) as node:
        await node.listen(NAME)
        with foreigner(at, to=NAME) as plain, foreigner(at, to="pedidos/*", pattern=True) as pattern:
            (answer,) = await node.publish(NAME, DATA)
            assert (answer.foreign, answer.elsewhere) == (2, 0)
            assert [plain(), plain()] == [DATA, None]
            assert [pattern(), pattern()] == [DATA, None]
            (audience,) = await node.channels.audiences([channel(NAME)])
            assert audience.foreign == 1


async def test_whoever_listens_hears_what_is_published_in_order(any_topology: Server) -> None:
    """Each message once, with its offset and id, on every node."""
    async with node_on(any_topology) as one, node_on(any_topology, incarnation="node-2") as two:
        for node in (one, two):
            await node.listen(NAME, "$nodes")
        sent = [(await node.publish(NAME, data))[0].position for node in (one, two) for data in (b"1", b"|2|", b"")]
        await one.publish("$nodes", b"{}")
        for node in (one, two):
            await node.has_heard("$nodes", b"{}")
            assert [each[1] for each in node.noted.of(NAME, "arrived")] == sent
            assert node.noted.data(NAME) == [b"1", b"|2|", b""] * 2


async def test_a_foreign_message_gets_one_offset(any_topology: Server) -> None:
    """However many nodes hear it and ask; all of them are told of the one. Whatever server it was published on."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(node_on(any_topology, incarnation=f"n{at}")) for at in range(3)]
        for node in nodes:
            await node.listen(NAME)
        await nodes[0].recall(NAME, mark="mark")
        any_topology.command("PUBLISH", NAME, "hola")
        any_topology.command("PUBLISH", NAME, "adiós")
        for node in nodes:
            await node.has_told("foreign", NAME, "adiós".encode())
            assert node.noted.of(NAME) == [
                ("listening",),
                ("marked", "mark"),
                ("foreign", b"hola"),
                ("foreign", "adiós".encode()),
            ]
        await nodes[0].ingest(NAME, "mark", 1, b'"hola"')
        await nodes[1].ingest(NAME, "mark", 1, b'"hola"', '"adiós"'.encode())
        await nodes[2].ingest(NAME, "mark", 2, '"adiós"'.encode())
        await nodes[2].ingest(NAME, "mark", 1, b'"hola"', '"adiós"'.encode())
        await nodes[2].publish(NAME, b"after")
        for node in nodes:
            await node.has_heard(NAME, b"after")
            assert [each[1:] for each in node.noted.of(NAME, "ingested")] == [("mark", 1), ("mark", 2)]
            assert node.noted.data(NAME) == [b'"hola"', '"adiós"'.encode(), b"after"]
        assert [each.offset for each in (await nodes[0].recall(NAME)).publications] == [1, 2, 3]


async def test_a_hole_among_foreign_messages_begins_an_epoch(any_topology: Server) -> None:
    """Once, and only where no node had what another gave up: whoever listens or comes back is told."""
    async with node_on(any_topology) as node:
        await node.ingest(NAME, "one", 1, b"1", b"2")
        before = (await node.recall(NAME)).top
        await node.ingest(NAME, "one", 3, b"3", gone=("one", 2))
        assert (await node.recall(NAME)).top == Position(before.epoch, 3)
        await node.ingest(NAME, "one", 6, b"6", gone=("one", 5))
        after = await node.recall(NAME)
        assert after.top.epoch > before.epoch
        assert data_of(after) == [b"6"]
        await node.ingest(NAME, "one", 4, b"4", b"5", b"6", b"7", gone=("one", 5))
        await node.ingest(NAME, "two", 1, b"8", gone=("one", 5))
        last = await node.recall(NAME)
        assert last.top == Position(after.top.epoch, 3)
        assert data_of(last) == [b"6", b"7", b"8"]


async def test_numbers_count_from_their_mark(any_topology: Server) -> None:
    """The first after another mark is another message."""
    async with node_on(any_topology) as node:
        await node.ingest(NAME, "one", 1, b"1", b"2")
        await node.ingest(NAME, "two", 1, b"3")
        await node.ingest(NAME, "one", 1, b"1")
        await node.ingest(NAME, "one", 2, b"2")
        await node.ingest(NAME, "one", 3, b"4")
        assert data_of(await node.recall(NAME)) == [b"1", b"2", b"3", b"4"]


async def test_everybody_hears_a_mark_in_the_same_place(any_topology: Server) -> None:
    """Between the same two messages; whoever joins reads up to there, and hears what follows."""
    async with node_on(any_topology) as one, node_on(any_topology, incarnation="node-2") as two:
        for node in (one, two):
            await node.listen(NAME)
        for number in range(20):
            await one.publish(NAME, b"%d" % number)
            server_of(any_topology, NAME).command("PUBLISH", NAME, "x")
            await two.recall(NAME, mark=f"mark-{number}")
        await one.publish(NAME, b"last")
        for node in (one, two):
            await node.has_heard(NAME, b"last")
        assert one.noted.of(NAME) == two.noted.of(NAME)
        kinds = [kind for kind, *_ in one.noted.of(NAME)]
        assert kinds.count("marked") == kinds.count("foreign") == 20


async def test_a_mark_begins_a_stream(any_topology: Server) -> None:
    """Whoever joins has a position to come back with, though nothing has been published."""
    async with node_on(any_topology) as node:
        joined = await node.recall(NAME, mark="m")
        assert joined.top.epoch
        assert joined.top.offset == 0
        (first,) = await node.publish(NAME, b"1")
        assert first.position == Position(joined.top.epoch, 1)


async def test_a_head_is_kept_for_a_day_from_its_last_use(any_topology: Server) -> None:
    """Whether somebody published or joined."""
    at = server_of(any_topology, NAME)
    async with node_on(any_topology) as node:
        await node.publish(NAME, b"1")
        for joins in (False, True):
            at.command("PEXPIRE", key("c"), 60_000)
            await (node.recall(NAME, mark="m") if joins else node.publish(NAME, b"2"))
            ttl_ms = at.command("PTTL", key("c"))
            assert isinstance(ttl_ms, int)
            assert HEAD_MS_MIN - 60_000 < ttl_ms <= HEAD_MS_MIN


async def test_a_look_writes_nothing(any_topology: Server) -> None:
    """Anybody may look at any name."""
    async with node_on(any_topology) as node:
        await node.publish(NAME, b"1")
        probes = f":{locate('probe node-1')[0]}"

        def stored() -> dict[str, object]:
            return {name: found for name, found in dump(any_topology).items() if not name.endswith(probes)}

        before = stored()
        await node.recall(NAME)
        await node.recall("never used")
        await node.channels.audiences([channel(NAME), channel("never used")])
        assert await node.channels.are_awake([channel("$nodes")]) == [False]
        assert stored() == before


async def test_a_store_that_lost_what_a_node_knows_begins_an_epoch(any_topology: Server) -> None:
    """It does not reach as far, or has another message there. Nothing of the old epoch is read again."""
    async with node_on(any_topology) as node:
        *_, last = await node.publish(NAME, b"1", b"2", b"3")
        at = server_of(any_topology, NAME)
        epoch = last.position.epoch

        async def joined(since: Position, last_id: str) -> Position:
            return (await node.recall(NAME, since, mark="m", last_id=last_id)).top

        ids = [each.id for each in (await node.recall(NAME)).publications]
        assert await joined(Position(epoch, 2), ids[1]) == last.position
        assert await joined(Position(epoch, 9), "") == last.position, "a guest's position proves nothing"
        assert await joined(Position("another", 9), "x") == last.position
        at.command("XDEL", key("h"), "2-0")
        assert await joined(Position(epoch, 2), "trimmed") == last.position
        fresh = await joined(Position(epoch, 3), "another")
        assert fresh.epoch != epoch
        assert fresh.offset == 0
        assert data_of(await node.recall(NAME)) == []
        (following,) = await node.publish(NAME, b"4")
        assert following.position == Position(fresh.epoch, 1)
        beyond = await joined(Position(fresh.epoch, 2), "lost")
        assert beyond.epoch not in (epoch, fresh.epoch)


async def test_a_store_of_an_earlier_epoch_begins_a_later_one(any_topology: Server) -> None:
    """It was put back to where it was before: epochs sort by when they began, also when a clock was ahead."""
    async with node_on(any_topology) as node:
        (first,) = await node.publish(NAME, b"1")
        later = Position("9" * 15 + "0later", 1)
        found = await node.recall(NAME, later, mark="m", last_id="x")
        assert found.top.epoch > later.epoch[:16] > first.position.epoch
        assert found.top.offset == 0
        old = await node.recall(NAME, first.position, mark="m", last_id="x")
        assert old.top == found.top, "a node that knows an earlier one knows nothing that is lost"


async def test_whoever_joins_learns_the_id_of_the_newest_message(any_topology: Server) -> None:
    """To know it again; nothing when it is gone."""
    async with node_on(any_topology) as node:
        assert (await node.recall(NAME, mark="m")).top_id == ""
        await node.send(Publish(channel(NAME), "first", b"1"), Publish(channel(NAME), "second", b"2"))
        assert (await node.recall(NAME, mark="m")).top_id == "second"
        server_of(any_topology, NAME).command("XDEL", key("h"), "2-0")
        assert (await node.recall(NAME, mark="m")).top_id == ""


async def test_a_channel_that_was_asleep_begins_anew(any_topology: Server) -> None:
    """Nobody was told what happened meanwhile; one that is awake goes on."""
    events = channel("$nodes")
    async with node_on(any_topology) as node:
        await node.channels.awake([events], 60_000)
        (first,) = await node.publish(events.name, b"1")
        await node.channels.awake([events], 60_000)
        (second,) = await node.publish(events.name, b"2")
        assert second.position == Position(first.position.epoch, 2)
        server_of(any_topology, events.name).command("DEL", key("a", events.name))
        await node.channels.awake([events], 60_000)
        assert data_of(await node.recall(events.name)) == []
        (third,) = await node.publish(events.name, b"3")
        assert third.position.epoch > second.position.epoch
        assert third.position.offset == 1


@pytest.mark.parametrize("mark", ["", "mark"])
async def test_an_answer_has_bounds(any_topology: Server, mark: str) -> None:
    """Of messages and of bytes; one message at least. What was cut can be gone on from."""
    async with node_on(any_topology) as node:
        await node.publish(NAME, *(b"%03d" % number for number in range(1, 101)))
        assert len((await node.recall(NAME, Position("", 0), mark=mark)).publications) == 100

        found = await node.recall(NAME, Position("", 0), limit=30, mark=mark)
        assert [each.offset for each in found.publications] == list(range(1, 31))
        assert found.more
        found = await node.recall(NAME, Position("", 70), limit=30, mark=mark)
        assert (len(found.publications), found.more) == (30, False)
        found = await node.recall(NAME, Position("", 0), bytes_max=100, mark=mark)
        assert (len(found.publications), found.more) == (33, True)
        found = await node.recall(NAME, Position("", 99), bytes_max=1, mark=mark)
        assert (data_of(found), found.more) == ([b"100"], False)
        found = await node.recall(NAME, Position("", 98), bytes_max=1, mark=mark)
        assert (data_of(found), found.more) == ([b"099"], True)


async def test_streams_read_together_share_the_room(any_topology: Server) -> None:
    """Each gets one message at least, and is told that there is more."""
    large = b"x" * 1_000_000
    (first, second, third) = (name for name, _ in zip(names_in(7), range(3), strict=False))
    async with node_on(any_topology) as node:
        for name in (first, second, third):
            await node.publish(name, large, large, large)
        found = await joined_all(node, first, second, third, bytes_max=10_000_000)
        assert [(len(each.publications), each.more) for each in found] == [(3, False), (1, True), (1, True)]


async def test_people_on_other_nodes_are_counted(any_topology: Server) -> None:
    """As their nodes said; the own ones are the caller's to add, and a node that lives no more counts nothing."""
    async with node_on(any_topology) as one, node_on(any_topology, incarnation="node-2") as two:
        one.channels.others = lambda: ["node-2", "node-3"]
        await two.listen(NAME)
        assert await report(two, NAME, 3, whole=True)
        assert await report(one, NAME, 7, whole=True)
        (answer,) = await one.publish(NAME, b"1")
        assert (answer.elsewhere, answer.foreign) == (3, 0)
        found = await one.channels.audiences([channel("nobody's"), channel(NAME)])
        assert [(each.elsewhere, each.foreign) for each in found] == [(0, 0), (3, 0)]
        one.channels.others = lambda: ["node-3"]
        assert (await one.publish(NAME, b"2"))[0].elsewhere == 0
        assert (await one.channels.audiences([channel(NAME)]))[0].elsewhere == 0


async def test_a_report_that_is_forgotten_is_wanted_whole(any_topology: Server) -> None:
    """Changes say nothing without what they change. That nobody listens any more is no reason to ask again."""
    async with node_on(any_topology) as node:
        node.channels.others = lambda: ["node-1"]
        at, stored = server_of(any_topology, NAME), f"{PREFIXES[channel(NAME).partition]}w:node-1"
        assert not await report(node, NAME, 1)
        assert not await confirm(node, NAME)
        assert await report(node, NAME, 2, whole=True)
        assert await report(node, NAME, 3)
        assert await confirm(node, NAME)
        assert (await node.channels.audiences([channel(NAME)]))[0].elsewhere == 3
        ttl_ms = at.command("PTTL", stored)
        assert isinstance(ttl_ms, int)
        assert 0 < ttl_ms <= 6000
        assert await report(node, NAME, 0)
        assert await confirm(node, NAME)
        assert (await node.channels.audiences([channel(NAME)]))[0].elsewhere == 0
        at.command("DEL", stored)
        assert not await confirm(node, NAME)


async def test_active_channels_are_those_that_somebody_listens_to(any_topology: Server) -> None:
    """A node or anybody else, on any server; the router's own internal ones, and what is no text, are none."""
    async with node_on(any_topology) as node:
        assert await node.channels.active("*") == []
        await node.listen(NAME, *MANY)
        with foreigner(any_topology.members[0], to="theirs"), foreigner(any_topology.members[-1], to=b"\xff\xfe"):
            assert sorted(await node.channels.active("*")) == sorted(["theirs", NAME, *MANY])
            assert await node.channels.active("their?") == ["theirs"]
            assert await node.channels.active("\udc80") == []


async def test_everybody_hears_that_a_channel_of_the_routers_own_is_listened_to(any_topology: Server) -> None:
    """And whoever asks is told, for a while. What is no such channel wakes nobody."""
    own = [channel("$nodes"), channel("$tasks")]
    async with node_on(any_topology) as one, node_on(any_topology, incarnation="node-2") as two:
        any_topology.members[0].command("PUBLISH", "buzon:awake", "pedidos")
        await one.channels.awake(own, 300)
        for node in (one, two):
            for each in own:
                await node.has_told("woken", each.name)
            assert ("woken", "pedidos") not in node.noted.told
        assert await two.channels.are_awake([*own, channel("$buffers")]) == [True, True, False]

        async def asleep() -> bool:
            return not any(await two.channels.are_awake(own))

        await until(asleep, what="their falling asleep")


async def test_a_full_store_refuses_all_of_a_call(own_store: ValkeyServer) -> None:
    """And says nothing to anybody. Whoever comes back can, and the ears are known to hear."""
    async with node_on(own_store) as node:
        await node.listen(NAME)
        (before,) = await node.publish(NAME, b"1")
        own_store.command("CONFIG", "SET", "maxmemory", "1")
        node.forget_proofs()
        with pytest.raises(StoreAway, match="OOM"):
            await node.publish(NAME, b"2", b"3")
        with pytest.raises(StoreAway, match="OOM"):
            await node.ingest(NAME, "m", 1, b"2")
        found = await node.recall(NAME, Position("", 0), mark="m")
        assert (found.top, data_of(found)) == (before.position, [b"1"])
        await node.has_told("marked", NAME, "m")
        assert node.noted.data(NAME) == [b"1"]
        await until(node.proven, 3.0, what="a proof")
        own_store.command("CONFIG", "SET", "maxmemory", "0")
        (after,) = await node.publish(NAME, b"2")
        assert after.position.offset == 2
        assert ("deaf", NAME) not in node.noted.told


async def test_no_key_is_left_for_ever(any_topology: Server) -> None:
    """All that channels write expires."""
    async with node_on(any_topology) as node:
        everlasting = key_names(any_topology, everlasting=True)
        await node.listen(NAME)
        await node.send(Publish(channel(NAME), "once", b"1", once=True))
        await node.recall("joined", mark="m")
        await node.ingest("told", "m", 1, b"1")
        await node.recall(NAME, Position((await node.recall(NAME)).top.epoch, 9), mark="m", last_id="lost")
        await report(node, NAME, 1, whole=True)
        await node.channels.awake([channel("$nodes")], 60_000)
        await until(node.proven, what="a proof")
        assert key_names(any_topology, everlasting=True) == everlasting
        assert len(key_names(any_topology, everlasting=False)) > 8
