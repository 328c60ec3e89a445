"""Routes, names and marks of inbound messages in the real store: on one server and on many."""

from __future__ import annotations

import msgspec
import pytest

from actors.adapters.valkey.inbound_records import NAMES_KEPT_S, TAKEN_KEPT_S
from actors.core.inbound_route import InboundRoute
from tests.support.store import Hand, key_names, raw_client

PHONE, LID = "5215512345678@s.whatsapp.net", "103899771998284@lid"
HOSTILE = ["}{buzon:cfg}", "a\r\nb", "\0", "ñ😀", "*:x", " "]


def route(**changes: object) -> InboundRoute:
    """A route of some kind."""
    return msgspec.convert({"webhook": {"url": "https://x.example"}, "buffer": {}, **changes}, InboundRoute)


async def test_an_instance_has_its_own_route_or_the_one_of_all(hand: Hand) -> None:
    """As soon as it is put, and no longer than it is there."""
    records = hand.store.inbound
    own, others = route(token="own", reply=True, buffer={"format": "n8n"}), route(token="others")
    assert await records.route_of("ventas") is None

    await records.put("*", others)
    assert (await records.route_of("ventas"), await records.get("ventas")) == (others, None)
    await records.put("ventas", own)
    assert (await records.route_of("ventas"), await records.get("ventas")) == (own, own)
    assert await records.route_of("soporte") == others
    await records.put("ventas", others)
    assert await records.get("ventas") == others

    assert [await records.delete("ventas") for _ in range(2)] == [True, False]
    assert await records.route_of("ventas") == others
    assert await records.delete("*")
    assert await records.route_of("ventas") is None


async def test_routes_are_listed_by_name(hand: Hand) -> None:
    """Page by page, whatever they are called."""
    records = hand.store.inbound
    names = sorted([*HOSTILE, *(f"i{number:02}" for number in range(5))])
    for name in reversed(names):
        await records.put(name, route(token=f"of-{names.index(name)}"))
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page, after = await records.list_routes(after, 4)
        assert all(of.token == f"of-{names.index(name)}" for name, of in page)
        found += [name for name, _ in page]
    assert found == names
    assert await records.list_routes("\U0010ffff", 4) == ((), None)


async def test_both_names_of_a_contact_lead_to_each_other(hand: Hand) -> None:
    """Within an instance; the newest pair counts."""
    records = hand.store.inbound
    await records.join("ventas", PHONE, LID)
    assert await records.other_name("ventas", LID) == PHONE
    assert await records.other_name("ventas", PHONE) == LID
    assert await records.other_name("soporte", LID) is None
    await records.join("ventas", "1@s.whatsapp.net", LID)
    assert await records.other_name("ventas", LID) == "1@s.whatsapp.net"


async def test_a_message_is_taken_once_an_instance(hand: Hand) -> None:
    """Two that read the same when put together are two."""
    records = hand.store.inbound
    assert not await records.is_taken("ab", "c")
    await records.take("ab", "c")
    await records.take("ab", "c")
    assert await records.is_taken("ab", "c")
    assert not await records.is_taken("a", "bc")
    assert not await records.is_taken("abc", "")


async def test_a_key_is_active_while_anything_of_it_waits(hand: Hand) -> None:
    """An open batch, a closed one, one that is tried again; neither a delivered one nor another key's."""
    records = hand.store.inbound
    key = f"ventas:{LID}"
    await hand.append("another", "m0")
    assert not await records.is_active(key)
    await hand.append(key, "m1")
    assert await records.is_active(key)
    delivery = await hand.frozen(key, "m2")
    assert await records.is_active(key)
    await hand.ended(delivery, "retrying")
    assert await records.is_active(key)
    await hand.make_due(delivery)
    await hand.ended(delivery, "delivered")
    assert not await records.is_active(key)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
async def test_nothing_that_was_written_becomes_part_of_a_key_name(hand: Hand, name: str) -> None:
    """Whatever instances, contacts and messages are called."""
    records = hand.store.inbound
    await records.put(name, route())
    await records.join(name, name + "1", name + "2")
    await records.take(name, name)
    assert await records.other_name(name, name + "2") == name + "1"

    kinds = {key.rpartition(":")[0] for key in key_names(hand.server)}
    assert kinds <= {"buzon", "buzon:alias", "buzon:wa", "buzon:{buzon:cfg}"}
    assert {len(key.rpartition(":")[2]) for key in key_names(hand.server, everlasting=False)} == {32}


async def test_all_but_routes_is_forgotten_in_its_time(hand: Hand) -> None:
    """Names after a month, marks after a day; used again they stay."""
    records = hand.store.inbound
    await records.put("ventas", route())
    await records.join("ventas", PHONE, LID)
    await records.take("ventas", "3EB0")
    ttls: dict[str, int] = {}
    for member in hand.server.members:
        with raw_client(member) as client:
            ttls |= {key.decode(): client.ttl(key) for key in client.scan_iter("buzon:[aw]*")}
    assert sorted(key.split(":")[1] for key in ttls) == ["alias", "alias", "wa"]
    for key, ttl in ttls.items():
        kept = NAMES_KEPT_S if "alias" in key else TAKEN_KEPT_S
        assert kept - 5 <= ttl <= kept
    assert {key for key in key_names(hand.server, everlasting=True) if "inbound" in key} == {
        "buzon:{buzon:cfg}:inbound"
    }
