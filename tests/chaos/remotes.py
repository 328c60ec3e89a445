"""Remotes: the helper processes as the harness sees them: proxies, sink, driver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tests.chaos.control import Remote
from tests.chaos.load import Begin
from tests.chaos.toxics import NONE, Toxic


class Toxics:
    """The proxies' process."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def add(self, name: str, port: int, host: str = "127.0.0.1") -> int:
        """A new proxy in front of a port; gives the port to use instead."""
        made: int = await self._remote.ask("add", name=name, host=host, port=port)
        return made

    async def set(self, name: str, up: Toxic = NONE, down: Toxic = NONE) -> None:
        """Do this to the bytes from the client (up) and to the client (down), from now on."""
        await self._remote.ask("set", name=name, up=msgspec.to_builtins(up), down=msgspec.to_builtins(down))

    async def heal(self, name: str) -> None:
        """Hand on bytes as they come; those held back go on now."""
        await self.set(name)

    async def replace(self, name: str, replacements: Mapping[str, str]) -> None:
        """Replace words by others of the same length in what the server says."""
        await self._remote.ask("replace", name=name, replacements=replacements)

    async def refuse(self, name: str) -> None:
        """Refuse connections, reset those that are open."""
        await self._remote.ask("refuse", name=name)

    async def listen(self, name: str) -> None:
        """Take connections again."""
        await self._remote.ask("listen", name=name)

    async def cut(self, name: str, share: float = 1.0) -> int:
        """Reset a share of the open connections; gives how many."""
        hit: int = await self._remote.ask("cut", name=name, share=share)
        return hit

    async def hold(self, port: int) -> int:
        """Break the one connection that its server sees under this port, until its proxy is healed; gives how many
        that were."""
        hit: int = await self._remote.ask("hold", port=port)
        return hit

    async def accepted(self, name: str, since: float) -> list[float]:
        """When connections came in to a proxy, since then, whether or not the server took them."""
        found: list[float] = await self._remote.ask("accepted", name=name, since=since)
        return found

    async def heal_all(self) -> None:
        """All proxies as new."""
        await self._remote.ask("heal")

    async def clients_of_the_store(self) -> dict[int, str]:
        """The port by which the store sees a connection, and the proxy it came through."""
        ports: dict[str, str] = await self._remote.ask("ports")
        return {int(port): name for port, name in ports.items()}


class Webhook:
    """The sink's process."""

    def __init__(self, remote: Remote, ports: Sequence[int]) -> None:
        self._remote = remote
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]

    async def begin(self, log: Path) -> None:
        """A new row."""
        await self._remote.ask("begin", log=str(log))

    async def pids(self, pids: Mapping[int, str]) -> None:
        """Which processes are which nodes."""
        await self._remote.ask("pids", pids={str(pid): name for pid, name in pids.items()})

    async def on(self, path: str, *behave: str, sink: int = 0) -> None:
        """Answer `path` as the paths `behave` are answered, one a request, the last one for ever: `"/delay/0.1"`."""
        await self._remote.ask("on", path=path, behave=behave, sink=sink)

    async def reset_connections(self, count: int, sink: int = 0) -> None:
        """Answer the next connections with RST."""
        await self._remote.ask("reset_connections", count=count, sink=sink)

    async def seen(self) -> int:
        """How many different messages have come in this row."""
        count: int = await self._remote.ask("seen")
        return count

    async def first(self, partitions: Sequence[int], but: Sequence[str], since: float) -> float:
        """When, after `since`, the first batch of one of these partitions came from a node that is none of `but`; 0
        when that has not happened."""
        at: float = await self._remote.ask("first", partitions=partitions, but=but, since=since)
        return at


class Driver:
    """The load's process."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    async def begin(self, begin: Begin) -> None:
        """Start a load."""
        await self._remote.ask("begin", **msgspec.to_builtins(begin))

    async def nodes(self, nodes: Mapping[str, int]) -> None:
        """Spread messages over these nodes (names and ports) from now on."""
        await self._remote.ask("nodes", nodes=nodes)

    async def avoid(self, *names: str) -> None:
        """Send nothing to these nodes, until told otherwise."""
        await self._remote.ask("avoid", names=names)

    async def acknowledged(self) -> int:
        """How many messages were acknowledged so far."""
        counts: dict[str, int] = await self._remote.ask("counts")
        return counts["acknowledged"]

    async def stop(self, grace_s: float) -> int:
        """Let every client finish the message it has in hand; gives how many were never acknowledged."""
        given_up: int = await self._remote.ask("stop", within_s=grace_s * 2, grace_s=grace_s)
        return given_up
