"""What became of a send, by what Evolution says. The bodies are those of the facts about Evolution, section 2.1."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.evolution_answers import (
    EXCERPT_CHARACTERS_MAX,
    Rejected,
    SendOutcome,
    Sent,
    Silence,
    Trouble,
    Uncertain,
    WrongDialect,
    confirmed,
    judge,
)
from actors.core.evolution_send import Dialect
from actors.core.evolution_server import Answer, InstanceState, Paused
from tests.unit.test_foreign_json import JSON

KEY = {"remoteJid": "5215512345678@s.whatsapp.net", "fromMe": True, "id": "3EB0A1B2C3D4E5F6071829"}
ACCEPTED = {
    "key": KEY,
    "pushName": "Você",
    "status": "PENDING",
    "message": {"conversation": "hola"},
    "contextInfo": None,
    "messageType": "conversation",
    "messageTimestamp": 1717689097,
    "instanceId": "7d9f1c1e-6c1f-4a55-8a68-0f5a6c3a2b1d",
    "source": "unknown",
}
ACCEPTED_BY_V1 = {
    "key": KEY,
    "message": {"extendedTextMessage": {"text": "hola"}},
    "messageTimestamp": "1717689097",
    "status": "PENDING",
}
LICENSE = {
    "error": "service not activated",
    "code": "LICENSE_REQUIRED",
    "register_url": "https://license.example/register?token=s3cr3t-registration",
    "instance_id": "0f0e0d0c-0b0a-0908-0706-050403020100",
    "docs_url": "https://docs.example",
    "message": "Connection Closed until the service is activated",
}
STATUSES = st.integers(300, 599) | st.sampled_from([400, 401, 403, 404, 429, 500, 502, 503, 504])


def error(status: int, message: object, reason: str = "Bad Request") -> Answer:
    """An error as Evolution's middleware writes it."""
    body = {"status": status, "error": reason, "response": {"message": message}}
    return Answer(status, json.dumps(body).encode())


def answered(status: int, body: object) -> Answer:
    """An answer with this JSON."""
    return Answer(status, json.dumps(body).encode())


def kind_of(outcome: SendOutcome) -> tuple[type, str]:
    """What matters of an outcome beside its words."""
    return type(outcome), getattr(outcome, "kind", "")


@pytest.mark.parametrize("status", [200, 201])
@pytest.mark.parametrize("body", [ACCEPTED, ACCEPTED_BY_V1, {"key": {"id": KEY["id"], "remoteJid": KEY["remoteJid"]}}])
def test_an_accepted_text(status: int, body: object) -> None:
    """Known from then on by `key.id`; the JID is WhatsApp's, whatever number was sent."""
    assert judge(answered(status, body), "v2") == Sent(str(KEY["id"]), str(KEY["remoteJid"]))


@pytest.mark.parametrize(
    "body", [b"", b"<html>Welcome</html>", b"{}", b'{"key":{"id":""}}', b'{"key":{"id":7}}', b"[]"]
)
def test_a_success_without_an_id_is_no_success(body: bytes) -> None:
    """A login page answers 200, too."""
    assert judge(Answer(201, body), "v2") == Uncertain("answered 201 without a message id")


NOT_ON_WHATSAPP = [{"jid": "5511987654321@s.whatsapp.net", "exists": False, "number": "5511987654321"}]
LID_NOT_FOUND = [{"jid": "103899771998284@lid", "exists": False, "number": "103899771998284@lid"}]
ONLY_NUMBER_IS_LID = [{"jid": "1", "exists": False, "number": "103899771998284@lid"}]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, [['instance requires property "number"']], "validation"),
        (400, [["Invalid format"]], "validation"),
        (400, ["Text is required"], "empty_text"),
        (400, NOT_ON_WHATSAPP, "not_on_whatsapp"),
        (400, LID_NOT_FOUND, "lid_not_found"),
        (400, ONLY_NUMBER_IS_LID, "lid_not_found"),
        (400, ["[object Object]"], "refused"),
        (404, ['The "x" instance does not exist'], "unknown_instance"),
        (404, ["Cannot POST /message/sendText/x"], "no_route"),
        (401, "Unauthorized", "unauthorized"),
        (403, ['This name "x" is already in use.'], "forbidden"),
        (403, ["Missing global api key"], "forbidden"),
        (400, ["Owned media must be a url or base64"], "refused"),
        *((400, [], "refused"), (400, None, "refused"), (422, {}, "refused"), (413, 7, "refused")),
        *((301, None, "refused"), (308, "Moved", "refused"), (404, None, "no_route")),
    ],
)
def test_what_is_final(status: int, message: object, kind: str) -> None:
    """The same request would be refused again."""
    assert kind_of(judge(error(status, message), "v2")) == (Rejected, kind)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, ["Error: Connection Closed"], "closed"),
        (500, ["Error: Connection Closed"], "closed"),  # #1772
        (500, "Connection Closed", "closed"),  # #1286
        *((400, ["Error: Connection Terminated"], "closed"), (400, ["Error: Connection Lost"], "closed")),
        (400, ["Error: Timed Out"], "timed_out"),
        (400, ["Error: rate-overlimit"], "rate_limited"),
        (400, ["Error: Stream Errored (restart required)"], "other"),
        (400, ["Error: connect ECONNREFUSED 10.0.0.4:5432"], "other"),
        (400, ["Error: WebSocket was closed before the connection was established"], "other"),
        (500, "Cannot read properties of undefined (reading 'textMessage')", "not_loaded"),  # #1412
        (400, ["TypeError: Cannot read properties of undefined (reading 'id')"], "not_loaded"),
        *((500, "Internal server error", "other"), (500, None, "other"), (502, None, "other"), (599, [], "other")),
        (503, ["busy"], "other"),
        *((429, None, "other"), (408, None, "other"), (425, None, "other")),
    ],
)
def test_what_is_temporary(status: int, message: object, kind: str) -> None:
    """Nothing was sent: a 400 as well as a 500, because Evolution wraps whatever a send throws as a 400."""
    assert kind_of(judge(error(status, message), "v2")) == (Trouble, kind)


