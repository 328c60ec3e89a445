"""Bodies that are meant to hurt: never a 5xx, nothing changed, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from tests.support.client import DELIVERIES, MESSAGE, Client, is_problem, raw_connection, raw_exchange
from tests.support.node import NodeProcess
from tests.support.sink import Sink

MIB = 1024 * 1024
STALL_S = 0.25
"""Generous: the machine is shared. A megabyte of brackets took a careless decoder seconds."""

PAYLOADS: dict[str, bytes] = {
    "nan": b'{"n":NaN}',
    "infinity": b'{"n":-Infinity}',
    "2^64": b'{"n":18446744073709551616}',
    "int64+1": b'{"n":9223372036854775808}',
    "int64-1": b'{"n":-9223372036854775809}',
    "5000 digits": b'{"n":' + b"7" * 5000 + b"}",
    "1e999": b'{"n":1e999}',
    "leading zero": b'{"n":01}',
    "plus": b'{"n":+1}',
    "hexadecimal": b'{"n":0x1}',
    "bare word": b'{"n":nul}',
    "single quotes": b"{'n':1}",
    "trailing comma": b'{"n":1,}',
    "comment": b'{"n":1/**/}',
    "unclosed": b'{"n":1',
    "two values": b'{"n":1} {"n":2}',
    "raw NUL": b'{"n":"\x00"}',
    "raw line end": b'{"n":"\n"}',
    "bad escape": b'{"n":"\\x41"}',
    "half an escape": b'{"n":"\\u12"}',
    "lone surrogate": b'{"n":"\\ud800"}',
    "lone low surrogate": b'{"n":"\\udc00x"}',
    "surrogates swapped": b'{"n":"\\udc00\\ud800"}',
    "bad UTF-8": b'{"n":"\xff"}',
    "overlong UTF-8": b'{"n":"\xc0\x80"}',
    "surrogate in UTF-8": b'{"n":"\xed\xa0\x80"}',
    "half a character": b'{"n":"\xf0\x9f"}',
    "bad UTF-8 in a key": b'{"\xff":1}',
    "32 deep in itself": b'{"n":' + b"[" * 32 + b"]" * 32 + b"}",
    "100k deep": b"[" * 100_000 + b"]" * 100_000,
    "100k deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
}
BODIES: dict[str, bytes] = {
    "empty": b"",
    "space": b"  ",
    "BOM": b'\xef\xbb\xbf{"webhook":{}}',
    "UTF-16": '{"webhook":{}}'.encode("utf-16"),
    "UTF-32": '{"webhook":{}}'.encode("utf-32"),
    "NUL": b"\x00",
    "null": b"null",
    "text": b'"text"',
    "number": b"1",
    "list": b"[]",
    "1 MB of [": b"[" * MIB,
    '1 MB of {"a":': (b'{"a":' * (MIB // 5)),
    "1 MB of quotes": b'"' * MIB,
    "1 MB of backslashes": b'{"a":"' + b"\\" * (MIB - 8) + b'"}',
    "1 MB of digits": b"7" * MIB,
    "1 MB of minus": b"-" * MIB,
    "1 MB of spaces": b" " * MIB,
    "1 MB of \\ud800": b'{"a":"' + b"\\ud800" * (MIB // 6 - 2) + b'"}',
    "1 MB of numbers": b"[" + b"9223372036854775807," * (MIB // 20 - 1) + b"1]",
    "1 MB of members": b"{" + b",".join(b'"k%06d":%d' % (n, n) for n in range(60_000)) + b"}",
    "random": bytes((n * 7919 + n // 251) % 256 for n in range(5000)),
}


def frame(url: str, key: str, payload: bytes) -> bytes:
    """A message that would be taken, but for its payload. `max_size` 1: if it were, it would be seen at once."""
    start = json.dumps({"webhook": {"url": url}, "buffer": {"key": key, "max_size": 1}})
    return start[:-1].encode() + b', "payload": ' + payload + b"}"


class Prober:
    """Asks the node for /livez all the time and remembers the longest answer."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.longest_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = time.monotonic()
            assert (await self._client.call("GET", "/livez")).status == 200
            self.longest_s = max(self.longest_s, time.monotonic() - began)


