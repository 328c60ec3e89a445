"""Known terms: a message is taken, or refused, as if nothing were remembered; and the memory is bounded."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.core.intake import BadMessage, accept, limits_of
from actors.core.json_limits import BadField, check_limits
from actors.core.partition import locate
from actors.core.policy import BufferOptions, Message, Policy, Webhook
from actors.core.terms import KNOWN_MAX, SAID_BYTES_MAX, KnownTerms, Taken, terms_of
from tests.support.json_text import OBJECTS

HOST = "https://a.example:443"
WEBHOOKS = ('{"url":"https://a.example/"}', '{"url":"https://a.example/","headers":{"A":"b"}}', '{"url":""}', "{}", "1")
BUFFERS = (
    *('{"key":"k"}', '{"key":"k","aggregate_field":"a"}', '{"key":"ñ","max_size":2,"aggregate_field":"a.0"}'),
    *('{"key":"k","mode":"debounce","max_wait":1}', '{"key":"k","extra":1}', '{"key":""}', '{ "key" : "k" }'),
)
DEEP = ('{"a":["x"],"b":' + "[" * 29 + "]" * 29 + "}", '{"a":["x"],"b":' + "[" * 30 + "]" * 30 + "}")
PAYLOADS = (
    *DEEP,
    *('{"payload":1,"a":"x"}', '{"a":"ñ"}', '{"a":"\\"payload\\""}', '{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}'),
    *('{"a":"x"}', '{"a":["x"]}', '{"a":1}', "[]", '{"a":1e999}', '{"a":12345678901234567890}', '{"a":"\\u00'),
)
IDS = (None, '"m1"', '"m\\u0031"', '""', '"ñ"', "1", '"' + "m" * 129 + '"')
DAMAGE = (b"", b'"', b"{", b"}", b",", b"\xff", b"\x00", b"\\", b"0")


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A request: mostly a good one, its members in any order, some there twice, some bytes damaged."""
    payload = draw(st.sampled_from(PAYLOADS) | OBJECTS)
    members = [
        f'"webhook":{draw(st.sampled_from(WEBHOOKS[:2]) | st.sampled_from(WEBHOOKS))}',
        f'"buffer":{draw(st.sampled_from(BUFFERS[:3]) | st.sampled_from(BUFFERS))}',
        f'"payload":{draw(st.sampled_from(("", "", " ", " " * 9)))}{payload}',
    ]
    message_id = draw(st.sampled_from(IDS[:3]) | st.sampled_from(IDS))
    if message_id is not None:
        members.append(f'"message_id":{message_id}')
    if draw(st.integers(0, 9)) == 0:
        members.pop(draw(st.integers(0, len(members) - 1)))
    if draw(st.integers(0, 4)) == 0:
        members = draw(st.permutations(members))
    if draw(st.integers(0, 3)) == 0:
        extra = (
            *('"\\u0070ayload":{"a":"y"}', '"x\\"payload":{"a":"y"}', '"payload":1', '"message\\u005fid":"m2"'),
            *(
                '"other":{"payload":{}}',
                '"other":{"a":[]}',
                '"webhook":null',
                '"webhook":{"bogus":1}',
                '"buffer":{"key":"2"}',
                '"buffer":1',
            ),
        )
        members.insert(draw(st.integers(0, len(members))), draw(st.sampled_from((*members, *extra))))
    space = draw(st.sampled_from(("", "", " ", " " * 5)))
    body = bytearray(f"{{{f',{space}'.join(members)}}}".encode())
    if draw(st.integers(0, 5)) == 0:
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from(DAMAGE))
    return bytes(body)


def take(known: KnownTerms, body: bytes) -> Taken:
    """As the route does it."""
    taken = known.recall(body)
    if taken is None:
        check_limits(body)
        body.decode()
        taken = known.learn(body, accept(msgspec.json.decode(body, type=Message)), HOST)
    return taken


