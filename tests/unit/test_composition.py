"""The parts of a node are joined: what one of them learns reaches those that must know."""

from __future__ import annotations

import asyncio

import pytest

from actors.attempt import InHand
from actors.core.evolution_token import Gate
from actors.node_ports import Look
from actors.ports import Entry, Owner, Ready
from router import told
from router.composition import Parts
from router.settings import load
from tests.support.doubles import make_entry


@pytest.fixture
async def parts() -> Parts:
    """A node that was made and not started: nobody listens at its store's address."""
    return Parts(load({}).settings, "redis://127.0.0.1:1/0", lambda _reason: None)


async def test_taken_partitions_are_swept_at_once(parts: Parts) -> None:
    """There may be work in them that nobody here knows of."""
    assert not parts.sweeper._woken.is_set()
    parts.ownership.on_taken()
    assert parts.sweeper._woken.is_set()


async def test_lost_partitions_lose_their_actors(parts: Parts) -> None:
    """The next owner's are the only ones."""
    entry = make_entry("k")
    parts.buffers._buffer(entry.terms.kid, entry.partition)
    parts.ownership.on_lost([(entry.partition + 1) % 256])
    assert len(parts.buffers) == 1
    parts.ownership.on_lost([entry.partition])
    await asyncio.sleep(0)
    assert len(parts.buffers) == 0


async def test_another_run_of_the_store_makes_it_look(parts: Parts) -> None:
    """And so does a bell that says so."""
    parts.store.on_changed()
    assert parts.ownership.look_wanted.is_set()
    parts.ownership.look_wanted.clear()
    parts.echo.on_hints([Look()])
    assert parts.ownership.look_wanted.is_set()


@pytest.mark.parametrize("by", ["itself", "the owner"])
async def test_what_was_stored_is_brought_back(parts: Parts, by: str) -> None:
    """Whoever stored it for this node's caller; under the time of its receipt, and a new id for a batch it closes."""
    entry = make_entry("k")
    (parts.buffers if by == "itself" else parts.forwarding.appends).on_stored([entry], [17])
    [again] = parts.store.unreplayed()
    assert isinstance(again, Entry)
    assert (again.message_id, again.received_us) == (entry.message_id, 17)
    assert again.batch_id != entry.batch_id
    assert again.batch_id.startswith(f"dlv_{entry.partition:02x}")


async def test_what_was_brought_back_is_told(parts: Parts) -> None:
    """In the cluster's log, with the next beat."""
    parts.store.on_replayed(7, 2)
    event = parts.membership._events[-1]
    assert (event.what, event.count) == ("store restarted", 7)


async def test_a_move_waits_for_what_is_in_hand(parts: Parts) -> None:
    """Of attempts; whatever else a node does with a partition may be cut off."""
    assert set(parts.handover.busy()) == set()
    parts.attempts.in_hand["dlv_07x"] = InHand(7, 1, 1)
    assert set(parts.handover.busy()) == {7}


async def test_a_node_alone_has_no_others(parts: Parts) -> None:
    """Whoever brings messages back alone waits for nobody."""
    assert not parts.store.others()
    view = parts.membership._view
    parts.membership._view = type(view)(alive=frozenset("ab"))
    assert parts.store.others()


async def test_closed_batches_are_offered_and_foreign_messages_rung(parts: Parts) -> None:
    """The first to this node's deliveries, the second to their owner."""
    offered: list[Ready] = []
    ready = Ready(7, "dlv_07x", "a.example", 0)
    assert parts.buffers.on_closed(ready) is False, "not held, so there is nothing to start"
    parts.ownership._epochs[7] = 5
    parts.ownership._owners[7] = Owner(5, parts.ownership.node)
    setattr(parts.deliveries, "_run", lambda _host, started, _probe: offered.append(started))  # noqa: B010  nothing is sent
    parts.buffers.on_closed(ready)
    assert offered == [ready]
    assert parts.buffers.on_foreign == parts.forwarding.stored_for_other


async def test_a_node_that_was_replaced_ends() -> None:
    """Its process is told why, in one line."""
    fatal: list[str] = []
    parts = Parts(load({}).settings, "redis://127.0.0.1:1/0", fatal.append)
    parts.membership.on_replaced("another process uses the name")
    assert fatal == ["another process uses the name"]


@pytest.mark.parametrize(
    ("environment", "gate"),
    [
        ({}, Gate(None, open_without=True)),
        ({"SECRET_KEY": "s"}, Gate(None, open_without=False)),
        ({"EVOLUTION_WEBHOOK_TOKEN": "t"}, Gate("t", open_without=True)),
        ({"EVOLUTION_WEBHOOK_TOKEN": "t", "SECRET_KEY": "s"}, Gate("t", open_without=False)),
    ],
)
def test_who_may_call_evolutions_webhook(environment: dict[str, str], gate: Gate) -> None:
    """Whoever shows the token; without one everybody, unless the node is guarded."""
    assert told.gate_of(load(environment).settings) == gate
