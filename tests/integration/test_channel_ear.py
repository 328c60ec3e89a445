"""The ears: what is missed is said, what is listened to is listened to again, whatever becomes of the server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from actors.adapters.valkey.channel_probe import LATE_S, PERIOD_S
from actors.adapters.valkey.channel_server_ear import SUBSCRIPTIONS_MAX
from actors.adapters.valkey.keys import OWNERS, side_channel
from actors.adapters.valkey.lane import RECONNECT_S_MAX
from tests.support.channel_store import ChannelNode, Server, channel, node_on, server_of
from tests.support.proxy import CHUNK_BYTES, Proxy
from tests.support.sentinels import SERVICE, Sentinels
from tests.support.store import made, running, when_back
from tests.support.until import passing, steady, until
from tests.support.valkey import ValkeyServer
from tests.support.valkey_cluster import ValkeyCluster

NAME = "pedidos"
SOON_S = RECONNECT_S_MAX + 1.0
FOLLOWED_S = 20.0
INTERRUPTED = [("listening",), ("deaf",), ("listening",)]


def ear_ids(server: ValkeyServer) -> list[str]:
    """The connections that subscribe to something, by the server's numbers."""
    lines = str(server.command("CLIENT", "LIST", "TYPE", "pubsub")).splitlines()
    return [line.split()[0].removeprefix("id=") for line in lines if line]


def subscribers(server: ValkeyServer, name: str) -> list[int]:
    """How many subscribe to the plain channel and to the one beside it."""
    of = channel(name)
    counts = server.command("PUBSUB", "NUMSUB", name, side_channel(of.partition, of.kid))
    assert isinstance(counts, list)
    return counts[1::2]


async def again(node: ChannelNode, name: str = NAME) -> None:
    """Wait until a channel is listened to once more."""
    await until(lambda: node.noted.of(name, "listening", "deaf") == INTERRUPTED, SOON_S, what=f"{node.noted.told}")


async def test_many_channels_are_listened_to_at_once(any_topology: Server) -> None:
    """Each where its stream is, by commands of many names; what is published on each is heard."""
    names = [f"channel-{number}" for number in range(2000)]
    async with node_on(any_topology) as node:
        await node.listen(*names)
        for name in names[::200]:
            await node.publish(name, name.encode())
            await node.has_heard(name, name.encode())
            for server in any_topology.members:
                assert subscribers(server, name) == ([1, 1] if server is server_of(any_topology, name) else [0, 0])
        for server in any_topology.members:
            stats = str(server.command("INFO", "commandstats"))
            assert "cmdstat_subscribe" in stats
        node.noted.told.clear()
        for name in names:
            node.channels.ear.leave(channel(name))
        await until(lambda: not any(sum(subscribers(server_of(any_topology, each), each)) for each in names[::100]))
        assert node.noted.told == []


async def test_names_go_out_together(any_store: ValkeyServer) -> None:
    """Some hundred in a command, however many are asked for in one turn of the loop."""
    async with node_on(any_store) as node:
        any_store.command("CONFIG", "RESETSTAT")
        await node.listen(*(f"channel-{number}" for number in range(2 * SUBSCRIPTIONS_MAX + 1)))
        (line,) = (line for line in any_store.command("INFO", "commandstats").items() if line[0] == "cmdstat_subscribe")  # type: ignore[attr-defined]  # RESP3's map
        assert line[1]["calls"] == 3


async def test_who_leaves_and_comes_back_is_told_anew(any_store: ValkeyServer) -> None:
    """Also within one turn of the loop; who only leaves is told nothing."""
    async with node_on(any_store) as node:
        await node.listen(NAME)
        node.channels.ear.leave(channel(NAME))
        await node.publish(NAME, b"1")
        await until(lambda: subscribers(any_store, NAME) == [0, 0], what="its leaving")
        for _ in range(2):
            node.channels.ear.listen(channel(NAME))
            node.channels.ear.leave(channel(NAME))
        node.channels.ear.listen(channel(NAME))
        await until(lambda: len(node.noted.of(NAME)) == 2, what="its coming back")
        await node.publish(NAME, b"2")
        await node.has_heard(NAME, b"2")
        node.channels.ear.leave(channel(NAME))
        node.channels.ear.listen(channel(NAME))
        await until(lambda: len(node.noted.of(NAME, "listening")) == 3, what="its coming back at once")
        await node.publish(NAME, b"3")
        await node.has_heard(NAME, b"3")
        assert [kind for kind, *_ in node.noted.of(NAME)] == ["listening"] * 2 + ["arrived", "listening", "arrived"]
        node.channels.ear.leave(channel("never listened to"))


async def test_an_ear_that_is_killed_listens_again(any_store: ValkeyServer) -> None:
    """To everything; between deaf and listening it knows that it may miss something."""
    async with node_on(any_store) as node:
        await node.listen(NAME, "other")
        (ear,) = ear_ids(any_store)
        any_store.command("CLIENT", "KILL", "ID", ear)
        await again(node)
        await again(node, "other")
        assert node.noted.times_opened == 2
        await node.publish(NAME, b"1")
        await node.has_heard(NAME, b"1")


