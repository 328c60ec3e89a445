"""The fake Evolution's API over HTTP: each fact about the real one that decides what a client does."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import pytest

from router.fake_evolution.behaviours import FAULTS, Refuse, Slow
from router.fake_evolution.numbers import lid_of
from tests.support.evolution import Evolution, evolution
from tests.support.until import steady, until

ANA, BEA = "5511988887777", "5511977776666"
ANA_JID = f"{ANA}@s.whatsapp.net"
DIALECTS = ("1", "2.3", "2.4")

Answer = tuple[int, Any]


async def call(
    http: aiohttp.ClientSession, fake: Evolution, method: str, path: str, body: object = None, **headers: str
) -> Answer:
    """A request with the right key; status and body."""
    sent = {**fake.headers, **headers}
    async with http.request(method, fake.url + path, json=body, headers=sent) as response:
        return response.status, await response.json()


def text_body(fake: Evolution, number: str, text: str, **more: Any) -> dict[str, Any]:
    """A sendText in the fake's dialect."""
    if fake.fake.dialect.nested_text:
        return {"number": number, "textMessage": {"text": text}, "options": more}
    return {"number": number, "text": text, **more}


async def send(
    http: aiohttp.ClientSession, fake: Evolution, number: str = ANA, text: str = "hola", **more: Any
) -> Answer:
    """Send a text."""
    return await call(http, fake, "POST", "/message/sendText/demo", text_body(fake, number, text, **more))


def error(status: int, phrase: str, message: object) -> Answer:
    """An error in Evolution's shape."""
    return status, {"status": status, "error": phrase, "response": {"message": message}}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_an_unknown_instance_is_404_even_without_a_key(dialect: str, http: aiohttp.ClientSession) -> None:
    """The guards look for the instance first, then at the key, then at the body."""
    async with evolution(dialect) as fake:
        unknown = await call(http, fake, "POST", "/message/sendText/x", {}, apikey="")
        wrong = await call(http, fake, "POST", "/message/sendText/demo", {}, apikey="wrong")
        invalid = await call(http, fake, "POST", "/message/sendText/demo", {})
        nowhere = await call(http, fake, "POST", "/x?y=1", {})

    assert unknown == error(404, "Not Found", ['The "x" instance does not exist'])
    assert wrong == error(401, "Unauthorized", "Unauthorized")
    assert invalid[0] == 400
    assert nowhere == error(404, "Not Found", ["Cannot POST /x?y=1"])


async def test_the_instances_own_token_is_a_key_too(http: aiohttp.ClientSession) -> None:
    """But not that of another instance."""
    async with evolution(instances=("demo", "other")) as fake:
        tokens = [fake.fake.instance(name).token for name in ("demo", "other")]
        statuses = [(await call(http, fake, "GET", "/instance/connectionState/demo", apikey=key))[0] for key in tokens]

    assert statuses == [200, 401]


@pytest.mark.parametrize(("dialect", "version"), [("1", "1.8.2"), ("2.3", "2.3.7"), ("2.4", "2.4.0")])
async def test_get_slash_tells_the_version_without_a_key(
    dialect: str, version: str, http: aiohttp.ClientSession
) -> None:
    """So does the validation text of the wrong dialect."""
    async with evolution(dialect) as fake:
        status, body = await call(http, fake, "GET", "/", apikey="")
        _, refused = await call(http, fake, "POST", "/message/sendText/demo", {"number": ANA})

    assert status == 200
    assert (body["message"], body["version"]) == ("Welcome to the Evolution API, it is working!", version)
    wanted = "textMessage" if dialect == "1" else "text"
    assert refused["response"]["message"] == [[f'instance requires property "{wanted}"']]


