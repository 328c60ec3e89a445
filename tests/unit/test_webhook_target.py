"""What is checked of a webhook when a message is accepted: URL, headers, secret."""

from __future__ import annotations

import base64
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from actors.core.addresses import Guard, parse_networks
from actors.core.policy import Webhook
from actors.core.webhook_target import BadTarget, check_headers, check_secret, check_webhook, lane

STRICT = Guard()
DEFAULT_RUN = Guard(loopback_allowed=True)

LANES = [
    ("http://example.com", "http://example.com:80"),
    ("HTTPS://Example.COM/Hook?x=1#top", "https://example.com:443"),
    ("https://example.com:8443/a", "https://example.com:8443"),
    ("http://example.com:080/", "http://example.com:80"),
    ("http://my_service:9000/", "http://my_service:9000"),
    ("http://a-b.c--d.example/", "http://a-b.c--d.example:80"),
    ("https://bücher.example/é", "https://xn--bcher-kva.example:443"),
    ("https://faß.de/", "https://xn--fa-hia.de:443"),
    ("http://8.8.8.8/", "http://8.8.8.8:80"),
    ("http://[2606:4700::1111]:81/", "http://[2606:4700::1111]:81"),
    ("http://[2606:4700:0:0::1111]:81/", "http://[2606:4700::1111]:81"),
    ("http://[::ffff:8.8.8.8]/", "http://8.8.8.8:80"),
    ("http://example.com?next=http://user@127.0.0.1/", "http://example.com:80"),
    ("http://example.com/" + "p" * 2029, "http://example.com:80"),
]

REFUSED = {
    "not http": "example.com //example.com /hook ftp://example.com file:///etc/passwd javascript:alert(1) ws://a.b"
    " http:example.com http:/example.com",
    "no host": "http:// http:/// http://:80/ http://?x https://#x http://[]/",
    "userinfo": "http://user@example.com http://user:pw@example.com http://@example.com http://example.com:80@10.0.0.1/"
    " http://127.0.0.1%40example.com@x/",
    "port": "http://example.com: http://example.com:0 http://example.com:65536 http://example.com:99999999 http://h:-1"
    " http://h:+80 http://h:8o http://h:80:80 http://h:٨٠",
    "zone id": "http://[fe80::1%25eth0]/ http://[fe80::1%eth0]/ http://[2606:4700::1%251]/",
    "trailing dot": "http://example.com./ http://localhost./ http://127.0.0.1./ http://example.com。/",
    "not a name": "http://a..b/ http://.a/ http://-a.b/ http://a-.b/ http://a%41.b/ http://a*b/ http://a,b/ http://a!b/"
    " http://xn--/ http://[v1.a]/ http://[1.2.3.4]/ http://[::1/ http://::1/ http://example.com]/ http://ex℀.com/"
    " http://127.0.0.1%00.example.com/",
    "numeric but no IPv4 address": "http://2130706433/ http://0x7f.1/ http://0x7f000001/ http://017700000001/"
    " http://127.1/ http://127.0.1/ http://0127.0.0.1/ http://127.0.0.01/ http://1.2.3.4.5/ http://256.1.1.1/"
    " http://a.1/ http://a.0x/ http://\uff11\uff12\uff17.0.0.1/ http://①②⑦.0.0.1/ http://127。0。0。1/",
    "literal addresses": "http://127.0.0.1/ http://10.0.0.1:8080/ http://169.254.169.254/latest http://[::1]/"
    " http://[::]/ http://0.0.0.0/ http://[::ffff:127.0.0.1]/ http://[64:ff9b::7f00:1]/ http://[fd00:ec2::254]/",
    "localhost": "http://localhost/ http://LOCALHOST:6379/ http://a.localhost/ http://\uff4cocalhost/",
}


@pytest.mark.parametrize(("url", "expected"), LANES, ids=[url[:40] for url, _ in LANES])
def test_one_lane_a_host(url: str, expected: str) -> None:
    """The lane is the normalised origin, whatever way the URL is written."""
    assert lane(url, STRICT) == expected


