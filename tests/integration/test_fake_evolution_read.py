"""The fake Evolution and the core that reads Evolution: both follow the same facts, neither knows the other.

What the fake says must mean to the core what it is meant to say; a difference is a mistake in one of them.
"""

from __future__ import annotations

import aiohttp
import pytest

from actors.core.evolution_answers import Rejected, SendOutcome, Sent, Trouble, WrongDialect, judge
from actors.core.evolution_events import (
    ConnectionChanged,
    DeliveryUpdate,
    Ignored,
    IncomingText,
    OwnMessage,
    SentByApi,
    read,
)
from actors.core.evolution_send import Dialect, TextSend, message_id_for, send_body, send_path
from actors.core.evolution_server import Answer, Paused, Server, read_state, read_welcome
from router.fake_evolution.behaviours import FAULTS, Refuse
from router.fake_evolution.contents import KINDS
from router.fake_evolution.identity import IDENTITIES
from router.fake_evolution.numbers import lid_of
from tests.support.evolution import Evolution, evolution
from tests.support.sink import Sink

ANA = "5511988887777"
ANA_JID = f"{ANA}@s.whatsapp.net"
SPOKEN: dict[str, Dialect] = {"1": "v1", "2.3": "v2", "2.4": "v2"}
JSON = {"Content-Type": "application/json"}


async def ask(http: aiohttp.ClientSession, fake: Evolution, path: str, body: bytes | None = None) -> Answer:
    """A request as the router makes it."""
    method = "GET" if body is None else "POST"
    async with http.request(method, fake.url + path, data=body, headers=fake.headers | JSON) as response:
        return Answer(response.status, await response.read())


async def outcome(http: aiohttp.ClientSession, fake: Evolution, number: str = ANA, text: str = "hola") -> SendOutcome:
    """What a send in the fake's own dialect is judged to be."""
    dialect = SPOKEN[fake.fake.dialect.name]
    send = TextSend(number=number, text=text, message_id=message_id_for("task-1", 1))
    answer = await ask(http, fake, send_path("demo"), send_body(send, dialect))
    return judge(answer, dialect)


@pytest.mark.parametrize("dialect", SPOKEN)
async def test_the_version_says_the_dialect_and_so_does_the_refusal(dialect: str, http: aiohttp.ClientSession) -> None:
    """A wrong first guess is put right by either."""
    async with evolution(dialect) as fake:
        welcome = read_welcome(await ask(http, fake, "/"))
        wrong: Dialect = "v2" if dialect == "1" else "v1"
        body = send_body(TextSend(number=ANA, text="hola"), wrong)
        refused = judge(await ask(http, fake, send_path("demo"), body), wrong)

    assert isinstance(welcome, Server)
    assert (welcome.dialect, welcome.honours_message_id) == (SPOKEN[dialect], dialect == "2.4")
    assert isinstance(refused, WrongDialect)
    assert refused.use == SPOKEN[dialect]


@pytest.mark.parametrize("dialect", SPOKEN)
async def test_a_send_is_sent_and_the_tasks_id_counts_from_2_4(dialect: str, http: aiohttp.ClientSession) -> None:
    """Sent twice: once on the phone where the id is honoured, twice where it is not."""
    async with evolution(dialect) as fake:
        first, second = await outcome(http, fake), await outcome(http, fake)

    assert isinstance(first, Sent)
    assert isinstance(second, Sent)
    assert first.remote_jid == ANA_JID
    assert (first.key_id == second.key_id == message_id_for("task-1", 1)) == (dialect == "2.4")
    assert len(fake.received(ANA)) == (1 if dialect == "2.4" else 2)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("connection-closed", "closed"),
        ("timed-out", "timed_out"),
        ("rate-overlimit", "rate_limited"),
        ("stream-errored", "other"),
        ("server-connection-closed", "closed"),
        ("server-error-connection-closed", "closed"),
        ("server-not-loaded", "not_loaded"),
        ("server-error", "other"),
    ],
)
async def test_what_passes_is_trouble(fault: str, kind: str, http: aiohttp.ClientSession) -> None:
    """Whatever its status."""
    async with evolution() as fake:
        fake.fail_next(fault)
        judged = await outcome(http, fake)

    assert isinstance(judged, Trouble)
    assert judged.kind == kind


