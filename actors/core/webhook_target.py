"""Webhook target: checks, when a message is accepted, where it shall go and with which headers.

Refuses what could not be delivered or would reach somewhere else than it says. Never resolves a name: names are
judged by `addresses.Guard` when they are dialled, literal addresses here already.
Invariants: what passes can be written as a request without changing its meaning, and a detail never repeats a header
value or a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from yarl import URL

from actors.core.addresses import Guard, unmapped
from actors.core.policy import Webhook
from actors.core.signing import BadSecret, signing_key

URL_BYTES_MAX = 2048
HEADERS_MAX = 64
HEADERS_BYTES_MAX = 8 * 1024
HOST_CHARACTERS_MAX = 253
PORT_MAX = 65_535
DEFAULT_PORTS = {"http": 80, "https": 443}

# Framing and the connection are ours: a second opinion on them is request smuggling. Cookies would leak from one
# webhook to another on the same host. The last line is written by us for every attempt.
RESERVED_NAMES = frozenset(
    (
        *("host", "content-length", "transfer-encoding", "content-encoding", "te", "trailer", "expect"),
        *("connection", "keep-alive", "upgrade"),
        *("cookie", "cookie2", "set-cookie"),
        *("x-attempt", "traceparent", "tracestate"),
    )
)
RESERVED_PREFIXES = ("webhook-", "x-buffer-", "proxy-")

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_AUTHORITY = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?")
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_NUMERIC_END = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.DOTALL)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


class BadTarget(ValueError):
    """The webhook cannot be used as it is. `pointer` names the field, `detail` says what is wrong with it."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}")
        self.pointer = pointer
        self.detail = detail


def check_webhook(webhook: Webhook, guard: Guard) -> str:
    """Check all of a webhook and give its lane; raises BadTarget."""
    check_headers(webhook.headers)
    check_secret(webhook.secret)
    return lane(webhook.url, guard)


def lane(url: str, guard: Guard) -> str:
    """Check a URL and give its lane `scheme://host:port`, lower case and with its port: one lane a host.

    A pure function of both, worth caching by the caller. Raises BadTarget.
    """
    scheme, host_text, port = _split(url)
    host = _literal(host_text, guard) or _name(url, host_text, guard)
    return f"{scheme}://{host}:{port}"


def check_headers(headers: Mapping[str, str]) -> None:
    """Check the caller's own headers (RFC 9110 §5); raises BadTarget."""
    if len(headers) > HEADERS_MAX:
        raise BadTarget("$.webhook.headers", f"more than {HEADERS_MAX} headers")
    seen: set[str] = set()
    total_bytes = 0
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name):
            raise BadTarget("$.webhook.headers", "a header name is not a token")
        plain = name.lower()
        if plain in RESERVED_NAMES or plain.startswith(RESERVED_PREFIXES):
            raise BadTarget(f"$.webhook.headers.{name[:64]}", "this header is set by the router")
        if plain in seen:
            raise BadTarget(f"$.webhook.headers.{name[:64]}", "this header is named twice")
        if not _VALUE.fullmatch(value):
            raise BadTarget(f"$.webhook.headers.{name[:64]}", "a header value is printable ASCII")
        seen.add(plain)
        total_bytes += len(name) + len(value)
    if total_bytes > HEADERS_BYTES_MAX:
        raise BadTarget("$.webhook.headers", f"more than {HEADERS_BYTES_MAX} bytes of headers")


def check_secret(secret: str | None) -> None:
    """Check that deliveries can be signed with this secret; raises BadTarget."""
    if secret is None:
        return
    try:
        signing_key(secret)
    except BadSecret as error:
        raise BadTarget("$.webhook.secret", str(error)) from None


def _bad_url(detail: str) -> BadTarget:
    return BadTarget("$.webhook.url", detail)


def _split(url: str) -> tuple[str, str, int]:
    """Cut a URL into scheme, host as written, and port.

    Done by hand and strictly: parsers disagree about backslashes, control characters, `@` and odd ports, and an
    attack lives where the one that checks and the one that dials differ.
    """
    try:
        size = len(url.encode())
    except UnicodeEncodeError:
        raise _bad_url("not valid Unicode") from None
    if size > URL_BYTES_MAX:
        raise _bad_url(f"longer than {URL_BYTES_MAX} bytes")
    if _UNSAFE.search(url):
        raise _bad_url("spaces, control characters and backslashes must be percent-encoded")
    match = _URL.match(url)
    if match is None or (scheme := match[1].lower()) not in DEFAULT_PORTS:
        raise _bad_url("an absolute http or https URL is needed")
    if "@" in match[2]:
        raise _bad_url("no user name or password in the URL; use an Authorization header")
    parts = _AUTHORITY.fullmatch(match[2])
    if parts is None or not parts[1]:
        raise _bad_url("no valid host or port")
    port = int(parts[2]) if parts[2] else DEFAULT_PORTS[scheme]
    if not 1 <= port <= PORT_MAX:
        raise _bad_url("the port is not in 1..65535")
    return scheme, parts[1], port


def _literal(host_text: str, guard: Guard) -> str | None:
    """The host as it goes into a lane if it is a literal address that may be reached; None for a name."""
    address: IPv4Address | IPv6Address
    try:
        address = IPv6Address(host_text[1:-1]) if host_text.startswith("[") else IPv4Address(host_text)
    except AddressValueError:
        if host_text.startswith("["):
            raise _bad_url("not an IPv6 address") from None
        return None
    if not guard.allowed(address):
        raise _bad_url("this address may not be reached")
    plain = unmapped(address)
    return str(plain) if isinstance(plain, IPv4Address) else f"[{plain}]"


def _name(url: str, host_text: str, guard: Guard) -> str:
    """The name as it will be looked up: lower case, IDNA-encoded."""
    try:
        host = URL(url).raw_host or ""
    except ValueError as error:
        raise _bad_url("no valid host or port") from error
    # Without the two checks a name could turn into an address on the way: `2130706433`, `0x7f.1`, `①②⑦.0.0.1`.
    if _NUMERIC_END.fullmatch(host):
        raise _bad_url("an IPv4 address is four decimal numbers")
    if host_text.isascii() and host != host_text.lower():
        raise _bad_url("no valid host or port")
    if len(host) > HOST_CHARACTERS_MAX or not _NAME.fullmatch(host):
        raise _bad_url("not a host name (and no dot at its end)")
    if host.rpartition(".")[2] == "localhost" and not (guard.allowed("127.0.0.1") or guard.allowed("::1")):
        raise _bad_url("this address may not be reached")
    return host
