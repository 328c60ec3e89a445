"""Ear: listens to channels, each at the server that keeps its stream.

There alone everything is heard in the order in which it was published, whoever published it. Knows which channel is
listened to where, and follows what moves. Never talks to a server itself, never raises.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from actors.adapters.valkey.channel_hearing import Hearing
from actors.adapters.valkey.channel_server_ear import EarHooks, ServerEar, Subscription
from actors.adapters.valkey.keys import side_channel
from actors.channel_ports import ChannelName


class _Listened(Struct, frozen=True):
    channel: ChannelName
    at: ServerEar


class ValkeyEar:
    """The ears of all servers as one. `ear_of` gives that of the server which has a partition."""

    def __init__(self, ear_of: Callable[[int], ServerEar]) -> None:
        self._ear_of = ear_of
        self._listened: dict[str, _Listened] = {}
        self.hooks = EarHooks()

    def listen(self, channel: ChannelName) -> None:
        """Listen to a channel; while its server is away this waits."""
        at = self._ear_of(channel.partition)
        self._listened[channel.name] = _Listened(channel, at)
        hearing = Hearing(channel.name, self.hooks.hears)
        side = side_channel(channel.partition, channel.kid)
        at.listen(Subscription(channel.name, {channel.name.encode(): hearing.plain, side.encode(): hearing.side}))

    def leave(self, channel: ChannelName) -> None:
        """Listen to it no more."""
        listened = self._listened.pop(channel.name, None)
        if listened is not None:
            listened.at.leave(channel.name)

    def rearranged(self) -> None:
        """Servers have come, gone, or have other partitions now: listen where the streams are."""
        moved = [each for each in self._listened.values() if self._ear_of(each.channel.partition) is not each.at]
        deaf = [each.channel.name for each in moved if each.at.leave(each.channel.name)]
        if deaf:
            self.hooks.hears.deaf(deaf)
        for each in moved:
            self.listen(each.channel)
