"""The fake Evolution's webhooks: what a receiver gets, how often, in which order; and the command that shows them."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from router.fake_evolution import posting
from router.fake_evolution.events import Presence
from router.fake_evolution.fake import DEFAULT_KEY
from router.fake_evolution.numbers import lid_of
from router.fake_evolution.posting import Mischief
from tests.support.child import Child
from tests.support.evolution import Evolution, evolution
from tests.support.sink import Hang, Received, Reply, Reset, Sink
from tests.support.until import until

ANA = "5511988887777"
ANA_JID = f"{ANA}@s.whatsapp.net"
BUZON = (sys.executable, "-m", "router", "fake-evolution", "--port", "0")


def body_of(request: Received) -> dict[str, Any]:
    """A webhook's JSON."""
    decoded: dict[str, Any] = json.loads(request.body)
    return decoded


def events(sink: Sink) -> list[str]:
    """The names of the events that have arrived."""
    return [body_of(request)["event"] for request in sink.requests]


@asynccontextmanager
async def told(dialect: str = "2.3", **more: Any) -> AsyncIterator[tuple[Evolution, Sink]]:
    """A fake, and a sink that gets all its events."""
    async with Sink() as sink, evolution(dialect, webhook=sink.url(), **more) as fake:
        yield fake, sink


async def send(http: aiohttp.ClientSession, fake: Evolution, **more: Any) -> dict[str, Any]:
    """Send a text; the answer."""
    old = fake.fake.dialect.nested_text
    text = {"textMessage": {"text": "hola"}, "options": more} if old else {"text": "hola", **more}
    url = f"{fake.url}/message/sendText/demo"
    async with http.post(url, json={"number": ANA, **text}, headers=fake.headers) as response:
        answer: dict[str, Any] = await response.json()
        return answer


async def configure(http: aiohttp.ClientSession, fake: Evolution, body: object) -> tuple[int, Any]:
    """POST /webhook/set."""
    async with http.post(f"{fake.url}/webhook/set/demo", json=body, headers=fake.headers) as response:
        return response.status, await response.json()


async def test_an_incoming_text_is_one_webhook_with_a_live_key() -> None:
    """The whole body, as the facts have it."""
    async with told() as (fake, sink):
        message_id = fake.incoming(ANA, "hola")
        await fake.settled()
        instance = fake.fake.instance(None)

    (request,) = sink.requests
    body = body_of(request)
    date_time, at = body.pop("date_time"), body["data"].pop("messageTimestamp")
    assert body == {
        "event": "messages.upsert",
        "instance": "demo",
        "data": {
            "key": {
                "remoteJid": ANA_JID,
                "remoteJidAlt": ANA_JID,
                "addressingMode": "lid",
                "fromMe": False,
                "id": message_id,
            },
            "pushName": "Ana",
            "status": "DELIVERY_ACK",
            "message": {"conversation": "hola"},
            "contextInfo": None,
            "messageType": "conversation",
            "instanceId": instance.id,
            "source": "android",
        },
        "destination": sink.url(),
        "sender": instance.own_jid,
        "server_url": fake.url,
        "apikey": instance.token,
    }
    assert date_time.endswith("Z")
    assert isinstance(at, int)
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("1", {"url": "URL", "enabled": True, "webhook_by_events": True, "events": ["MESSAGES_UPSERT"]}),
        (
            "2.3",
            {
                "webhook": {
                    "enabled": True,
                    "url": "URL",
                    "headers": {"authorization": "Bearer mine"},
                    "byEvents": True,
                    "base64": False,
                    "events": ["MESSAGES_UPSERT"],
                }
            },
        ),
    ],
)
async def test_a_webhook_that_is_set_gets_the_events_it_named(
    dialect: str, body: dict[str, Any], http: aiohttp.ClientSession
) -> None:
    """At a URL for each event when it wants that; 2.x with its headers."""
    async with Sink() as sink, evolution(dialect) as fake:
        text = json.dumps(body).replace("URL", sink.url())
        status, _ = await configure(http, fake, json.loads(text))
        async with http.get(f"{fake.url}/webhook/find/demo", headers=fake.headers) as response:
            found = await response.json()
        fake.incoming(ANA, "hola")
        fake.state("connecting")
        await fake.settled()

    (request,) = sink.requests
    assert status == 201
    assert (found["url"], found["enabled"], found["events"]) == (sink.url(), True, ["MESSAGES_UPSERT"])
    assert request.path == "/hook/messages-upsert"
    assert request.headers.get("authorization") == (None if dialect == "1" else "Bearer mine")