async def test_what_stays_is_rejected(http: aiohttp.ClientSession) -> None:
    """Each for its own reason."""
    lid = lid_of(ANA_JID)
    async with evolution() as fake:
        fake.absent("5511977776666")
        fake.absent("120363012345678901")
        judged = [
            await outcome(http, fake, "5511977776666"),
            await outcome(http, fake, lid),
            await outcome(http, fake, "120363012345678901@g.us"),
            await outcome(http, fake, text=" "),
            judge(await ask(http, fake, send_path("x"), b"{}"), "v2"),
            judge(await ask(http, fake, send_path("demo"), b'{"number":5,"text":"hola"}'), "v2"),
            judge(await ask(http, fake, "/nowhere", b"{}"), "v2"),
        ]
        fake.fail_next("forbidden")
        judged.append(await outcome(http, fake))
        fake.headers["apikey"] = "wrong"
        judged.append(await outcome(http, fake))

    assert [each.kind for each in judged if isinstance(each, Rejected)] == [
        "not_on_whatsapp",
        "lid_not_found",
        "refused",
        "empty_text",
        "unknown_instance",
        "validation",
        "no_route",
        "forbidden",
        "unauthorized",
    ]


async def test_a_missing_license_and_states_pause(http: aiohttp.ClientSession) -> None:
    """And are told apart from each other."""
    async with evolution("2.4", activated=False) as fake:
        gated = await outcome(http, fake)
        fake.fake.activated = True
        states = []
        for state in ("open", "connecting", "close", None):
            fake.state(state)
            states.append(read_state(await ask(http, fake, "/instance/connectionState/demo")))
        states.append(read_state(await ask(http, fake, "/instance/connectionState/x")))

    assert isinstance(gated, Paused)
    assert gated.cause == "license"
    assert states == ["open", "connecting", "close", "not_loaded", "unknown"]


@pytest.mark.parametrize("dialect", SPOKEN)
@pytest.mark.parametrize("identity", IDENTITIES)
async def test_every_identity_is_one_contact(dialect: str, identity: str) -> None:
    """Under the phone wherever any field has it, else under the lid."""
    async with Sink() as sink, evolution(dialect, webhook=sink.url()) as fake:
        fake.incoming(ANA, "hola", identity=identity)
        await fake.settled()

    event = read(sink.requests[0].body)
    assert isinstance(event, IncomingText)
    assert event.contact.key == (lid_of(ANA_JID) if identity == "lid_only" else ANA_JID)
    assert event.text == "hola"


@pytest.mark.parametrize("dialect", ["1", "2.3"])
@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_is_read_and_no_key_is_handed_on(dialect: str, kind: str) -> None:
    """Text where a person said something; audio, stickers and reactions hold none to answer."""
    async with Sink() as sink, evolution(dialect, webhook=sink.url()) as fake:
        fake.incoming(ANA, "hola", kind=kind)
        await fake.settled()
        token = fake.fake.instance(None).token

    event = read(sink.requests[0].body)
    if kind in ("audio", "sticker", "reaction"):
        assert event == Ignored(fake.fake.instance(None).name, "messages.upsert", "no text")
        return
    assert isinstance(event, IncomingText)
    assert ("hola" in event.text) == (kind != "location")
    assert token.encode() in sink.requests[0].body
    assert token.encode() not in event.payload


@pytest.mark.parametrize("dialect", SPOKEN)
async def test_sends_receipts_and_states_are_read(dialect: str, http: aiohttp.ClientSession) -> None:
    """In the order in which they are told, in both URL styles."""
    async with Sink() as sink, evolution(dialect, echoes=True) as fake:
        fake.webhook(sink.url("/evolution/webhook"), by_events=True)
        fake.hold()
        sent = await outcome(http, fake)
        assert isinstance(sent, Sent)
        fake.status(sent.key_id, "READ")
        fake.state("close", reason=401)
        fake.release()
        await fake.settled()

    told = [read(request.body, request.path.rpartition("/")[2]) for request in sink.requests]
    assert [type(event) for event in told] == [SentByApi, OwnMessage, *[DeliveryUpdate] * 3, ConnectionChanged]
    assert {event.key_id for event in told if isinstance(event, SentByApi | OwnMessage | DeliveryUpdate)} == {
        sent.key_id
    }
    assert told[-1] == ConnectionChanged("demo", "close", 401)


def test_no_refusal_is_left_out() -> None:
    """A fault that is added here has to be judged above."""
    refusals = {name for name, fault in FAULTS.items() if isinstance(fault, Refuse)}
    assert refusals == {
        *("connection-closed", "timed-out", "timed-out-but-sent", "rate-overlimit", "stream-errored", "group-missing"),
        *("forbidden", "server-connection-closed", "server-error-connection-closed", "server-not-loaded"),
        "server-error",
    }
