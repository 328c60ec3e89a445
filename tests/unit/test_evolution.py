"""A server of Evolution API's: how it is spoken to, what is known of it, and where its key goes: into a header only."""

from __future__ import annotations

import asyncio

import pytest

from actors.core.evolution_answers import ANSWER_BYTES_MAX, Rejected, Sent, Trouble, Uncertain, WrongDialect
from actors.core.evolution_send import Dialect, TextSend
from actors.core.evolution_server import InstanceState, Paused, Server
from actors.core.outcome import Answered
from actors.egress_ports import Withheld
from actors.evolution import KNOWN_S, LOOK_S, OUT_OF_REACH, UNKNOWN_S, Evolution, Sending
from tests.support.doubles import Stage
from tests.support.evolution_rig import (
    KEY,
    LICENSE,
    REFUSED,
    SILENCE,
    URL,
    WANTS_V1,
    WANTS_V2,
    EvolutionRig,
    Step,
    fault,
    said,
    state,
    taken,
    welcome,
)
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

SEND = TextSend(number="521", text="hola", message_id="3EB0FF")


async def send(evolution: Evolution, instance: str = "i") -> Sending:
    """Have a text sent, by a node that may."""
    sending = await evolution.send(instance, SEND, lambda: True)
    assert isinstance(sending, Sending)
    return sending


@pytest.mark.parametrize(
    ("version", "dialect", "honours"),
    [("1.8.2", "v1", False), ("2.3.7", "v2", False), ("2.4.0-rc2", "v2", True), ("2.4.0", "v2", True)],
)
@in_virtual_time
async def test_the_dialect_is_that_of_the_servers_version(version: str, dialect: Dialect, *, honours: bool) -> None:
    """Which `GET /` says; the first send is in it already."""
    async with Stage() as stage:
        rig = EvolutionRig(stage, version)
        assert await rig.evolution.look() == Server(version, dialect, honours)
        assert (await send(rig.evolution)).outcome == Sent("3EB0A", "1@s.whatsapp.net")
        assert [(kind, request.method, request.url) for kind, request in rig.server.asked] == [
            ("look", "GET", URL + "/"),
            ("send", "POST", URL + "/message/sendText/i"),
        ]
        [body] = rig.server.bodies()
        assert body == (
            {"number": "521", "textMessage": {"text": "hola"}}
            if dialect == "v1"
            else {"number": "521", "text": "hola", "messageId": "3EB0FF"}
        )


@in_virtual_time
async def test_what_is_known_is_not_asked_again_for_a_while() -> None:
    """Somebody may have updated it; by then it is asked once more."""
    async with Stage() as stage:
        rig = EvolutionRig(stage, "1.8.2")
        for _ in range(3):
            await rig.evolution.look()
        await passing(KNOWN_S - 1)
        rig.server.version = welcome("2.4.0")
        assert await rig.evolution.look() == Server("1.8.2", "v1", honours_message_id=False)
        assert rig.server.count("look") == 1
        await passing(1.0)
        assert await rig.evolution.look() == rig.evolution.server == Server("2.4.0", "v2", honours_message_id=True)
        assert rig.server.count("look") == 2


@in_virtual_time
async def test_many_that_want_to_know_at_once_ask_once() -> None:
    """The others wait for the answer."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.took_s = 1.0
        found = await asyncio.gather(*(rig.evolution.look() for _ in range(20)))
        assert set(found) == {rig.evolution.server}
        assert rig.server.count("look") == 1


@pytest.mark.parametrize(
    "answer", [REFUSED, SILENCE, said(200, "hello"), said(502, {}), said(200, {"version": "main"})]
)
@in_virtual_time
async def test_a_server_that_does_not_say_what_it_is_is_asked_soon_again(answer: Step) -> None:
    """But not by everybody, one after the other; meanwhile it is taken for version 2 that takes no id of ours."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.planned["look"].append(answer)
        rig.server.took_s = 3.0
        began = stage.clock.monotonic()
        assert await asyncio.gather(*(rig.evolution.look() for _ in range(20))) == [None] * 20
        assert stage.clock.monotonic() - began == 3.0
        rig.server.took_s = 0.0
        assert rig.server.count("look") == 1
        assert (await send(rig.evolution)).outcome == Sent("3EB0A", "1@s.whatsapp.net")
        assert "text" in rig.server.bodies()[0]
        await passing(UNKNOWN_S)
        assert await rig.evolution.look() == Server("2.4.0", "v2", honours_message_id=True)


@in_virtual_time
async def test_what_was_known_stays_known_while_it_does_not_answer() -> None:
    """And it is asked soon again."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        known = await rig.evolution.look()
        rig.evolution.forget()
        rig.server.planned["look"].append(REFUSED)
        assert await rig.evolution.look() == await rig.evolution.look() == known
        assert rig.server.count("look") == 2
        await passing(UNKNOWN_S)
        await rig.evolution.look()
        assert rig.server.count("look") == 3


@in_virtual_time
async def test_a_server_that_was_away_is_asked_anew() -> None:
    """It may be another one now."""
    async with Stage() as stage:
        rig = EvolutionRig(stage, "1.8.2")
        await rig.evolution.look()
        rig.server.version = welcome("2.4.0")
        rig.evolution.forget()
        assert await rig.evolution.look() == Server("2.4.0", "v2", honours_message_id=True)


@in_virtual_time
async def test_a_server_without_a_license_is_asked_each_time() -> None:
    """Its sends wait, and go on as soon as it has one."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.planned["look"].extend([LICENSE, LICENSE])
        for _ in range(2):
            paused = await rig.evolution.look()
            assert isinstance(paused, Paused)
            assert paused.cause == "license"
        assert isinstance(await rig.evolution.look(), Server)