def outcome(known: KnownTerms, body: bytes) -> object:
    """What came of it, comparable."""
    try:
        return msgspec.to_builtins(take(known, body))
    except (BadField, msgspec.DecodeError, UnicodeDecodeError) as error:
        return type(error), str(error)


@given(st.lists(bodies(), min_size=1, max_size=8))
@example(
    [
        b'{"webhook":1,"webhook":{"url":"u"},"buffer":{"key":"k"},"payload":{}}',
        b'{"webhook":{"url":"u"},"buffer":{"key":"k"},"payload":{}}',
    ]
)
@example(
    [b'{"webhook":{"url":"u"},"buffer":{"key":"k"},"payload":{}}', b'{"webhook":{"url":"u"},"buffer":{"key":"k"}}']
)
@example([b'{"webhook":{"url":"u"},"buffer":{"key":"k"},"\\u0070ayload":{"a":1},"x\\"payload":{"a":2}}'])
@example(
    [
        b'{"webhook":{"url":"u"},"buffer":{"key":"k"},"\\u0070ayload":0,"x\\"payload":{"a":2}}',
        b'"payload":1,"payload":{}}',
    ]
)
@example(
    [
        b'{"webhook":{"url":"u"},"buffer":{"key":"k"},"payload":{"a":"x"},"buffer":{"key":"other"}}',
        b'{"webhook":{"url":"u"},"buffer":{"key":"k"},"payload":{"a":"x"}}',
    ]
)
def test_what_is_remembered_changes_nothing(sent: list[bytes]) -> None:
    """In whatever order they come, when all of them come again, and when one begins as another does."""
    known = KnownTerms()
    parted = [body.partition(b'"payload"') for body in sent]
    spliced = [beginning + name + rest for beginning, name, _ in parted for _, _, rest in parted]
    for body in (*sent, *spliced, *sent):
        assert outcome(known, body) == outcome(KnownTerms(), body)


def request(key: str = "k", payload: str = '{"a":"x"}', url: str = "https://a.example/") -> bytes:
    """A good one."""
    return b'{"webhook":{"url":%b},"buffer":{"key":%b,"aggregate_field":"a"},"payload":%b}' % (
        msgspec.json.encode(url),
        msgspec.json.encode(key),
        payload.encode(),
    )


@pytest.mark.parametrize(
    ("after", "known_again"),
    [
        ("", True),
        (" " * 10, True),
        (" " * 11, False),
        (',"payload":{"a":""}', False),
        (',"payload":1', False),
        (',"webhook":1', False),
        (',"buffer":1', False),
        (',"other":1', True),
        (',"message_id":"m"', True),
        (',"message_id":"\\u006d"', True),
        (f',"message_id":"{"m" * 128}"', True),
        (f',"message_id":"{"m" * 129}"', False),
        (',"message_id":""', False),
        (',"message_id":"\\u00f1"', False),
        (',"message_id":"\\n"', False),
        (',"message_id":1', False),
    ],
)
def test_only_a_plain_rest_is_read(after: str, *, known_again: bool) -> None:
    """White space may be there; a member that stands there twice cannot hide in it, nor an id that could not be one."""
    known = KnownTerms()
    take(known, request())
    assert (known.recall(request()[:-1] + after.encode() + b"}") is not None) == known_again


@pytest.mark.parametrize(
    ("member", "first", "between"),
    [
        ("", True, True),
        ('"other":[],', True, True),
        ('"other":{"a":"\\"payload\\""},', True, True),
        ('"other":{"payload":0},', False, False),
        ('"payload":0,', False, False),
        ('"payload":{"a":"x"},', False, False),
        ('"\\u0070ayload":{},', True, True),
        ('"\\u0070ayload":{},"x\\"payload":{},', False, False),
        ('"message_id":"m",', False, False),
        ('"message\\u005fid":"m",', False, False),
        ('"message_id":null,', True, True),
    ],
)
def test_only_what_leads_to_the_payload_is_remembered(member: str, *, first: bool, between: bool) -> None:
    """Not what has had a payload, or an id, which would be another one's."""
    for at, remembered in ((1, first), (request().index(b'"payload"'), between)):
        known = KnownTerms()
        body = request()[:at] + member.encode() + request()[at:]
        take(known, body)
        assert (known.recall(body) is not None) == remembered