@pytest.mark.parametrize(("why", "url"), [(why, url) for why, urls in REFUSED.items() for url in urls.split()])
def test_refuses_urls(why: str, url: str) -> None:
    """What would go elsewhere, or nowhere, is refused with a pointer to the field."""
    with pytest.raises(BadTarget) as refusal:
        lane(url, STRICT)
    assert refusal.value.pointer == "$.webhook.url", why
    assert refusal.value.detail


@pytest.mark.parametrize(
    "url",
    [
        *("", " http://example.com", "http://example.com ", "http://exa mple.com", "http://example.com/a b"),
        *(
            "http://example.com\r\nHost: x",
            "http://example.com/\t",
            "http://example.com/\x00",
            "http://example.com/\x85",
        ),
        *("http://example.com\\@127.0.0.1/", "http:\\\\example.com", "http://example.com/\ud800", "http://\ud800.com"),
        *("http://example.com/" + "p" * 2030, "http://example.com/" + "é" * 1020, f"http://{'a' * 64}.com"),
        f"http://{'a.' * 127}com/",
    ],
)
def test_refuses_unsafe_characters_and_sizes(url: str) -> None:
    """Control characters, backslashes, lone surrogates and more than 2 KiB never reach a parser that may differ."""
    with pytest.raises(BadTarget):
        lane(url, DEFAULT_RUN)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/", "http://x.localhost:9/"]
)
def test_a_default_run_takes_loopback(url: str) -> None:
    """The first example of the README posts to 127.0.0.1."""
    assert lane(url, DEFAULT_RUN).endswith(":9")


def test_a_listed_network_is_taken() -> None:
    """`WEBHOOK_ALLOWED_NETWORKS` also counts for literal addresses, and for no other."""
    guard = Guard(allowed_networks=parse_networks(["10.0.0.0/8"]))
    assert lane("http://10.1.2.3/", guard) == "http://10.1.2.3:80"
    with pytest.raises(BadTarget):
        lane("http://192.168.0.1/", guard)


def _spellings(address: int) -> list[str]:
    a, b, c, d = address.to_bytes(4, "big")
    plain = f"{a}.{b}.{c}.{d}"
    return [
        *(plain, str(address), hex(address), f"0{address:o}", f"{a}.{b}.{c * 256 + d}", f"{a}.{address % 2**24}"),
        *(f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a}.{b}.{c}.{d}.", f"{a:03}.{b}.{c}.{d}"),
        *(plain.translate(FULL_WIDTH), plain.replace(".", "。"), plain.replace(".", "%2e"), f"[::ffff:{plain}]"),
        *(f"[::{plain}]", f"[64:ff9b::{plain}]", f"[2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1]", f"[::ffff:0:{plain}]"),
        *(f"[0:0:0:0:0:ffff:{a:02x}{b:02x}:{c:02x}{d:02x}]", f"user@{plain}", f"example.com@{plain}", f"{plain}%00"),
    ]


FULL_WIDTH = {ord(str(digit)): chr(0xFF10 + digit) for digit in range(10)}
FORBIDDEN = ["127.0.0.1", "10.0.0.5", "169.254.169.254", "192.168.1.1", "172.16.0.1", "0.0.0.0", "100.100.100.200"]
CORPUS = [
    f"{scheme}://{host}{port}/x"
    for dotted, scheme, port in product(FORBIDDEN, ("http", "HTTPS"), ("", ":8080"))
    for host in _spellings(int.from_bytes(bytes(map(int, dotted.split("."))), "big"))
]


def test_no_spelling_of_a_forbidden_address_is_accepted() -> None:
    """Seven forbidden addresses in 22 spellings each, over both schemes and with or without a port."""
    assert len(CORPUS) >= 250
    accepted = []
    for url in CORPUS:
        try:
            accepted.append((url, lane(url, STRICT)))
        except BadTarget:
            continue
    assert accepted == []


HOSTISH = st.text(st.sampled_from("aZ0.-_:[]@/?#%xé①。ß127"), max_size=24)