@pytest.mark.parametrize(
    ("version", "refusal", "keys"),
    [("", WANTS_V1, [{"number", "text", "messageId"}, {"number", "textMessage"}]),
     ("1.8.2", WANTS_V2, [{"number", "textMessage"}, {"number", "text", "messageId"}])],
)  # fmt: skip
@in_virtual_time
async def test_a_server_that_wants_the_other_dialect_gets_it(
    version: str, refusal: Answered, keys: list[set[str]]
) -> None:
    """At once, and from then on; and it is asked what it is."""
    async with Stage() as stage:
        rig = EvolutionRig(stage, version)
        await rig.evolution.look()
        rig.server.planned["send"].append(refusal)
        rig.server.version = said(200, {})
        assert isinstance((await send(rig.evolution)).outcome, Sent)
        assert [set(body) for body in rig.server.bodies()] == keys
        await send(rig.evolution)
        assert set(rig.server.bodies()[-1]) == keys[1]
        looks = rig.server.count("look")
        await rig.evolution.look()
        assert rig.server.count("look") == looks + 1


@in_virtual_time
async def test_a_dialect_is_changed_once_a_send() -> None:
    """A server that cannot make up its mind is not asked for ever."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.planned["send"].extend([WANTS_V1, WANTS_V2])
        assert (await send(rig.evolution)).outcome == WrongDialect("v2")
        assert rig.server.count("send") == 2


@pytest.mark.parametrize("answer", [SILENCE, said(201, {}), fault("timed out"), LICENSE, fault("no")])
@in_virtual_time
async def test_any_other_answer_is_the_last(answer: Step) -> None:
    """A send that may have been made is not made again here."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.planned["send"].append(answer)
        sending = await send(rig.evolution)
        assert not isinstance(sending.outcome, Sent)
        assert sending.exchange == answer
        assert rig.server.count("send") == 1


@in_virtual_time
async def test_silence_is_told_by_whether_anything_had_left() -> None:
    """Doubt only when it had."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.planned["send"].extend([REFUSED, SILENCE])
        assert (await send(rig.evolution)).outcome == Trouble("unreachable", "connection refused")
        assert (await send(rig.evolution)).outcome == Uncertain("no answer: timeout")


@in_virtual_time
async def test_a_node_that_may_not_act_sends_nothing() -> None:
    """It is asked before each of the two dialects."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        assert await rig.evolution.send("i", SEND, lambda: False) == Withheld()
        assert rig.server.count("send") == 0
        rig.server.planned["send"].append(WANTS_V1)
        answers = iter([True, False])
        assert await rig.evolution.send("i", SEND, lambda: next(answers)) == Withheld()
        assert rig.server.count("send") == 1


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (state("open"), "open"),
        (state("connecting"), "connecting"),
        (state("close"), "close"),
        (state(None), "not_loaded"),
        (fault(['The "i" instance does not exist'], 404), "unknown"),
        (said(200, {}), None),
        (said(401, {"message": "Unauthorized"}), None),
        (said(500, {}), OUT_OF_REACH),
        (Answered(502, None, "", 1.0, b"<html>"), OUT_OF_REACH),
        (LICENSE, Paused("license", "Evolution's license has to be activated")),
        (REFUSED, OUT_OF_REACH),
        (SILENCE, OUT_OF_REACH),
    ],
)
@in_virtual_time
async def test_the_state_of_an_instance(answer: Step, found: InstanceState | Paused | None) -> None:
    """What cannot be understood says nothing; what nobody answers is out of reach."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.state = answer
        assert await rig.evolution.state("i") == found
        [request] = rig.server.of("state")
        assert (request.method, request.url) == ("GET", URL + "/instance/connectionState/i")
        assert request.timeout_s == LOOK_S


@in_virtual_time
async def test_the_key_is_in_a_header_and_nowhere_else() -> None:
    """And nothing of a caller's becomes part of a query."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        await rig.evolution.look()
        await rig.evolution.state("a?b=1&/é")
        sending = await send(rig.evolution, "a?b=1&/é")
        assert KEY not in repr(sending)
        for _, request in rig.server.asked:
            assert request.headers["apikey"] == KEY
            assert request.headers["User-Agent"] == "buzon/test"
            assert KEY not in request.url
            assert KEY.encode() not in request.body
            assert "?" not in request.url
            assert request.keep_bytes == ANSWER_BYTES_MAX
        assert [request.url.rpartition("/")[2] for _, request in rig.server.asked] == [
            "",
            *["a%3Fb%3D1%26%2F%C3%A9"] * 2,
        ]
        assert rig.server.of("send")[0].headers["Content-Type"] == "application/json"
        assert rig.server.of("send")[0].timeout_s == 60.0


@in_virtual_time
async def test_without_a_key_there_is_no_header() -> None:
    """An empty one would be refused."""
    async with Stage() as stage:
        rig = EvolutionRig(stage, key="")
        await send(rig.evolution)
        assert "apikey" not in rig.server.of("send")[0].headers


@in_virtual_time
async def test_a_refusal_tells_no_key() -> None:
    """Even when the server repeats it."""
    async with Stage() as stage:
        rig = EvolutionRig(stage)
        rig.server.planned["send"].append(fault(f"bad apikey {KEY}"))
        outcome = (await send(rig.evolution)).outcome
        assert isinstance(outcome, Rejected)
        assert KEY not in outcome.reason
        assert taken().status == 201