async def test_what_is_listened_to_while_the_server_is_away_is_listened_to_later(own_store: ValkeyServer) -> None:
    """Nothing raises; what was left meanwhile is not listened to."""
    async with node_on(own_store) as node:
        await node.listen(NAME, "left")
        await asyncio.to_thread(own_store.kill9)
        await until(lambda: ("deaf", NAME) in node.noted.told, what="the end")
        node.channels.ear.leave(channel("left"))
        node.channels.ear.listen(channel("new"))
        await asyncio.to_thread(own_store.start)
        await node.hears(NAME, "new", within_s=SOON_S)
        (published,) = await when_back(lambda: node.publish("new", b"1"))
        await node.has_heard("new", b"1")
        assert published.position.offset == 1
        assert node.noted.of("left") == [("listening",), ("deaf",)]
        assert subscribers(own_store, "left") == [0, 0]


async def test_a_restarted_server_is_listened_to_again(own_store: ValkeyServer) -> None:
    """The stream goes on in its epoch when the server has lost nothing."""
    async with node_on(own_store) as node:
        await node.listen(NAME)
        (before,) = await node.publish(NAME, b"1")
        await asyncio.to_thread(own_store.restart)
        await again(node)
        (after,) = await when_back(lambda: node.publish(NAME, b"2"))
        await node.has_heard(NAME, b"2")
        assert (after.position.epoch, after.position.offset) == (before.position.epoch, 2)


async def test_an_ear_that_listens_to_another_run_is_left(any_store: ValkeyServer) -> None:
    """Once the hot lane has found a server that is not the one the ear listens to."""
    async with node_on(any_store) as node:
        await node.listen(NAME)
        shard = node.store._topology.home
        shard._heard_run = "another run"
        shard.hot.drop("the test")
        await again(node)


async def test_an_ear_on_a_replica_is_left(own_store: ValkeyServer) -> None:
    """It would hear late, or nothing."""
    async with node_on(own_store) as node:
        await node.listen(NAME)
        own_store.command("REPLICAOF", "127.0.0.1", 1)
        node.store.hot.drop("the test")
        await until(lambda: ("deaf", NAME) in node.noted.told, SOON_S, what="its end")
        own_store.command("REPLICAOF", "NO", "ONE")
        await again(node)


async def test_a_frozen_server_is_known_to_be_silent(own_store: ValkeyServer) -> None:
    """Its connections stay open: that nothing is heard ends the ear, and readiness grows old."""
    async with node_on(own_store) as node:
        await node.listen(NAME)
        await until(node.proven, what="a proof")
        own_store.freeze()
        await until(lambda: ("deaf", NAME) in node.noted.told, LATE_S + 3 * PERIOD_S, what="the ear's end")
        assert node.channels.age_s(node.now()) > LATE_S
        own_store.thaw()
        await node.hears(NAME)
        await until(lambda: node.channels.age_s(node.now()) < PERIOD_S, what="a proof")


class HalfOpen(Proxy):
    """A proxy that, while `deaf`, loses what is published on its way to whom it should reach, and nothing else."""

    deaf = False

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK_BYTES):
            if not (self.deaf and b"message" in data[:20]):
                self._pass_on(writer, data)
        writer.close()


async def test_an_ear_that_hears_nothing_is_left(any_store: ValkeyServer, tmp_path: Path) -> None:
    """Though its connection answers: only what is published proves anything."""
    async with HalfOpen(any_store, tmp_path / "p") as proxy, node_on(any_store, url=proxy.url) as node:
        await node.listen(NAME)
        await until(node.proven, what="a proof")
        await steady(lambda: node.channels.age_s(node.now()) < 2 * PERIOD_S, 2 * PERIOD_S, what="the proof")
        proxy.deaf = True
        await until(lambda: ("deaf", NAME) in node.noted.told, LATE_S + 3 * PERIOD_S, what="the ear's end")
        proxy.deaf = False
        await again(node)