@pytest.fixture
async def prober(client: Client) -> AsyncIterator[Prober]:
    """One that runs while the test does."""
    prober = Prober(client)
    running = asyncio.ensure_future(prober.run())
    yield prober
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_no_payload_gets_in_that_a_reader_could_stumble_over(client: Client, sink: Sink, key: str) -> None:
    """400 for each, in the one shape of errors, and no batch."""
    wrong = []
    for name, payload in PAYLOADS.items():
        answer = await client.call("POST", MESSAGE, frame(sink.url(), key, payload))
        if answer.status != 400 or not is_problem(answer, 400):
            wrong.append(f"{name}: {answer.status} {answer.body!r:.200}")

    assert not wrong, "\n".join(wrong)
    assert (await client.buffer(key)).status == 404
    assert await client.deliveries(key=key) == []
    assert sink.count == 0


@pytest.mark.parametrize("half", [b"\\ud800", b"\xed\xa0\x80", b"\xff"], ids=["escaped", "encoded", "byte"])
async def test_no_field_may_hold_half_a_character(client: Client, sink: Sink, key: str, half: bytes) -> None:
    """Key, separator, path, header, id, URL, an unknown member: what no reader could decode is refused whole."""
    good = json.dumps(
        {
            "webhook": {"url": sink.url("/@"), "headers": {"X-Mine": "@"}},
            "buffer": {"key": f"{key}@", "separator": "@", "aggregate_field": "@", "max_size": 1},
            "payload": {"@": "x"},
            "message_id": "@",
            "unknown": "@",
        }
    ).encode()
    pieces = good.split(b"@")
    assert (await client.call("POST", MESSAGE, b"a".join(pieces))).status == 200
    for at in range(1, len(pieces)):
        body = b"a".join(pieces[:at]) + half + b"a".join(pieces[at:])
        answer = await client.call("POST", MESSAGE, body)
        assert is_problem(answer, 400), body
    await sink.wait_for_requests(1)
    await client.until_status(f"{key}a", "delivered")
    assert sink.count == 1


@pytest.mark.parametrize("path", [MESSAGE, f"{DELIVERIES}/retry"])
async def test_no_body_hurts(client: Client, node: NodeProcess, prober: Prober, path: str) -> None:
    """400 for each; a request beside them is answered as if they were not there."""
    wrong = []
    for name, body in BODIES.items():
        answer = await client.call("POST", path, body)
        if answer.status != 400 or not is_problem(answer, 400):
            wrong.append(f"{name}: {answer.status} {answer.body!r:.200}")

    assert not wrong, "\n".join(wrong)
    assert prober.longest_s < STALL_S
    assert node.child.exit_code is None


@pytest.mark.parametrize(
    "payload",
    [
        b'{"n":9223372036854775807,"m":-9223372036854775808}',
        b'{"n":123456789012345678901234567890.5}',
        b'{"a":1,"a":2}',
        b'{"n":"\\u0000\\u001b"}',
        b'{"n":"\\ud83d\\ude00 \xf0\x9f\x98\x80"}',
        b'{"n":' + b"[" * 29 + b"]" * 29 + b"}",
        b'{"":"","\\u2028":"\xe2\x80\xa8"}',
        b' {\t"n" : 1E2 }\r\n',
    ],
)
async def test_odd_but_sound_payloads_pass_as_they_are(client: Client, sink: Sink, key: str, payload: bytes) -> None:
    """Byte for byte."""
    body = frame(sink.url(), key, payload).replace(b'"max_size": 1', b'"max_size": 1, "format": "merged"')
    assert (await client.call("POST", MESSAGE, body)).status == 200

    (request,) = await sink.wait_for_requests(1)

    assert request.body == payload.strip()


async def test_a_body_of_one_byte_pieces_is_a_body(node: NodeProcess, sink: Sink, key: str) -> None:
    """Chunked, one byte a chunk."""
    body = frame(sink.url(), key, b'{"n":1}')
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = b"POST /api/v1/message HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"

    answer = await raw_exchange(node.port, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)

    assert answer.startswith(b"HTTP/1.1 200 ")
    await sink.wait_for_requests(1)


async def test_a_length_that_lies_changes_nothing(node: NodeProcess, client: Client, sink: Sink, key: str) -> None:
    """Too short: the rest is no request of its own that gets through; too long: it never was a whole message."""
    body = frame(sink.url(), key, b'{"n":1}')
    head = b"POST /api/v1/message HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    short = await raw_exchange(node.port, head + b"Content-Length: %d\r\n\r\n" % (len(body) - 5) + body)
    assert b" 400 " in short.splitlines()[0]

    async with raw_connection(node.port) as (reader, writer), asyncio.timeout(5):
        writer.write(head + b"Content-Length: %d\r\n\r\n" % (len(body) + 5) + body)
        writer.write_eof()
        assert not (await reader.read()).startswith(b"HTTP/1.1 2")
    assert (await client.buffer(key)).status == 404
    assert await client.deliveries(key=key) == []
