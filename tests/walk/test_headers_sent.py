"""The headers of a delivery: the caller's and ours, on every attempt."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from actors.core import trace
from tests.support.client import MESSAGE, Client, is_problem, message
from tests.support.sink import Reply, Sink

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"


async def test_all_headers_of_a_first_attempt(client: Client, sink: Sink, key: str) -> None:
    """The caller's, then the delivery's own; nothing that the client sent to us leaks through."""
    taken = await client.send(
        sink.url("/hook?a=1"),
        key,
        {},
        max_size=1,
        webhook={"method": "PATCH", "headers": {"Authorization": "Bearer t", "X-Mine": "1"}, "secret": SECRET},
        headers={"traceparent": TRACEPARENT, "X-Request-ID": "r-1", "Cookie": "a=b", "X-Not-Yours": "1"},
    )
    (request,) = await sink.wait_for_requests(1)
    (delivery,) = await client.until_status(key, "delivered")

    assert taken["flushed"]
    assert (request.method, request.path) == ("PATCH", "/hook?a=1")
    names = [name.lower() for name, _ in request.raw_headers]
    assert len(names) == len(set(names))
    expected = {"host", "accept", "accept-encoding", "content-length", "content-type", "user-agent"}
    expected |= {"authorization", "x-mine", "webhook-id", "webhook-timestamp", "webhook-signature"}
    expected |= {"x-buffer-key", "x-buffer-size", "x-buffer-reason", "x-attempt", "traceparent"}
    assert set(names) == expected
    headers = request.headers
    assert (headers["authorization"], headers["x-mine"]) == ("Bearer t", "1")
    assert headers["content-type"] == "application/json"
    assert (headers["webhook-id"], headers["x-buffer-key"]) == (delivery["id"], key)
    assert (headers["x-buffer-size"], headers["x-buffer-reason"], headers["x-attempt"]) == ("1", "size", "1")
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 5


@pytest.mark.parametrize(
    "odd", ["a b/c%2F:@?&=+#", "ñandú 😀", "a\r\nX-Evil: 1", "\x00\x1b[31m\u2028", "%", "~-._", "\U0010ffff"]
)
async def test_the_buffers_key_is_percent_encoded(client: Client, sink: Sink, key: str, odd: str) -> None:
    """UTF-8, everything but letters, digits and `-._~`: the receiver decodes exactly the key."""
    await client.send(sink.url(), key + odd, {}, max_size=1)

    (request,) = await sink.wait_for_requests(1)

    assert request.headers["x-buffer-key"] == quote(key + odd, safe="")
    assert "x-evil" not in request.headers


async def test_the_reference_library_verifies_every_attempt(client: Client, sink: Sink, key: str) -> None:
    """Standard Webhooks: the signature covers id, timestamp of the attempt and the very bytes; any change breaks it."""
    sink.next(Reply(status=500))
    await client.send(sink.url(), key, {"text": "ñ 😀"}, max_size=1, webhook={"secret": SECRET})

    first, second = await sink.wait_for_requests(2)

    for request in (first, second):
        assert Webhook(SECRET).verify(request.body, request.headers)["messages"][0]["payload"] == {"text": "ñ 😀"}
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(request.body + b" ", request.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook("whsec_" + "A" * 32).verify(request.body, request.headers)
    signed = datetime.fromtimestamp(int(first.headers["webhook-timestamp"]), UTC)
    assert (
        Webhook(SECRET).sign(first.headers["webhook-id"], signed, first.body.decode())
        == (first.headers["webhook-signature"])
    )


@pytest.mark.parametrize("secret", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwYQ"])
async def test_a_secret_may_lack_its_marker_or_padding(client: Client, sink: Sink, key: str, secret: str) -> None:
    """As the reference library reads it."""
    await client.send(sink.url(), key, {}, max_size=1, webhook={"secret": secret})

    (request,) = await sink.wait_for_requests(1)

    assert Webhook(secret).verify(request.body, request.headers)


async def test_without_a_secret_nothing_is_signed(client: Client, sink: Sink, key: str) -> None:
    """The other headers are there all the same."""
    await client.send(sink.url(), key, {}, max_size=1)

    (request,) = await sink.wait_for_requests(1)

    assert "webhook-signature" not in request.headers
    assert {"webhook-id", "webhook-timestamp"} <= request.headers.keys()


async def test_the_trace_is_continued(client: Client, sink: Sink, key: str) -> None:
    """The newest message's trace goes on, at a position of ours, and stays the same over retries."""
    sink.next(Reply(status=500))
    await client.send(sink.url(), key, {}, max_size=2, headers={"traceparent": TRACEPARENT.replace("0af", "fff")})
    await client.send(sink.url(), key, {}, max_size=2, headers={"traceparent": TRACEPARENT})

    requests = await sink.wait_for_requests(2)

    positions = [trace.parse(request.headers["traceparent"]) for request in requests]
    assert positions[0] is not None
    assert (positions[0].trace_id, positions[0].flags) == (TRACE_ID, 1)
    assert positions[0].span_id != "b7ad6b7169203331"
    assert positions[1] == positions[0]


@pytest.mark.parametrize("given", [None, "garbage", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
async def test_a_delivery_without_a_trace_starts_one(client: Client, sink: Sink, key: str, given: str | None) -> None:
    """`traceparent` is always sent; what cannot be understood is as if it were not there."""
    sink.next(Reply(status=500))
    headers = {} if given is None else {"traceparent": given}
    await client.send(sink.url(), key, {}, max_size=1, headers=headers)

    first, second = await sink.wait_for_requests(2)

    assert trace.parse(first.headers["traceparent"]) is not None
    assert second.headers["traceparent"] == first.headers["traceparent"]


async def test_the_callers_content_type_and_agent_stand(client: Client, sink: Sink, key: str) -> None:
    """Ours only fill in."""
    headers = {"content-type": "application/vnd.mine+json", "User-Agent": "mine/1"}
    await client.send(sink.url(), key, {}, max_size=1, webhook={"headers": headers})

    (request,) = await sink.wait_for_requests(1)

    assert (request.headers["content-type"], request.headers["user-agent"]) == ("application/vnd.mine+json", "mine/1")


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "Connection", "Cookie", "webhook-id", "X-Buffer-Key"]
)
async def test_headers_that_are_ours_are_refused(client: Client, sink: Sink, key: str, name: str) -> None:
    """A second opinion on them would be request smuggling, or a lie about the delivery."""
    body = message(sink.url(), key, {}, webhook={"headers": {name: "1"}})

    answer = await client.call("POST", MESSAGE, body)

    assert is_problem(answer, 400, pointer=f"$.webhook.headers.{name}")
