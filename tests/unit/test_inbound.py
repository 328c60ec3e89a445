"""What comes of a webhook call: a stored message, a receipt, a sign of life, or nothing; and what comes of it twice."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest

from actors.core import evolution_events
from actors.core.evolution_events import Malformed
from actors.core.evolution_token import Gate, Presented
from actors.core.policy import Conversation, Policy
from actors.inbound import ECHO_S, WAITS_MAX, NotAdmitted, Noted
from actors.ports import Overloaded, StoreAway
from tests.support.doubles import Stage, value
from tests.support.inbound_rig import AT_S, INSTANCE, LID, PHONE, URL, InboundRig, event, says
from tests.support.until import passing
from tests.support.virtual_time import WALL_AT_START_S, in_virtual_time, ticks


def counts(rig: InboundRig) -> dict[str, float]:
    """What was counted."""
    return {name: value(counter) for name, counter in rig.meters.inbound_events.items() if value(counter)}


@in_virtual_time
async def test_a_text_is_stored_with_all_its_batch_needs() -> None:
    """Key, id, dedupe, payload, policy, host; and 200 says so only afterwards."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route(buffer={"wait_time": 8, "max_size": 7}, reply=True)
        noted = await rig.call(says("hola"))
        (entry,) = rig.entries
        assert noted == Noted("stored", entry.message_id)
        assert entry.terms.key == f"{INSTANCE}:{PHONE}"
        assert entry.message_id.startswith(f"wa_{AT_S:011d}_")
        assert isinstance(entry.dedupe, bytes)
        assert (entry.terms.wait_ms, entry.terms.max_wait_ms, entry.terms.max_size, entry.terms.host) == (
            8_000,
            0,
            7,
            "https://n8n.example:443",
        )
        policy = msgspec.json.decode(entry.terms.policy, type=Policy)
        assert policy.conversation == Conversation(INSTANCE, PHONE, "")
        assert (policy.webhook.url, policy.buffer.key) == (URL, entry.terms.key)
        payload = json.loads(entry.payload)
        assert (payload["data"]["message"]["conversation"], "apikey" in payload) == ("hola", False)
        assert rig.records.taken == {(INSTANCE, "3EB0A1")}
        assert (rig.known.heard, counts(rig)) == ([INSTANCE], {"stored": 1})


@in_virtual_time
async def test_n8n_gets_its_own_shape() -> None:
    """Six fields, the session under the conversation's name."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route(buffer={"format": "n8n"})
        await rig.call(says("hola", remoteJid=LID, remoteJidAlt=PHONE))
        assert json.loads(rig.entries[0].payload) == {
            "chatInput": "hola",
            "sessionId": f"{INSTANCE}:{PHONE}",
            "remoteJid": PHONE,
            "pushName": "Ana",
            "keyId": "3EB0A1",
            "instanceName": INSTANCE,
        }


@in_virtual_time
async def test_a_text_without_a_time_was_sent_when_it_came() -> None:
    """And is the same message when it comes again with one."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()
        await rig.call(says(at_s=None))
        rig.records.taken.clear()
        assert await rig.happened(says()) == "duplicate"
        (entry,) = rig.entries
        assert entry.message_id.startswith(f"wa_{int(WALL_AT_START_S):011d}_")


@in_virtual_time
async def test_the_same_message_again_is_stored_once() -> None:
    """By its instance and id, whatever else differs; another instance's is another message."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route("*")
        assert await rig.happened(says("hola")) == "stored"
        assert await rig.happened(says("hola, edited")) == "duplicate"
        assert await rig.happened(says(remoteJid=LID)) == "duplicate"
        assert await rig.happened(says(key_id="3EB0A2")) == "stored"
        other = json.loads(says())
        assert await rig.happened(json.dumps(other | {"instance": "soporte"}).encode()) == "stored"
        assert counts(rig) == {"stored": 3, "duplicate": 2}


@in_virtual_time
async def test_copies_that_come_at_once_are_stored_once() -> None:
    """Also when they name the contact differently, which makes them different for the store."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()
        rig.records.before = lambda _name: passing(0.01)
        names: list[dict[str, Any]] = [
            {"remoteJid": LID},
            {"remoteJid": LID, "remoteJidAlt": PHONE},
            {"remoteJid": PHONE, "senderLid": LID},
        ]
        happened = await asyncio.gather(*(rig.happened(says("hola", **each)) for each in names))
        assert sorted(happened) == ["duplicate", "duplicate", "stored"]