async def test_setting_a_webhook_goes_wrong_as_it_does_there(http: aiohttp.ClientSession) -> None:
    """A flat body, no list of events, a URL that is none. No events in the list means all of them."""
    url = "https://example.com"
    async with evolution() as fake:
        flat = await configure(http, fake, {"enabled": True, "url": url, "events": []})
        without, _ = await configure(http, fake, {"webhook": {"enabled": True, "url": url}})
        wrong = await configure(http, fake, {"webhook": {"enabled": True, "url": "example", "events": []}})
        _, everything = await configure(http, fake, {"webhook": {"enabled": True, "url": url, "events": []}})

    assert (flat[0], flat[1]["response"]["message"]) == (400, [['instance requires property "webhook"']])
    assert without == 500
    assert (wrong[0], wrong[1]["response"]["message"]) == (400, ['Invalid "url" property'])
    assert {"MESSAGES_UPSERT", "SEND_MESSAGE", "STATUS_INSTANCE"} <= set(everything["events"])


@pytest.mark.parametrize("dialect", ["1", "2.3", "2.4"])
async def test_a_send_is_told_then_acknowledged(dialect: str, http: aiohttp.ClientSession) -> None:
    """SEND_MESSAGE has the body of the answer; then the server, the phone and the reader acknowledge."""
    async with told(dialect) as (fake, sink):
        fake.hold()
        answer = await send(http, fake)
        told_of = fake.status(answer["key"]["id"], "READ")
        unknown = fake.status("3EB0UNKNOWN", "READ")
        fake.release()
        await fake.settled()

    bodies = [body_of(request) for request in sink.requests]
    assert [body["event"] for body in bodies] == ["send.message", *["messages.update"] * 3]
    assert bodies[0]["data"] == answer
    assert [body["data"]["status"] for body in bodies[1:]] == ["SERVER_ACK", "DELIVERY_ACK", "READ"]
    assert {body["data"]["id" if dialect == "1" else "keyId"] for body in bodies[1:]} == {answer["key"]["id"]}
    assert (told_of, unknown) == (True, False)


@pytest.mark.parametrize("dialect", ["1", "2.3"])
async def test_people_take_back_and_change_what_they_wrote(dialect: str) -> None:
    """MESSAGES_DELETE is the key, with a status in 2.x; MESSAGES_EDITED names the message and says it anew."""
    async with told(dialect) as (fake, sink):
        fake.hold()
        message_id = fake.incoming(ANA, "hola", identity="plain")
        assert fake.edit(message_id, "chau")
        assert fake.delete(message_id)
        assert not fake.delete("3EB0UNKNOWN")
        fake.release()
        await fake.settled()

    key = {"remoteJid": ANA_JID, "fromMe": False, "id": message_id}
    _, edited, deleted = (body_of(request)["data"] for request in sink.requests)
    assert events(sink)[1:] == ["messages.edited", "messages.delete"]
    assert deleted == (key if dialect == "1" else key | {"status": "DELETED"})
    said = {"extendedTextMessage": {"text": "chau"}} if dialect == "1" else {"conversation": "chau"}
    assert (edited["key"], edited["editedMessage"]) == (key, said)


async def test_our_own_sends_may_come_back_and_people_may_type_on_the_phone(http: aiohttp.ClientSession) -> None:
    """Both are upserts with fromMe; only the id tells them apart."""
    async with told(echoes=True, acks=()) as (fake, sink):
        fake.hold()
        answer = await send(http, fake)
        typed_id = fake.incoming(ANA, "ya te atiendo", from_me=True)
        fake.release()
        await fake.settled()

    upserts = [body_of(request)["data"]["key"] for request in sink.requests[1:]]
    assert [(key["fromMe"], key["id"]) for key in upserts] == [(True, answer["key"]["id"]), (True, typed_id)]


async def test_a_message_that_went_out_and_timed_out_is_not_told(http: aiohttp.ClientSession) -> None:
    """Evolution never stored it, so that nothing tells its id: the worst case for whoever counts on events."""
    async with told() as (fake, sink):
        fake.fail_next("timed-out-but-sent")
        await send(http, fake)
        await fake.settled()

    assert fake.received(ANA) == ["hola"]
    assert sink.requests == []