@pytest.mark.parametrize("status", [400, 404, 500])
def test_the_status_does_not_decide(status: int) -> None:
    """What is said does."""
    assert kind_of(judge(error(status, ["Error: Connection Closed"]), "v2")) == (Trouble, "closed")
    assert kind_of(judge(error(status, ["Text is required"]), "v2")) == (Rejected, "empty_text")
    assert kind_of(judge(error(status, NOT_ON_WHATSAPP), "v2")) == (Rejected, "not_on_whatsapp")
    assert kind_of(judge(error(status, [['instance requires property "textMessage"']]), "v2")) == (WrongDialect, "")


@pytest.mark.parametrize(
    ("sent_as", "message", "outcome"),
    [
        ("v2", [['instance requires property "textMessage"']], WrongDialect("v1")),
        ("v1", [['instance requires property "text"']], WrongDialect("v2")),
        (
            "v2",
            [['instance requires property "number"', 'instance requires property "textMessage"']],
            WrongDialect("v1"),
        ),
    ],
)
def test_the_dialect_is_found_by_what_is_missing(sent_as: Dialect, message: object, outcome: SendOutcome) -> None:
    """#2570; evolution-client-python #6."""
    assert judge(error(400, message), sent_as) == outcome


@pytest.mark.parametrize(
    ("sent_as", "name"), [("v1", "textMessage"), ("v2", "text"), ("v1", "number"), ("v2", "textMessages")]
)
def test_a_server_is_not_asked_again_in_the_dialect_it_refused(sent_as: Dialect, name: str) -> None:
    """Otherwise one that wants what it gets would be asked for ever."""
    outcome = judge(error(400, [[f'instance requires property "{name}"']]), sent_as)
    assert kind_of(outcome) == (Rejected, "validation")


@pytest.mark.parametrize("status", [503, 403, 200 + 300])
def test_a_missing_license_pauses(status: int) -> None:
    """By its code, and without the address at which it is registered."""
    outcome = judge(answered(status, LICENSE), "v2")
    assert outcome == Paused("license", "Evolution's license has to be activated")


@pytest.mark.parametrize(
    ("heard", "outcome"),
    [
        (Silence(written=False, error="connection refused"), Trouble("unreachable", "connection refused")),
        (Silence(written=True, error="timeout"), Uncertain("no answer: timeout")),
        (Silence(written=True, error="connection lost"), Uncertain("no answer: connection lost")),
        (Answer(504, b"<html>504</html>"), Uncertain("a proxy before Evolution gave up waiting (504)")),
        (Answer(524, b""), Uncertain("a proxy before Evolution gave up waiting (524)")),
        (error(504, ["Error: Timed Out"]), Trouble("timed_out", "Evolution could not send (504): Error: Timed Out")),
    ],
)
def test_what_was_perhaps_sent(heard: Answer | Silence, outcome: SendOutcome) -> None:
    """From the first byte of the request on, silence proves nothing. What Evolution itself says does."""
    assert judge(heard, "v2") == outcome


@pytest.mark.parametrize("body", [b"<html>socket connection closed</html>", b"\xff", b"", b"null", b"{}", b'{"a":1}'])
def test_a_page_is_judged_by_its_status(body: bytes) -> None:
    """What a proxy writes into it means nothing."""
    assert kind_of(judge(Answer(400, body), "v2")) == (Rejected, "refused")
    assert kind_of(judge(Answer(502, body), "v2")) == (Trouble, "other")