@given(HOSTISH.map("http://".__add__) | st.text(max_size=80))
@example("http://0x/")
def test_what_is_accepted_is_what_is_dialled(url: str) -> None:
    """Nothing but BadTarget is raised, and the dialling side's parser agrees on host and port."""
    try:
        accepted = lane(url, DEFAULT_RUN)
    except BadTarget:
        return
    dialled, checked = URL(url), URL(accepted)
    assert (dialled.scheme, dialled.port) == (checked.scheme, checked.port)
    assert dialled.raw_host == checked.raw_host or "ffff" in str(dialled.raw_host)
    assert dialled.raw_user is None
    assert dialled.raw_password is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer x", "Content-Type": "application/cloudevents+json", "X-Trace": "a\tb"},
        {"!#$%&'*+-.^_`|~09aZ": "any ~ printable"},
        {f"X-{n}": "v" for n in range(64)},
        {"X": "v" * 8191},
        {"Cookies": "fine", "Webhooks-Id": "fine", "Proxied": "fine", "X-Attempts": "fine", "Empty": ""},
    ],
)
def test_takes_ordinary_headers(headers: dict[str, str]) -> None:
    """Up to 64 headers and 8 KiB of tokens and printable ASCII."""
    check_headers(headers)


RESERVED = (
    "Host Content-Length Transfer-Encoding Content-Encoding Connection Keep-Alive TE Trailer Upgrade Expect Cookie"
    " Set-Cookie Proxy-Authorization Proxy-Connection webhook-id Webhook-Signature webhook-timestamp webhook-x"
    " X-Buffer-Key x-buffer-anything X-Attempt traceparent Tracestate"
)


@pytest.mark.parametrize("name", RESERVED.split())
def test_refuses_headers_that_are_ours(name: str) -> None:
    """In any case of letters; the pointer names the header."""
    for spelled in (name, name.lower(), name.upper()):
        with pytest.raises(BadTarget, match="set by the router") as refusal:
            check_headers({spelled: "x"})
        assert refusal.value.pointer == f"$.webhook.headers.{spelled}"


@pytest.mark.parametrize(
    "headers",
    [
        *({"": "v"}, {"A B": "v"}, {"A:": "v"}, {"A\r\nB": "v"}, {"Á": "v"}, {"A\x00": "v"}, {"(A)": "v"}),
        *({"A": "x\r\nB: y"}, {"A": "\n"}, {"A": "é"}, {"A": "\x00"}, {"A": "\x7f"}, {"A": "\u2028"}),
        *({"X-A": "1", "x-a": "2"}, {f"X-{n}": "v" for n in range(65)}, {"X": "v" * 8192}),
    ],
)
def test_refuses_headers_that_cannot_be_sent_as_they_are(headers: dict[str, str]) -> None:
    """Bad names and values, repeated names, too many or too large."""
    with pytest.raises(BadTarget) as refusal:
        check_headers(headers)
    assert refusal.value.pointer.startswith("$.webhook.headers")


@given(st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4))
def test_accepted_headers_cannot_end_a_line(headers: dict[str, str]) -> None:
    """Whatever passes is one line each, in ASCII; nothing but BadTarget is raised."""
    try:
        check_headers(headers)
    except BadTarget:
        return
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    assert lines.isascii()
    assert len(lines.splitlines()) == len(headers)


def test_no_refusal_repeats_a_value() -> None:
    """A header value or a secret may be a credential: it never comes back in an error."""
    with pytest.raises(BadTarget) as bad_header:
        check_headers({"Authorization": "s3cret\n"})
    with pytest.raises(BadTarget) as bad_secret:
        check_secret("s3cret!")
    assert "s3cret" not in str(bad_header.value) + str(bad_secret.value)
    assert bad_secret.value.pointer == "$.webhook.secret"


def test_a_whole_webhook() -> None:
    """All three parts are checked, and the lane comes out."""
    good = Webhook(url="https://example.com/x", headers={"A": "b"}, secret=base64.b64encode(b"k" * 24).decode())
    assert check_webhook(good, STRICT) == "https://example.com:443"
    for bad in (
        Webhook(url="https://example.com./x"),
        Webhook(url="https://example.com/x", headers={"Host": "b"}),
        Webhook(url="https://example.com/x", secret="not base64!"),
    ):
        with pytest.raises(BadTarget):
            check_webhook(bad, STRICT)
