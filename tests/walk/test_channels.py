"""Channels over HTTP: publish, list, count, and read what was said."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from uuid import uuid4

import pytest

from tests.support.channel_store import foreigner
from tests.support.client import Client, is_problem, quoted
from tests.support.until import until
from tests.support.valkey import ValkeyServer

PUBLISH = "/api/queue/publish"
CHANNELS = "/api/queue/channels"
FIELDS_REQUIRED = 'Se requieren los campos "channel" y "message"'


@pytest.fixture(name="channel")
def fixture_channel() -> str:
    """A channel that nobody else uses, whose name is hard on paths and patterns."""
    return f"c-{uuid4().hex}/ñ: 50% & [x]"


async def published(client: Client, channel: str, message: object, **headers: str) -> dict[str, object]:
    """Publish; gives the answer."""
    answer = await client.call("POST", PUBLISH, {"channel": channel, "message": message}, headers=headers)
    assert answer.status == 200, answer.body
    found: dict[str, object] = answer.json
    return found


async def history(client: Client, channel: str, query: str = "") -> dict[str, object]:
    """Read what a channel has."""
    answer = await client.call("GET", f"/api/queue/history/{quoted(channel)}{query}")
    assert answer.status == 200, answer.body
    found: dict[str, object] = answer.json
    return found


async def test_messages_are_numbered_and_kept(client: Client, channel: str) -> None:
    """Any JSON is a message; its offset is one more than that of the one before."""
    messages = [None, True, 0, "hola", [1, {"a": "ñ"}], {"event": "update"}]
    answers = [await published(client, channel, message) for message in messages]
    assert [answer["offset"] for answer in answers] == [1, 2, 3, 4, 5, 6]
    assert {answer["message"] for answer in answers} == {"Mensaje publicado"}
    assert {answer["channel"] for answer in answers} == {channel}
    assert {answer["subscribers"] for answer in answers} == {0}
    found = await history(client, channel)
    assert found["offset"] == 6
    assert found["channel"] == channel
    assert found["epoch"] == answers[0]["epoch"]
    assert found["messages"] == [
        {"id": answer["id"], "offset": answer["offset"], "data": message}
        for answer, message in zip(answers, messages, strict=True)
    ]


async def test_a_history_is_paged(client: Client, channel: str) -> None:
    """By the offset of what is known already."""
    for number in range(5):
        await published(client, channel, number)
    page = await history(client, channel, "?limit=2")
    assert [each["data"] for each in page["messages"]] == [0, 1]  # type: ignore[attr-defined]  # JSON
    page = await history(client, channel, "?limit=2&since=2")
    assert [each["data"] for each in page["messages"]] == [2, 3]  # type: ignore[attr-defined]  # JSON
    assert (await history(client, channel, "?since=5"))["messages"] == []
    assert (await history(client, channel, "?since=99"))["messages"] == []


async def test_a_channel_that_was_never_used_is_empty(client: Client, channel: str) -> None:
    """Nor does a look at it make it one."""
    for _ in range(2):
        assert await history(client, channel) == {"channel": channel, "epoch": "", "offset": 0, "messages": []}


async def test_a_message_without_channel_goes_to_the_default_one(client: Client) -> None:
    """The setting QUEUE_CHANNEL."""
    answer = await client.call("POST", PUBLISH, {"message": 1})
    assert answer.status == 200
    assert answer.json["channel"] == "inventarios_updates"


async def test_other_redis_clients_hear_the_plain_json(client: Client, channel: str, walk_store: ValkeyServer) -> None:
    """They are counted, and listed by pattern."""
    pattern = f"{channel[:10]}*"
    with foreigner(walk_store, to=channel) as next_message:
        count = await client.call("GET", f"/api/queue/subscribers/{quoted(channel)}")
        assert count.json == {"channel": channel, "subscribers": 1}
        listed = await client.call("GET", f"{CHANNELS}?pattern={quoted(pattern)}")
        assert listed.json == {
            "pattern": pattern,
            "count": 1,
            "channels": [{"channel": channel, "subscribers": 1}],
            "cursor": None,
        }
        answer = await published(client, channel, {"a": ["ñ", 1]})
        assert answer["subscribers"] == 1
        assert await asyncio.to_thread(next_message) == '{"a":["ñ",1]}'.encode()

    async def gone() -> bool:
        listed = await client.call("GET", f"{CHANNELS}?pattern={quoted(pattern)}")
        return not listed.json["channels"]

    await until(gone, what="nobody listens")


async def test_the_routers_own_channels_are_not_listed(client: Client) -> None:
    """Neither its bell nor what nodes tell each other."""
    listed = await client.call("GET", CHANNELS)
    assert listed.status == 200
    assert not [each for each in listed.json["channels"] if each["channel"].startswith("buzon:")]


async def test_a_list_of_channels_is_paged(client: Client, walk_store: ValkeyServer) -> None:
    """Every channel once, in the order of their names."""
    prefix = f"p-{uuid4().hex}"
    names = sorted(f"{prefix}-{number}" for number in range(7))

    with ExitStack() as listening:
        for name in names:
            listening.enter_context(foreigner(walk_store, to=name))
        pages: list[list[str]] = []
        cursor = ""
        while cursor is not None:
            found = (
                await client.call("GET", f"{CHANNELS}?pattern={prefix}*&limit=3{cursor and f'&cursor={cursor}'}")
            ).json
            pages.append([each["channel"] for each in found["channels"]])
            assert found["count"] == len(pages[-1])
            cursor = found["cursor"]
        assert pages == [names[:3], names[3:6], names[6:]]


async def test_an_idempotency_key_publishes_once(client: Client, channel: str) -> None:
    """The same key and body: the first answer again. Another body: 409, and nothing is published."""
    headers = {"Idempotency-Key": uuid4().hex}
    body = {"channel": channel, "message": 1}
    first = await client.call("POST", PUBLISH, body, headers=headers)
    again = await client.call("POST", PUBLISH, body, headers=headers)
    assert again.body == first.body
    assert again.headers["Idempotency-Replayed"] == "true"
    other = await client.call("POST", PUBLISH, {"channel": channel, "message": 2}, headers=headers)
    assert is_problem(other, 409)
    assert (await history(client, channel))["offset"] == 1


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"channel": "x"}, 400, "$.message"),
        ({}, 400, "$.message"),
        ({"channel": 5, "message": 1}, 400, "$.channel"),
        ({"channel": "", "message": 1}, 400, "$.channel"),
        ({"channel": "ñ" * 128, "message": 1}, 400, "$.channel"),
        ({"channel": "buzon:bell:x", "message": 1}, 400, "$.channel"),
        ({"channel": "$deliveries", "message": 1}, 403, "$.channel"),
        ({"channel": "$mine", "message": 1}, 403, "$.channel"),
        ([], 400, "$"),
    ],
)
async def test_what_is_wrong_is_published_to_nobody(client: Client, body: object, status: int, pointer: str) -> None:
    """The answer names the field; without a message it says so in the words of old."""
    answer = await client.call("POST", PUBLISH, body)
    assert is_problem(answer, status)
    assert answer.json["pointer"] == pointer
    if pointer == "$.message":
        assert answer.json["error"] == answer.json["message"] == FIELDS_REQUIRED


@pytest.mark.parametrize(
    "body", [b'{"message":NaN}', b'{"message":1e400x}', b'{"message":%b}' % (b"[" * 40), b"{", b""]
)
async def test_what_is_no_json_is_refused(client: Client, body: bytes) -> None:
    """As everywhere."""
    assert is_problem(await client.call("POST", PUBLISH, body, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        (f"{CHANNELS}?pattern={'*' * 17}", "pattern"),
        (f"{CHANNELS}?limit=0", "limit"),
        (f"{CHANNELS}?cursor=!", "cursor"),
        ("/api/queue/subscribers/buzon:x", "channel"),
        ("/api/queue/history/x?since=-1", "since"),
        ("/api/queue/history/x?since=a", "since"),
        ("/api/queue/history/x?limit=1001", "limit"),
        (f"/api/queue/history/{'x' * 256}", "channel"),
        ("/api/queue/history/%FF", "channel"),
    ],
)
async def test_wrong_questions_name_the_parameter(client: Client, path: str, pointer: str) -> None:
    """Like everywhere."""
    assert is_problem(await client.call("GET", path), 400, pointer=pointer)
