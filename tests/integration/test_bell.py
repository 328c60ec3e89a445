"""The bell through a real store: one node rings, another hears, and whatever else is published there is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from actors.adapters.valkey.bell import MESSAGE_BYTES_MAX, ValkeyBell, channel, encode_hints
from actors.adapters.valkey.echo import PERIOD_S, Echo
from actors.adapters.valkey.store import ValkeyStore
from actors.core.ids import derived_delivery_id
from actors.node_ports import Hint, Look
from actors.ports import DueBatch, Ready
from tests.integration.test_echo import SOON_S, echoing, hears
from tests.support.doubles import Tally
from tests.support.store import connected, made
from tests.support.until import passing, until
from tests.support.valkey import ValkeyServer

HEARER = "bell-2"
DUE = DueBatch(51, "MxlPx4dF16j3Fvb741Gj6w", 1_800_000_000_000, 300)
READY = Ready(7, derived_delivery_id(7, "x"), "a.example:443", 0)


def ears(store: ValkeyStore) -> tuple[Echo, list[Hint]]:
    """A node's echo, and what it heard."""
    echo = Echo.of(store, HEARER, asyncio.get_running_loop().time, lambda: 0.0)
    heard: list[Hint] = []

    def hear(hints: Sequence[Hint]) -> None:
        heard.extend(hints)

    echo.on_hints = hear
    return echo, heard


async def test_what_is_rung_is_heard_while_the_echo_works(any_store: ValkeyServer) -> None:
    """Each hint once and in order; one for somebody else is not."""
    async with connected(any_store) as store:
        echo, heard = ears(store)
        rings = Tally()
        bell = ValkeyBell(store.speaker.call, rings)
        async with echoing(echo):
            await hears(echo)
            for hint in (READY, DUE, Look()):
                bell.ring(HEARER, hint)
            bell.ring("somebody else", Look())
            await until(lambda: len(heard) == 3, what="all three")
            await hears(echo, PERIOD_S + 0.3)
            bell.ring(HEARER, DUE)
            await until(lambda: len(heard) == 4, what="one more")
    assert heard == [READY, DUE, Look(), DUE]
    assert rings.value == 5


async def test_the_bell_is_heard_again_after_a_subscriber_was_killed(valkey: ValkeyServer) -> None:
    """It hears with the one connection that the echo uses. What was rung meanwhile is lost, as it may be."""
    async with connected(valkey) as store:
        echo, heard = ears(store)
        bell = ValkeyBell(store.speaker.call, Tally())
        async with echoing(echo):
            await hears(echo)
            assert valkey.command("CLIENT", "KILL", "TYPE", "pubsub") == 1
            await hears(echo, SOON_S)
            bell.ring(HEARER, READY)
            await until(lambda: READY in heard, what="the hint")


async def test_whatever_else_is_published_there_is_nothing(valkey: ValkeyServer) -> None:
    """The echo goes on, and the next hint is heard."""
    async with connected(valkey) as store:
        echo, heard = ears(store)
        async with echoing(echo):
            await hears(echo)
            for rubbish in (
                b"",
                b"\x00",
                b"7",
                b"ring",
                b"\xff" * 1000,
                b"\x91" * 10_000,
                b" " * (MESSAGE_BYTES_MAX + 1),
            ):
                assert valkey.command("PUBLISH", channel(HEARER), rubbish) == 1
            assert valkey.command("PUBLISH", channel(HEARER), encode_hints([READY])[:-1]) == 1
            assert valkey.command("PUBLISH", channel(HEARER), encode_hints([DUE])) == 1
            await until(lambda: heard, what="the hint")
            await hears(echo, PERIOD_S + 0.3)
    assert heard == [DUE]


async def test_ringing_while_the_store_is_away_is_nothing(valkey: ValkeyServer) -> None:
    """No error and no wait."""
    store = made("unix:///nowhere?db=0")
    rings = Tally()
    ValkeyBell(store.speaker.call, rings).ring(HEARER, READY)
    await passing(0.01)
    assert rings.value == 0