@in_virtual_time
@pytest.mark.parametrize("failing", ["append", "take"])
async def test_what_could_not_be_stored_is_taken_the_next_time(failing: str) -> None:
    """The mark comes after the message: nothing is lost, and nothing is twice."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()

        async def away(name: str) -> None:
            if failing == "append" or name == "take":
                raise StoreAway("away")

        if failing == "append":
            rig.before_append = away
        else:
            rig.records.before = away
        with pytest.raises(StoreAway):
            await rig.call(says())
        assert rig.records.taken == set()
        healthy = InboundRig(stage)
        rig.before_append, rig.records.before = healthy.before_append, healthy.records.before
        assert await rig.happened(says()) == ("stored" if failing == "append" else "duplicate")
        assert len(rig.entries) == 1


@in_virtual_time
async def test_whoever_waits_too_long_for_a_turn_is_told_to_come_back() -> None:
    """One contact that writes faster than the store takes it does not pile up here."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()
        rig.before_append = lambda _key: passing(0.9)
        calls = [asyncio.ensure_future(rig.call(says(key_id=f"k{number}"))) for number in range(4)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in outcomes] == [Noted, Noted, TimeoutError, TimeoutError]
        assert await rig.happened(says(key_id="k3")) == "stored"


@in_virtual_time
async def test_without_a_route_nothing_is_stored() -> None:
    """But the instance is heard, and its receipts are taken."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        assert await rig.happened(says()) == "no route"
        assert await rig.happened(event("messages.update", {"keyId": "3EB0A1", "status": "READ"})) == "receipt"
        assert (rig.entries, rig.records.taken) == ([], set())
        assert rig.known.receipts == [(INSTANCE, "3EB0A1", "read")]
        assert rig.known.heard == [INSTANCE, INSTANCE]


@in_virtual_time
async def test_what_those_who_send_are_told() -> None:
    """Version 1 and 2, both spellings of an event's name, also from the URL alone."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        sent = {"key": {"remoteJid": PHONE, "fromMe": True, "id": "3EB0S1"}, "status": "PENDING"}
        assert await rig.happened(event("send.message", sent)) == "sent"
        assert await rig.happened(event("MESSAGES_UPDATE", {"id": "3EB0S1", "status": "DELIVERY_ACK"})) == "receipt"
        closed = {"instance": INSTANCE, "state": "close", "statusReason": 401}
        assert await rig.happened(event("connection.update", closed)) == "connection"
        nameless = json.dumps({"instance": INSTANCE, "data": {"state": "open"}}).encode()
        assert await rig.call(nameless, "connection-update") == Noted("connection")
        assert rig.known.ours == {(INSTANCE, "3EB0S1")}
        assert rig.known.receipts == [(INSTANCE, "3EB0S1", "delivered")]
        assert rig.known.connections == [(INSTANCE, "close", 401), (INSTANCE, "open", None)]


@in_virtual_time
async def test_what_means_nothing_here_is_counted() -> None:
    """By what it was, and answered well: Evolution never sends again what was refused."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()
        for body in (
            event("presence.update", {}),
            event("made.up", []),
            event("messages.upsert", {"key": {"remoteJid": "status@broadcast", "id": "1"}}),
            event("messages.upsert", {"key": {"remoteJid": PHONE}}),
            event("messages.upsert", {"key": {"remoteJid": PHONE, "id": "1"}, "message": {"audioMessage": {}}}),
            event("messages.update", {"keyId": "1", "status": "PENDING"}),
        ):
            await rig.call(body)
        reasons = {"not handled": 2, "not a chat": 1, "no id": 1, "no text": 1, "no news": 1}
        assert counts(rig) == reasons
        assert (rig.entries, len(rig.known.heard)) == ([], 6)


@in_virtual_time
async def test_what_is_no_event_is_named() -> None:
    """And changes nothing."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        for body, pointer in (
            (b"{", "$"),
            (b"[]", "$"),
            (b'{"event":"x"}', "$.instance"),
            (b'{"instance":"x"}', "$.event"),
        ):
            malformed = await rig.call(body)
            assert isinstance(malformed, Malformed)
            assert malformed.pointer == pointer
        assert (counts(rig), rig.known.heard) == ({"malformed": 4}, [])