async def test_validation_texts_come_in_an_array_in_an_array(http: aiohttp.ClientSession) -> None:
    """Empty text is one array; a number that is no text has the field's description; broken JSON is another error."""
    async with evolution() as fake:
        missing = await call(http, fake, "POST", "/message/sendText/demo", {"number": ANA})
        number = await call(http, fake, "POST", "/message/sendText/demo", {"number": 5, "text": "hola"})
        blank = await send(http, fake, text=" \n")
        path = f"{fake.url}/message/sendText/demo"
        json_type = {**fake.headers, "content-type": "application/json"}
        async with http.post(path, data=b"{", headers=json_type) as response:
            broken = response.status, await response.json()
        async with http.post(path, data=b"{}", headers={**fake.headers, "content-type": "text/plain"}) as response:
            untyped = (await response.json())["response"]["message"]

    assert missing == error(400, "Bad Request", [['instance requires property "text"']])
    assert number == error(400, "Bad Request", [["Invalid format"]])
    assert blank == error(400, "Bad Request", ["Text is required"])
    assert broken[1]["error"] == "Internal Server Error"
    assert untyped == [['instance requires property "number"', 'instance requires property "text"']]


async def test_a_sent_text_of_2_3_is_prepared_and_pending(http: aiohttp.ClientSession) -> None:
    """201; the id is WhatsApp's, and the caller's `messageId` means nothing."""
    async with evolution() as fake:
        status, body = await send(http, fake, messageId="3EB0MINE")
        instance_id = fake.fake.instance(None).id

    message_id, at = body["key"]["id"], body["messageTimestamp"]
    assert status == 201
    assert body == {
        "key": {"remoteJid": ANA_JID, "fromMe": True, "id": message_id},
        "pushName": "Você",
        "status": "PENDING",
        "message": {"conversation": "hola"},
        "contextInfo": None,
        "messageType": "conversation",
        "messageTimestamp": at,
        "instanceId": instance_id,
        "source": "web",
    }
    assert re.fullmatch(r"3EB0[0-9A-F]{18}", message_id)
    assert isinstance(at, int)
    assert [(message.id, message.text) for message in fake.messages(ANA)] == [(message_id, "hola")]


async def test_a_sent_text_of_1_is_the_raw_message(http: aiohttp.ClientSession) -> None:
    """No name, no instance, time as text."""
    async with evolution("1") as fake:
        status, body = await send(http, fake)

    assert status == 201
    assert body.keys() == {"key", "message", "messageTimestamp", "status"}
    assert body["message"] == {"extendedTextMessage": {"text": "hola"}}
    assert fake.received(ANA) == ["hola"]


async def test_the_jid_in_the_answer_may_not_be_the_number_sent(http: aiohttp.ClientSession) -> None:
    """Whoever looks for the number does not find it; the contact is the same however the number is written."""
    async with evolution() as fake:
        _, body = await send(http, fake, "+55 (31) 98888-7777", "uno")
        await send(http, fake, "553188887777", "dos")

    assert body["key"]["remoteJid"] == "553188887777@s.whatsapp.net"
    assert fake.received("5531988887777") == ["uno", "dos"]