async def test_identities_switch_in_the_middle_of_a_talk() -> None:
    """One contact by phone, by lid with a number beside it, by lid alone; in a group as participant."""
    async with told("2.4") as (fake, sink):
        fake.hold()
        for identity in ("2.4", "2.3.5", "sender_pn", "lid_only"):
            fake.incoming(ANA, "hola", identity=identity)
        fake.incoming(ANA, "hola", group="120363012345678901")
        fake.release()
        await fake.settled()

    lid = lid_of(ANA_JID)
    keys = [body_of(request)["data"]["key"] for request in sink.requests]
    assert [key["remoteJid"] for key in keys] == [ANA_JID, lid, lid, lid, "120363012345678901@g.us"]
    assert [key.get("remoteJidAlt") for key in keys] == [lid, ANA_JID, None, None, None]
    assert keys[2]["senderPn"] == ANA_JID
    assert keys[4]["participant"] == ANA_JID


async def test_states_are_told_as_far_as_the_version_tells_them() -> None:
    """2.x: a drop is "connecting" and "open", a logout "close"; 1 says "close" to both."""
    async with told("2.3") as (new, new_sink), told("1") as (old, old_sink):
        for fake in (new, old):
            fake.hold()
            fake.state("close", reason=428)
            fake.state("open")
            fake.state("close", reason=401)
            fake.release()
            await fake.settled()

    new_data, old_data = ([body_of(each)["data"] for each in sink.requests] for sink in (new_sink, old_sink))
    assert [(data["state"], data["statusReason"]) for data in new_data] == [
        ("connecting", 200),
        ("open", 200),
        ("close", 401),
    ]
    assert [data["state"] for data in old_data] == ["close", "open", "close"]
    assert events(new_sink) == ["connection.update"] * 3


@pytest.mark.parametrize("presence", ["composing", "recording", "paused", "available", "unavailable"])
async def test_typing_is_told_only_after_a_send_with_delay(presence: Presence, http: aiohttp.ClientSession) -> None:
    """Evolution subscribes then, and in sendPresence; before that nobody hears anything."""
    async with told(acks=()) as (fake, sink):
        before = fake.presence(ANA, presence)
        await send(http, fake, delay=1)
        after = fake.presence(ANA, presence)
        await fake.settled()

    assert (before, after) == (False, True)
    assert body_of(sink.requests[-1])["data"] == {
        "id": ANA_JID,
        "presences": {ANA_JID: {"lastKnownPresence": presence}},
    }


@pytest.mark.parametrize("dialect", ["1", "2.3"])
async def test_send_presence_subscribes(dialect: str, http: aiohttp.ClientSession) -> None:
    """Flat in 2.x, in `options` in 1."""
    wish = {"presence": "composing", "delay": 1}
    async with evolution(dialect) as fake:
        url = f"{fake.url}/chat/sendPresence/demo"
        body = {"number": ANA, **({"options": wish} if dialect == "1" else wish)}
        async with http.post(url, json=body, headers=fake.headers) as response:
            status = response.status
        async with http.post(url, json={"number": ANA}, headers=fake.headers) as response:
            refused = response.status
        assert fake.presence(ANA, "composing")

    assert (status, refused) == (201, 400)


async def test_failures_are_tried_again_and_refusals_are_not() -> None:
    """2.3: a 503 and a reset are, a 4xx of the list is not. The same bytes again, with nothing that numbers them."""
    async with told() as (fake, sink):
        sink.next(Reply(status=503), Reset(), Reply())
        fake.incoming(ANA, "uno")
        await fake.settled()
        first = len(sink.requests)
        sink.next(Reply(status=422))
        fake.incoming(ANA, "dos")
        await fake.settled()

    assert [posted.status for posted in fake.posted] == [503, None, 200, 422]
    assert [posted.attempt for posted in fake.posted] == [1, 2, 3, 1]
    assert len({request.body for request in sink.requests[:first]}) == 1


async def test_ten_failures_are_the_end() -> None:
    """The event is lost. Before 2.3 a 400 is tried ten times, too."""
    async with told("2.3") as (new, new_sink), told("1") as (old, old_sink):
        new_sink.on("/hook", Reply(status=500))
        old_sink.on("/hook", Reply(status=400))
        for fake in (new, old):
            fake.incoming(ANA, "hola")
            await fake.settled()

    assert (len(new_sink.requests), len(old_sink.requests)) == (10, 10)


async def test_events_come_backwards_and_twice_when_told_to() -> None:
    """The order that a test can rely on."""
    async with told() as (fake, sink):
        fake.hold()
        for text in ("uno", "dos"):
            fake.incoming(ANA, text)
        fake.release(reverse=True, copies=2)
        await fake.settled()

    texts = [body_of(request)["data"]["message"]["conversation"] for request in sink.requests]
    assert texts == ["dos", "uno", "dos", "uno"]