@pytest.mark.parametrize("body", [{"message": ["Error: Timed Out"]}, {"error": "Timed Out"}, "Timed Out"])
def test_what_is_said_elsewhere(body: object) -> None:
    """By a fork, or by something before Evolution that speaks JSON."""
    assert kind_of(judge(answered(400, body), "v2")) == (Trouble, "timed_out")


@pytest.mark.parametrize(
    ("state", "kind", "cause"),
    [
        *(("close", "closed", "closed"), ("refused", "closed", "closed"), ("connecting", "closed", "closed")),
        *(("not_loaded", "not_loaded", "not_loaded"), ("not_loaded", "closed", "not_loaded")),
        ("close", "not_loaded", "closed"),
        *(("open", "closed", None), ("unknown", "closed", None), (None, "closed", None)),
        *(("close", "rate_limited", "closed"), ("close", "other", "closed"), ("open", "other", None)),
    ],
)
def test_a_closed_instance_pauses(state: InstanceState | None, kind: str, cause: str | None) -> None:
    """Once its state says so, whatever the send said; an open one that says "closed" is tried again (#2403)."""
    trouble = Trouble(kind, "Connection Closed")  # type: ignore[arg-type]  # pytest's parameters are plain strings
    outcome = confirmed(trouble, state)
    assert outcome == trouble if cause is None else isinstance(outcome, Paused) and outcome.cause == cause


def test_a_reason_is_one_short_line() -> None:
    """Enough to know what it was about."""
    assert judge(error(400, ["Error: Connection Closed"]), "v2") == Trouble(
        "closed", "Evolution could not send (400): Error: Connection Closed"
    )
    long = judge(error(400, ["bad\n\tthing \x00" + "word " * 5000]), "v2")
    assert isinstance(long, Rejected)
    assert long.reason.startswith("Evolution refused (400): bad thing word word")
    assert long.reason.isprintable()
    assert len(long.reason) < EXCERPT_CHARACTERS_MAX + 40


SECRETS = st.uuids().map(lambda each: str(each).upper()) | st.text(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=16, max_size=80
)


@given(secret=SECRETS, before=st.text(max_size=700), status=STATUSES, shape=st.integers(0, 3))
def test_no_reason_holds_a_secret(secret: str, before: str, status: int, shape: int) -> None:
    """Not a key, nor half of one at the place where an excerpt is cut."""
    said = f"{before} {secret} after"
    body: object = [said, [[said]], {"message": said, "apikey": secret}, said][shape]
    outcome = judge(error(status, body), "v2")
    assert secret[:8] not in getattr(outcome, "reason", "") or secret[:8] in before


def test_a_key_at_the_end_of_what_is_searched() -> None:
    """A long text shrinks to little when it is all keys, and what comes last is still no half of one."""
    key = "429683C4C977415CAAFCCE10F7D57E11"
    outcome = judge(error(400, [" ".join([key] * 40)]), "v2")
    assert isinstance(outcome, Rejected)
    assert set(outcome.reason.removeprefix("Evolution refused (400): ")) == {"*", " "}


@pytest.mark.parametrize(
    "text",
    [
        "connect postgresql://evo:hunter2@db:5432/evo",
        "Invalid `apikey: hunter2`",
        "authorization: Bearer hunter2",
        'bad header "apikey":"hunter2"',
        "DATABASE_PASSWORD=hunter2",
        "number 5215512345678 hunter2-0123456789",
    ],
)
def test_what_looks_like_a_secret_is_not_repeated(text: str) -> None:
    """Errors of libraries name their connections; a short password is known by the word before it."""
    outcome = judge(error(400, [text]), "v2")
    assert isinstance(outcome, Rejected)
    assert "hunter2" not in outcome.reason
    assert "5215512345678" not in outcome.reason


@given(
    status=st.integers(100, 599),
    body=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()),
    sent_as=st.sampled_from(["v1", "v2"]),
)
def test_any_answer_has_one_outcome(status: int, body: bytes, sent_as: Dialect) -> None:
    """Sent only for a success with an id; nothing raises."""
    outcome = judge(Answer(status, body), sent_as)
    if isinstance(outcome, Sent):
        assert status // 100 == 2
    elif status // 100 == 2:
        assert isinstance(outcome, Uncertain)


@given(status=STATUSES, message=JSON | st.lists(JSON, max_size=3), sent_as=st.sampled_from(["v1", "v2"]))
def test_any_message_has_one_outcome(status: int, message: object, sent_as: Dialect) -> None:
    """In Evolution's own shape, too; it is never taken for sent or for perhaps sent."""
    outcome = judge(error(status, message), sent_as)
    assert isinstance(outcome, Rejected | Trouble | WrongDialect) or message is None