async def test_a_message_id_makes_2_4_send_once(http: aiohttp.ClientSession) -> None:
    """Two sends, two answers with that id, one message on the phone. Up to 2.3.7: two messages."""
    async with evolution("2.4") as new, evolution("2.3") as old:
        answers = [await send(http, new, messageId="3EB0" + "A" * 18) for _ in range(2)]
        for _ in range(2):
            await send(http, old, messageId="3EB0" + "A" * 18)

    assert [(status, body["key"]["id"]) for status, body in answers] == [(201, "3EB0" + "A" * 18)] * 2
    assert new.received(ANA) == ["hola"]
    assert old.received(ANA) == ["hola", "hola"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_number_that_is_not_on_whatsapp(dialect: str, http: aiohttp.ClientSession) -> None:
    """400 with an object that says so; a group that is missing is an object that nobody can read."""
    async with evolution(dialect) as fake:
        fake.absent(ANA)
        fake.absent("120363012345678901")
        unknown = await send(http, fake)
        group = await send(http, fake, "120363012345678901@g.us")
        nobody = await send(http, fake, "")
        known_group = await send(http, fake, "120363012345678902@g.us")

    assert unknown == error(400, "Bad Request", [{"jid": ANA_JID, "exists": False, "number": ANA}])
    assert group == error(400, "Bad Request", ["[object Object]"])
    assert nobody[0] == 400
    assert known_group[0] == 201
    assert fake.received(ANA) == []


async def test_a_lid_is_wrongly_unknown_until_2_4(http: aiohttp.ClientSession) -> None:
    """The same message to the phone JID gets through. From 2.4 both reach one phone."""
    lid = lid_of(ANA_JID)
    async with evolution("2.3") as old, evolution("2.4") as new:
        refused, accepted = await send(http, old, lid), await send(http, old, ANA_JID)
        new.incoming(ANA, "buenas")
        taken = await send(http, new, lid)

    assert refused == error(400, "Bad Request", [{"jid": lid, "exists": False, "number": lid}])
    assert (accepted[0], taken[0]) == (201, 201)
    assert new.received(ANA) == ["hola"]


REFUSALS = {name: fault for name, fault in FAULTS.items() if isinstance(fault, Refuse)}


@pytest.mark.parametrize("fault", REFUSALS)
async def test_every_scripted_error_has_evolutions_shape(fault: str, http: aiohttp.ClientSession) -> None:
    """Once, then all is well; only what says so was sent."""
    refusal = REFUSALS[fault]
    async with evolution() as fake:
        fake.fail_next(fault)
        status, body = await send(http, fake)
        received = fake.received(ANA)
        after, _ = await send(http, fake)

    assert (status, body["status"], body["response"]) == (refusal.status, refusal.status, {"message": refusal.message})
    assert received == ["hola"] * refusal.sends
    assert after == 201


def test_the_errors_that_a_client_must_tell_apart_are_all_there() -> None:
    """The same 400 is for good and for a while; so is the 500."""
    assert {name: (fault.status, fault.message) for name, fault in REFUSALS.items()} == {
        "connection-closed": (400, ["Error: Connection Closed"]),
        "timed-out": (400, ["Error: Timed Out"]),
        "timed-out-but-sent": (400, ["Error: Timed Out"]),
        "rate-overlimit": (400, ["Error: rate-overlimit"]),
        "stream-errored": (400, ["Error: Stream Errored (conflict)"]),
        "group-missing": (400, ["[object Object]"]),
        "forbidden": (403, ["Missing global api key", "The global api key must be set"]),
        "server-connection-closed": (500, "Connection Closed"),
        "server-error-connection-closed": (500, ["Error: Connection Closed"]),
        "server-not-loaded": (500, "Cannot read properties of undefined (reading 'textMessage')"),
        "server-error": (500, "Internal Server Error"),
    }


async def test_faults_strike_one_contact_and_spare_another(http: aiohttp.ClientSession) -> None:
    """As often as told, or until healed."""
    async with evolution() as fake:
        fake.fail_next("connection-closed", number=ANA, times=None)
        fake.fail_next("rate-overlimit", times=2)
        statuses = [(await send(http, fake, number))[0] for number in (ANA, BEA, ANA, BEA, BEA, ANA)]
        fake.heal()
        healed, _ = await send(http, fake)

    assert statuses == [400, 400, 400, 400, 201, 400]
    assert healed == 201


async def test_a_send_may_time_out_before_or_after_it_went_out(http: aiohttp.ClientSession) -> None:
    """Nothing is ever answered; only the phone knows."""
    async with evolution() as fake:
        for fault, number in (("hang", ANA), ("sent-then-hang", BEA)):
            fake.fail_next(fault)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await send(http, fake, number)

        assert fake.received(ANA) == []
        assert fake.received(BEA) == ["hola"]


async def test_a_connection_may_break_before_or_after_it_went_out(http: aiohttp.ClientSession) -> None:
    """RST instead of an answer."""
    async with evolution() as fake:
        for fault, number in (("reset", ANA), ("sent-then-reset", BEA)):
            fake.fail_next(fault)
            with pytest.raises(aiohttp.ClientError):
                await send(http, fake, number)

        assert fake.received(ANA) == []
        assert fake.received(BEA) == ["hola"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_delay_holds_up_its_answer_and_nobody_else(dialect: str, http: aiohttp.ClientSession) -> None:
    """`delay` is milliseconds; a later send overtakes, and so arrives first."""
    async with evolution(dialect) as fake:
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        async with asyncio.TaskGroup() as sends:
            late = sends.create_task(send(http, fake, text="late", delay=300))
            await until(lambda: fake.fake.instance(None).subscribed, what="the first one waits")
            early = sends.create_task(send(http, fake, text="early"))
        took_s = loop.time() - started_at

    assert (late.result()[0], early.result()[0]) == (201, 201)
    assert took_s >= 0.3
    assert fake.received(ANA) == ["early", "late"]


async def test_a_slow_send_is_answered_after_all(http: aiohttp.ClientSession) -> None:
    """It goes out when it is answered, or long before."""
    async with evolution() as fake:
        fake.fail_next(Slow(delay_s=0.1))
        fake.fail_next(Slow(delay_s=0.1, sends=True), number=BEA)
        async with asyncio.TaskGroup() as sends:
            slow = sends.create_task(send(http, fake))
            await steady(lambda: not fake.received(ANA), 0.05, what="nothing goes out")
            late = sends.create_task(send(http, fake, BEA))
            await until(lambda: fake.received(BEA), what="the other one goes out")
            assert not late.done()
        assert (slow.result()[0], late.result()[0]) == (201, 201)

    assert fake.received(ANA) == ["hola"]


async def test_each_contact_gets_its_messages_in_the_order_they_were_sent(http: aiohttp.ClientSession) -> None:
    """What a client that keeps order is judged by."""
    async with evolution() as fake:
        for n in range(3):
            for number in (ANA, BEA):
                await send(http, fake, number, f"{n}")

    assert fake.received(ANA) == fake.received(BEA) == ["0", "1", "2"]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_an_instances_state_does_to_sends(dialect: str, http: aiohttp.ClientSession) -> None:
    """Closed or connecting: Connection Closed as a 400. In the database and not loaded: a 500, and no state at all."""
    async with evolution(dialect) as fake:
        seen = []
        for state in ("open", "connecting", "close", None):
            fake.state(state)
            _, shown = await call(http, fake, "GET", "/instance/connectionState/demo")
            status, answer = await send(http, fake)
            seen.append((shown["instance"], status, answer.get("response", {}).get("message")))

    closed = ["Error: Connection Closed"]
    assert seen == [
        ({"instanceName": "demo", "state": "open"}, 201, None),
        ({"instanceName": "demo", "state": "connecting"}, 400, closed),
        ({"instanceName": "demo", "state": "close"}, 400, closed),
        ({"instanceName": "demo"}, 500, "Cannot read properties of undefined (reading 'textMessage')"),
    ]


async def test_open_can_be_a_lie(http: aiohttp.ClientSession) -> None:
    """The state says open while every send fails."""
    async with evolution() as fake:
        fake.fail_next("connection-closed", times=None)
        status, _ = await send(http, fake)
        _, shown = await call(http, fake, "GET", "/instance/connectionState/demo")

    assert (status, shown["instance"]["state"]) == (400, "open")


async def test_connect_loads_an_instance_and_shows_a_code_to_one_that_was_logged_out(
    http: aiohttp.ClientSession,
) -> None:
    """The code is scanned by `fake.state("open")`."""
    async with evolution() as fake:
        fake.state(None)
        loaded = await call(http, fake, "GET", "/instance/connect/demo")
        restarted = await call(http, fake, "POST", "/instance/restart/demo")
        fake.state("close")
        _, code = await call(http, fake, "GET", "/instance/connect/demo")
        _, shown = await call(http, fake, "GET", "/instance/connectionState/demo")

    assert loaded == restarted == (200, {"instance": {"instanceName": "demo", "state": "open"}})
    assert code["code"].startswith("2@")
    assert shown["instance"]["state"] == "connecting"


async def test_2_4_wants_its_license_first(http: aiohttp.ClientSession) -> None:
    """503 to everything, in a shape of its own, until somebody activates it. The others know no license."""
    async with evolution("2.4", activated=False) as fake, evolution("2.3", activated=False) as old:
        sent = await send(http, fake)
        state = await call(http, fake, "GET", "/instance/connectionState/demo")
        activated, _ = await call(http, fake, "POST", "/fake/activate", {})
        after, _ = await send(http, fake)
        without, _ = await send(http, old)

    assert sent == state
    assert (sent[0], sent[1]["error"], sent[1]["code"]) == (503, "service not activated", "LICENSE_REQUIRED")
    assert "response" not in sent[1]
    assert (activated, after, without) == (201, 201, 201)


async def test_the_query_string_overwrites_the_instance_after_the_guards(http: aiohttp.ClientSession) -> None:
    """Who forwards a caller's query string lets the caller send as anybody."""
    async with evolution(instances=("demo", "other")) as fake:
        path = "/message/sendText/demo?instanceName="
        await call(http, fake, "POST", f"{path}other", text_body(fake, ANA, "hola"))
        missing = await call(http, fake, "POST", f"{path}x", text_body(fake, ANA, "hola"))

    assert [message.instance for message in fake.messages(ANA)] == ["other"]
    assert missing[0] == 500


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_whatsapp_numbers_says_who_is_there(dialect: str, http: aiohttp.ClientSession) -> None:
    """With the JID to send to."""
    async with evolution(dialect) as fake:
        fake.absent(BEA)
        status, found = await call(http, fake, "POST", "/chat/whatsappNumbers/demo", {"numbers": [ANA, BEA]})

    lid = {"lid": lid_of(ANA_JID)} if dialect == "2.4" else {}
    assert status == 200
    assert found == [
        {"jid": ANA_JID, "exists": True, "number": ANA, **lid},
        {"jid": f"{BEA}@s.whatsapp.net", "exists": False, "number": BEA},
    ]


async def test_instances_are_made_once_and_listed(http: aiohttp.ClientSession) -> None:
    """403 for a name in use, and for a key that is not the global one; both are arrays."""
    async with evolution() as fake:
        token = fake.fake.instance(None).token
        used = await call(http, fake, "POST", "/instance/create", {"instanceName": "demo"})
        token_only = await call(http, fake, "POST", "/instance/create", {"instanceName": "new"}, apikey=token)
        created, _ = await call(http, fake, "POST", "/instance/create", {"instanceName": "new"})
        _, listed = await call(http, fake, "GET", "/instance/fetchInstances?instanceName=new")

    assert used == error(403, "Forbidden", ['This name "demo" is already in use.'])
    assert token_only == error(403, "Forbidden", ["Missing global api key", "The global api key must be set"])
    assert created == 201
    assert [(each["name"], each["connectionStatus"]) for each in listed] == [("new", "open")]


async def test_people_play_with_it_by_http_and_are_told_what_they_misspelt(http: aiohttp.ClientSession) -> None:
    """The routes under /fake need no key."""
    async with evolution() as fake:
        anyone = {"apikey": ""}
        written, said = await call(http, fake, "POST", "/fake/incoming", {"from": ANA, "text": "hola"}, **anyone)
        failing, _ = await call(http, fake, "POST", "/fake/fail", {"fault": "timed-out", "number": ANA}, **anyone)
        refused, _ = await send(http, fake)
        await send(http, fake)
        _, received = await call(http, fake, "GET", f"/fake/received?number={ANA}", **anyone)
        wrong = [
            await call(http, fake, "POST", path, body, **anyone)
            for path, body in (
                ("/fake/incoming", {"from": ANA, "txt": "hola"}),
                ("/fake/incoming", {"from": ANA, "kind": "smell"}),
                ("/fake/incoming", {"from": ANA, "instance": "x"}),
                ("/fake/incoming", {"from": "1-2@g.us"}),
                ("/fake/fail", {"fault": "x"}),
                ("/fake/state", {"state": "ajar"}),
            )
        ]

    assert (written, failing, refused) == (201, 201, 400)
    assert said["instance"] == "demo"
    assert [message["text"] for message in received[ANA_JID]] == ["hola"]
    assert [status for status, _ in wrong] == [400] * len(wrong)
    assert all(body["error"] for _, body in wrong)


async def test_no_key_is_ever_told(http: aiohttp.ClientSession) -> None:
    """What the command prints comes from these notes."""
    async with evolution(key="canary-key", webhook="http://canary:canary@127.0.0.1:9/x?token=canary") as fake:
        fake.incoming(ANA, "hola")
        await send(http, fake)
        await send(http, fake, text="")
        await call(http, fake, "GET", "/instance/fetchInstances?canary=1")
        await call(http, fake, "GET", "/nowhere?apikey=canary")
        await fake.settled()
        token = fake.fake.instance(None).token

    told = " ".join(str(note) for note in fake.notes)
    assert "webhook" in told
    assert "canary" not in told
    assert token not in told