@pytest.mark.parametrize("payload", ['{"a":1}', '{"b":"x"}', "{}", "[]", "1"])
def test_the_payload_of_a_known_message_is_judged(payload: str) -> None:
    """As that of any."""
    known = KnownTerms()
    take(known, request())
    with pytest.raises(BadMessage):
        known.recall(request(payload=payload))


@pytest.mark.parametrize("member", ["[" * 40 + "]" * 40, "12345678901234567890", '"\udcff"'])
def test_what_may_be_beyond_a_limit_is_looked_at_whole(member: str) -> None:
    """However well its beginning is known."""
    known = KnownTerms()
    take(known, request())
    body = request(payload='{"a":"x","b":NEXT}').replace(b"NEXT", member.encode("utf-8", "surrogateescape"))
    assert known.recall(body) is None


@pytest.mark.parametrize(
    "again", [b'"webhook":{"url":"https://b.example/"}', b'"buffer":{"key":"other"}', b'"buffer":1']
)
def test_what_follows_the_payload_changes_no_other_message(again: bytes) -> None:
    """Terms that stand there once more hold for that message, if for any; one that begins as it does has its own."""
    known = KnownTerms()
    with suppress(msgspec.ValidationError):
        take(known, request()[:-1] + b"," + again + b"}")
    assert take(known, request()) == take(KnownTerms(), request())


def test_what_comes_before_the_terms_does_not_stand_for_them() -> None:
    """A payload that comes first: the next one may come without any."""
    known = KnownTerms()
    webhook, buffer = b'"webhook":{"url":"https://a.example/"}', b'"buffer":{"key":"k"}'
    payload = b'"payload":{}'
    for members in ((payload, webhook, buffer), (webhook, payload, buffer), (buffer, payload, webhook)):
        body = b"{%b}" % b",".join(members)
        take(known, body)
        assert known.recall(body) is None
        with pytest.raises(msgspec.ValidationError):
            take(known, body.partition(b"{}")[0] + b"{}}")


def test_terms_are_known_after_the_first_message() -> None:
    """All that does not depend on the payload is the same object from then on."""
    known = KnownTerms()
    assert known.recall(request()) is None
    first, second = take(known, request()), take(known, request(payload='{"a":"y"}'))
    assert second.terms is first.terms
    assert (first.payload, second.payload) == (b'{"a":"x"}', b'{"a":"y"}')
    terms, options = first.terms, BufferOptions(key="k", aggregate_field="a")
    policy = msgspec.json.encode(Policy(webhook=Webhook(url="https://a.example/"), buffer=options))
    assert terms == terms_of("k", policy, limits_of(options), HOST)
    assert (terms.kid, terms.partition, terms.key) == (*locate("k"), "k")
    assert known.recall(request("other")) is None
    assert known.recall(request(url="https://b.example/")) is None


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    """However many keys callers make up: two generations, and long texts not at all."""
    known = KnownTerms()
    take(known, request("kept"))
    for number in range(3 * KNOWN_MAX):
        take(known, request(f"k{number}"))
        if number % (KNOWN_MAX // 2) == 0:
            assert known.recall(request("kept")) is not None
    assert known.recall(request("k0")) is None
    assert known.recall(request(f"k{3 * KNOWN_MAX - 1}")) is not None
    assert len(known._known) + len(known._known._old) <= 2 * KNOWN_MAX
    long = request(url="https://a.example/".ljust(SAID_BYTES_MAX, "x"))
    take(known, long)
    assert known.recall(long) is None