async def test_an_ear_that_may_not_subscribe_disturbs_nobody(own_store: ValkeyServer) -> None:
    """It asks about twice a second; when it is allowed, it listens."""
    async with node_on(own_store) as node:
        await node.listen(NAME)
        own_store.command("ACL", "SETUSER", "default", "-subscribe")
        own_store.command("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: ("deaf", NAME) in node.noted.told, what="its end")
        before = own_store.command("INFO", "stats")
        await passing(1.5)
        after = own_store.command("INFO", "stats")
        assert isinstance(before, dict)
        assert isinstance(after, dict)
        assert after["total_connections_received"] - before["total_connections_received"] < 8
        assert node.store.connected
        own_store.command("ACL", "SETUSER", "default", "+subscribe")
        await again(node)


async def test_garbage_on_the_probes_channels_proves_nothing_and_does_no_harm(any_store: ValkeyServer) -> None:
    """Anybody may publish there."""
    async with node_on(any_store) as node:
        await until(node.proven, what="a proof")
        (probe,) = node.channels._probe._probes.values()
        (name,) = (each for each in probe._shard.ear._wanted if "probe" in each)
        node.forget_proofs()
        heard_at = probe.heard_at
        for word in ("0", "1", "999999", "x", "9" * 5000, "٣"):
            any_store.command("PUBLISH", side_channel(0, probe._kid), f"p|e|1|{len(word.encode())}|id")
            any_store.command("PUBLISH", name, word)
        await node.listen(NAME)
        assert probe.heard_at == heard_at or node.proven()
        await until(node.proven, what="a proof of its own")


async def test_a_node_without_channels_has_no_ear(any_store: ValkeyServer) -> None:
    """Nobody is told, so nothing connects."""
    store = made(any_store.unix_url)
    async with running(store):
        await until(lambda: store.connected, what="the store")
        await steady(lambda: not ear_ids(any_store), 0.3, what="no ear")


async def test_a_channel_whose_slot_moves_is_listened_to_there(own_cluster: ValkeyCluster) -> None:
    """It is deaf, then listening, and hears what is published where the stream is now."""
    partition = channel(NAME).partition
    tag = OWNERS[partition]
    at = own_cluster.of(tag)
    to = next(member for member in own_cluster.members if member is not at)
    async with node_on(own_cluster) as node:
        await node.listen(NAME)
        (before,) = await node.publish(NAME, b"1")
        await node.has_heard(NAME, b"1")
        await asyncio.to_thread(own_cluster.move, tag, to)

        async def there() -> bool:
            return await asyncio.to_thread(subscribers, to, NAME) == [1, 1]

        await until(there, FOLLOWED_S, what="its listening there")
        await node.hears(NAME)
        (after,) = await when_back(lambda: node.publish(NAME, b"2"))
        await node.has_heard(NAME, b"2")
        assert (after.position.epoch, after.position.offset) == (before.position.epoch, 2)
        assert node.noted.of(NAME, "listening", "deaf")[:2] == INTERRUPTED[:2]
        assert subscribers(at, NAME) == [0, 0]
        assert node.noted.of(NAME, "foreign") == []
        node.forget_proofs()
        await until(node.proven, what="proofs of all servers")


async def test_a_probe_whose_slot_moves_goes_on_in_another(own_cluster: ValkeyCluster) -> None:
    """And nothing ends by itself meanwhile: its server says that it has moved before anybody knows."""
    async with node_on(own_cluster) as node:
        await until(node.proven, what="proofs of all servers")
        at, to = own_cluster.members[:2]
        (probe,) = (
            each for each in node.channels._probe._probes.values() if each._shard.hot.peer == ("127.0.0.1", at.port)
        )
        first = min(probe._shard.partitions)
        await asyncio.to_thread(own_cluster.move, OWNERS[first], to)
        await probe._say(first)
        await until(lambda: probe._partition not in (None, first), FOLLOWED_S, what="another partition")
        node.forget_proofs()
        await until(node.proven, what="proofs of all servers")


async def test_a_probe_that_is_refused_proves_nothing(own_store: ValkeyServer) -> None:
    """Nor does it end: readiness says how long it is since the last one."""
    async with node_on(own_store) as node:
        await until(node.proven, what="a proof")
        (probe,) = node.channels._probe._probes.values()
        own_store.command("SET", f"buzon:{{00}}:c:{probe._kid}", "no hash")
        node.forget_proofs()
        await steady(lambda: not node.proven(), PERIOD_S + 0.5, what="no proof")
        own_store.command("DEL", f"buzon:{{00}}:c:{probe._kid}")
        await until(node.proven, what="a proof")


async def test_the_ears_follow_the_master(sentinels: Sentinels) -> None:
    """A planned failover: the channels are listened to at the new one, and at no other."""
    async with node_on(None, url=sentinels.url) as node:
        await node.listen(NAME)
        await node.publish(NAME, b"1")
        old = await asyncio.to_thread(sentinels.primary)
        await asyncio.to_thread(sentinels.ask, "failover", SERVICE)

        async def followed() -> bool:
            new = await asyncio.to_thread(sentinels.primary)
            return new is not old and subscribers(new, NAME) == [1, 1] and subscribers(old, NAME) == [0, 0]

        await until(followed, FOLLOWED_S, every_s=0.05, what="the new master")
        await node.hears(NAME)
        (after,) = await when_back(lambda: node.publish(NAME, b"2"))
        await node.has_heard(NAME, b"2")
        assert after.position.offset == 2


async def test_a_reader_that_is_cut_off_at_the_servers_limit_comes_back(own_valkey: ValkeyServer) -> None:
    """It reads nothing while its loop stands still; the server gives it up, and it learns that it missed something."""
    own_valkey.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 256kb 256kb 60")
    async with node_on(own_valkey) as node:
        await node.listen(NAME)
        with own_valkey.client() as client:
            pipeline = client.pipeline(transaction=False)
            for _ in range(10_000):
                pipeline.publish(NAME, "x" * 100)
            pipeline.execute()
        await again(node)
        await node.publish(NAME, b"1")
        await node.has_heard(NAME, b"1")