async def test_what_cannot_wait_is_lost_and_told(monkeypatch: pytest.MonkeyPatch, http: aiohttp.ClientSession) -> None:
    """Sends go on while a receiver hangs, however many events wait for it."""
    monkeypatch.setattr(posting, "WAITING_MAX", 2)
    monkeypatch.setattr(posting, "UNDER_WAY_MAX", 1)
    async with told() as (fake, sink):
        sink.on("/hook", Hang())
        answers = [await send(http, fake) for _ in range(4)]

    assert [answer["status"] for answer in answers] == ["PENDING"] * 4
    assert {note.fields["event"] for note in fake.notes if note.what == "lost"} >= {"SEND_MESSAGE"}


async def test_mischief_copies_and_reorders_by_itself() -> None:
    """Every event arrives as often as told, in some other order."""
    async with told(mischief=Mischief(copies=2, jitter_s=0.05)) as (fake, sink):
        for n in range(10):
            fake.incoming(ANA, f"{n}")
        await fake.settled()

    texts = [body_of(request)["data"]["message"]["conversation"] for request in sink.requests]
    assert sorted(texts) == sorted(f"{n}" for n in range(10) for _ in range(2))
    assert texts != sorted(texts)


async def test_only_2_4_says_who_it_is_in_headers() -> None:
    """And how it names the event there."""
    async with told("2.4") as (new, new_sink), told("2.3") as (old, old_sink):
        for fake in (new, old):
            fake.incoming(ANA, "hola")
            await fake.settled()

    headers = new_sink.requests[0].headers
    assert (headers["x-instance-name"], headers["x-event-type"]) == ("demo", "MESSAGES_UPSERT")
    assert headers["user-agent"] == "EvolutionAPI-Webhook/2.3.7"
    assert "x-instance-name" not in old_sink.requests[0].headers


def url_of(child: Child) -> str:
    """Where the command says that it listens; "" until it does."""
    head, _, rest = child.stderr_path.read_text().partition(" (a fake) on ")
    return rest.partition(",")[0] if head and "sendText" in rest else ""


async def test_the_command_shows_what_happens_and_no_key(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    """The lines of curl that it prints work as they are; each event is a line."""
    async with Sink() as sink:
        argv = [*BUZON, "--webhook", f"{sink.url()}?token=canary", "--key", "canary-key", "--json"]
        with Child(argv, tmp_path / "fake") as child:
            url = await until(lambda: url_of(child), 10, what="the command listens")
            write = {"instance": "demo", "from": ANA, "text": "hola"}
            async with http.post(f"{url}/fake/incoming", json=write) as response:
                assert response.status == 201
            text, headers = {"number": ANA, "text": "hola"}, {"apikey": "canary-key"}
            async with http.post(f"{url}/message/sendText/demo", json=text, headers=headers) as response:
                assert response.status == 201
            await sink.wait_for_requests(4)
            await until(lambda: child.stdout_path.read_text().count('"webhook"') == 4, what="all is printed")
            child.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(child.wait, 10) == 0, child.output()

    lines = [json.loads(line) for line in child.stdout_path.read_text().splitlines()]
    assert {line["what"] for line in lines} == {"incoming", "webhook", "sent", "request"}
    assert f"curl -s {url}/fake/incoming" in child.output()
    assert json.dumps(write) in child.output()
    assert "canary" not in child.output()


async def test_the_command_prints_a_line_that_sends_as_it_is(tmp_path: Path) -> None:
    """With the key that is known to everybody; pasted into a shell, both lines are answered 201."""
    with Child([*BUZON, "--version", "1"], tmp_path / "fake") as child:
        await until(lambda: url_of(child), 10, what="the command listens")
        curls = [line for line in child.stderr_path.read_text().splitlines() if line.startswith("  curl")]
        for line in curls:
            shell = await asyncio.create_subprocess_shell(
                f"{line} -w '\\n%{{http_code}}'", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
            )
            printed, _ = await shell.communicate()
            assert printed.decode().splitlines()[-1] == "201", line

    assert len(curls) == 2
    assert DEFAULT_KEY in curls[1]
    assert "sent      to=5511988887777@s.whatsapp.net  text=hola" in child.stdout_path.read_text()


async def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    """And exit code 1."""
    async with Sink() as sink:
        port = sink.address[1]
        with Child([*BUZON[:-1], str(port)], tmp_path / "fake") as child:
            assert await asyncio.to_thread(child.wait, 10) == 1
    assert child.stderr_path.read_text().startswith(f"buzon: PORT: port {port} on 127.0.0.1 is taken")