@in_virtual_time
@pytest.mark.parametrize(
    ("everywhere", "own", "shown", "comes_in"),
    [
        (None, None, "", True),
        ("global", None, "", False),
        ("global", None, "global", True),
        ("global", "own", "global", True),
        ("global", "own", "other", False),
        ("global", "own", "own", True),
        (None, "own", "wrong", False),
    ],
)
async def test_whose_token_is_asked_for(everywhere: str | None, own: str | None, shown: str, *, comes_in: bool) -> None:
    """Whoever shows none that is good changes nothing, and learns nothing of what the call said."""
    async with Stage() as stage:
        rig = InboundRig(stage, Gate(everywhere, open_without=True))
        rig.route(token=own)
        answer = await rig.call(says(), presented=Presented(apikey=shown))
        if comes_in:
            assert isinstance(answer, Noted)
        else:
            assert answer == NotAdmitted()
            assert (rig.entries, rig.known.heard, counts(rig)) == ([], [], {"refused": 1})
            assert await rig.call(event("made.up", {}), presented=Presented(apikey=shown)) == NotAdmitted()
        without = await rig.call(b"{", presented=Presented(apikey=everywhere or ""))
        assert isinstance(without, Malformed)


OWN: dict[str, Any] = {"remoteJid": PHONE, "fromMe": True}


@in_virtual_time
@pytest.mark.parametrize(
    ("route", "ours_after_s", "happened", "takeovers"),
    [
        (None, None, "own", 0),
        ("ignore", None, "own", 0),
        ("count", None, "own", 1),
        ("count", 0.0, "echo", 0),
        ("count", ECHO_S - 1, "own", 0),
    ],
)
async def test_who_wrote_on_the_phone(
    route: str | None, ours_after_s: float | None, happened: str, takeovers: int
) -> None:
    """An echo of what the API sent is none, also when the answer with its id comes after the event."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        if route is not None:
            rig.route(takeover=route)
        if ours_after_s == 0.0:
            await rig.known.note_sent(INSTANCE, "3EB0A1")
        assert await rig.happened(says("ya te atiendo", **OWN)) == happened
        again = await rig.happened(says("ya te atiendo", **OWN))
        assert again == ("duplicate" if takeovers or ours_after_s else happened)
        if ours_after_s:
            await passing(ours_after_s)
            await rig.known.note_sent(INSTANCE, "3EB0A1")
        assert rig.takeovers == []
        await passing(ECHO_S + 0.1)
        assert rig.takeovers == [(INSTANCE, PHONE)] * takeovers
        assert value(rig.meters.inbound_takeovers) == takeovers
        assert rig.entries == []


@in_virtual_time
async def test_only_so_many_are_waited_for() -> None:
    """One more is not counted, and said to be overlooked; later ones are looked into again."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route(takeover="count")
        for number in range(WAITS_MAX + 1):
            await rig.call(says(key_id=f"k{number}", **OWN))
        assert counts(rig) == {"own": WAITS_MAX, "overlooked": 1}
        assert (INSTANCE, f"k{WAITS_MAX}") not in rig.records.taken
        await passing(ECHO_S + 0.1)
        assert value(rig.meters.inbound_takeovers) == WAITS_MAX
        assert await rig.happened(says(key_id=f"k{WAITS_MAX}", **OWN)) == "own"


@in_virtual_time
async def test_a_busy_supervisor_and_a_store_that_went_away() -> None:
    """What cannot be found out is not called a takeover."""
    async with Stage(jobs_max=1) as stage:
        rig = InboundRig(stage)
        rig.route(takeover="count")
        await rig.call(says(key_id="a", **OWN))
        await rig.call(says(key_id="b", **OWN))

        async def away(_name: str) -> None:
            raise StoreAway("away")

        rig.known.before = away
        await passing(ECHO_S + 0.1)
        await ticks()
        assert counts(rig) == {"own": 1, "overlooked": 2}
        assert (rig.takeovers, stage.crashes) == ([], [])


@in_virtual_time
@pytest.mark.parametrize("error", [StoreAway("away"), Overloaded("full")])
async def test_trouble_of_ours_is_told(error: Exception) -> None:
    """Evolution sends again after a 503; nothing was counted as done."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()

        async def fail(_name: str) -> None:
            raise error

        rig.records.before = rig.known.before = fail
        for body in (says(), event("messages.update", {"keyId": "1", "status": "READ"})):
            with pytest.raises(type(error)):
                await rig.call(body)
        assert counts(rig) == {}


@in_virtual_time
async def test_nobody_who_may_not_come_in_makes_work() -> None:
    """What a call says is looked at when its token is good: here it would be found to be no event."""
    async with Stage() as stage:
        rig = InboundRig(stage, Gate("global", open_without=True))
        body = event("messages.upsert", {"d": [{"apikey": f"{number:016x}"} for number in range(99)]})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(evolution_events, "without_secrets", None)
            assert await rig.call(body, presented=Presented(apikey="wrong")) == NotAdmitted()
        assert isinstance(await rig.call(body, presented=Presented(apikey="global")), Malformed)
        assert (rig.entries, rig.known.heard) == ([], [])
