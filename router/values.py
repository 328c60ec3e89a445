"""Values: how the text of one setting becomes a typed value, and how a value is shown again.

Pure parsers, the same for environment, YAML and flags. Each raises `ValueError` that says what was expected and never
repeats the value: only the caller knows whether it is a secret.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from actors.core.channel_names import is_event_channel, name_fault
from actors.core.durations import parse_duration_ns
from actors.core.evolution_send import check_instance
from actors.core.json_limits import BadField

PORT_MAX = 65_535
PORTS_MAX = 32
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_SIZE = re.compile(r"([0-9]{1,15}) ?(b|kib|mib|gib|kb|mb|gb)?", re.IGNORECASE)
_SIZE_BYTES = {"b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_TRUE, _FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})
_LEVELS = {"warn": "warning", "fatal": "critical", "panic": "critical"}
LEVELS = ("debug", "info", "warning", "error", "critical")


class Secret(str):
    """Text that nobody should read by accident: its `repr`, and so a logged struct, shows `***`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('***')"


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or not low <= int(text) <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return int(text)

    return parse


def duration_s(low_s: float, high_s: float) -> Callable[[str], float]:
    """A parser of seconds (`10`, `0.5`) or Go durations (`10s`, `1h30m`), between the bounds, into seconds."""

    def parse(text: str) -> float:
        expected = f"expected seconds or a duration such as 10s or 1h30m, from {low_s:g} s to {high_s:.0f} s"
        try:
            value_s = float(text) if _NUMBER.fullmatch(text) else parse_duration_ns(text) / 1e9
        except ValueError:
            raise ValueError(expected) from None
        if not low_s <= value_s <= high_s:
            raise ValueError(expected)
        return value_s

    return parse


def size_bytes(low: int, high: int) -> Callable[[str], int]:
    """A parser of sizes in bytes (`1048576`) or with a unit (`1MiB`, `512 KiB`, `2MB`)."""

    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text)
        value = int(match[1]) * _SIZE_BYTES[(match[2] or "b").lower()] if match else -1
        if not low <= value <= high:
            raise ValueError(f"expected bytes or a size such as 512KiB or 1MiB, from {low} to {high} bytes")
        return value

    return parse


def flag(text: str) -> bool:
    """true, 1, yes, on and their opposites, in any case."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError("expected true or false")


def auth_off(text: str) -> bool:
    """The word `off`, said aloud; `on` is what holds without it."""
    if text.lower() in {"off", "on"}:
        return text.lower() == "off"
    raise ValueError("expected off or on")


def log_level(text: str) -> str:
    """A level's usual name or one of Go's, in any case."""
    level = _LEVELS.get(text.lower(), text.lower())
    if level not in LEVELS:
        raise ValueError(f"expected one of {', '.join(LEVELS)}")
    return level


def word(what: str, pattern: str) -> Callable[[str], str]:
    """A parser of text that matches `pattern` as a whole; `what` describes it to people."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {what}")
        return text

    return parse


def channel(text: str) -> str:
    """The name of a channel that clients may publish on."""
    fault = name_fault(text)
    if fault or is_event_channel(text):
        raise ValueError(f"expected a channel's name, which {fault or 'does not begin with $'}")
    return text


def port(text: str) -> int:
    """A TCP port; 0 lets the kernel pick one."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > PORT_MAX:
        raise ValueError(f"expected a port from 0 to {PORT_MAX}")
    return int(text)


def ports(texts: tuple[str, ...]) -> tuple[int, ...]:
    """One port or several, each once (0, which lets the kernel pick, may come again)."""
    try:
        found = tuple(port(text) for text in texts)
    except ValueError:
        found = ()
    named = [number for number in found if number]
    if not 1 <= len(found) <= PORTS_MAX or len(set(named)) != len(named):
        raise ValueError(f"expected a port from 0 to {PORT_MAX}, or a comma list of different ones")
    return found


def host(text: str) -> str:
    """An address or a host name to bind; brackets around an IPv6 address are taken off."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        try:
            return str(ipaddress.IPv6Address(bare))
        except ValueError:
            raise ValueError("expected a host name or an address without a port") from None
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,253}", bare):
        raise ValueError("expected a host name or an address without a port")
    return bare


def host_port(name: str, number: int) -> str:
    """Both as one text; an IPv6 address gets its brackets back."""
    return f"[{name}]:{number}" if ":" in name else f"{name}:{number}"


def node_url(text: str) -> tuple[str, int]:
    """Where other nodes reach this one: `tcp://host:port`. Port 0 is one the kernel picks."""
    scheme, _, place = text.partition("://")
    name, colon, number = place.rpartition(":")
    try:
        if scheme == "tcp" and colon and (":" not in name or name.startswith("[")):
            return host(name), port(number)
    except ValueError:
        pass
    raise ValueError("expected tcp://host:port")


def instance(text: str) -> str:
    """The name of a WhatsApp instance."""
    try:
        check_instance(text)
    except BadField as error:
        raise ValueError(f"the name of an instance {error.detail}") from None
    return text


def base_url(text: str) -> str:
    """Where an HTTP API is: a URL that paths are put behind."""
    try:
        parts = urlsplit(text)
        plain = parts.scheme in ("http", "https") and parts.hostname and not (parts.query or parts.fragment)
        if plain and "@" not in parts.netloc and parts.port != 0 and re.fullmatch(r"[!-~]+", text):
            return text.rstrip("/")
    except ValueError:
        pass
    raise ValueError("expected http://host:port or https://host, without user name and query")


def rate(text: str) -> float | None:
    """So many a second, minute or hour (`20/m`), as the seconds from one to the next; `none` for as fast as it goes."""
    if text.lower() == "none":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})/([smh])", text.lower())
    if found is None:
        raise ValueError("expected none, or a rate such as 20/m or 5/s")
    return {"s": 1.0, "m": 60.0, "h": 3600.0}[found[2]] / int(found[1])


def span_s(low_s: float, high_s: float) -> Callable[[str], tuple[float, float]]:
    """A parser of two durations (`1s-3s`), the shorter one first, between the bounds, into seconds."""
    parse_one = duration_s(low_s, high_s)

    def parse(text: str) -> tuple[float, float]:
        shortest, dash, longest = text.partition("-")
        span = (parse_one(shortest.strip()), parse_one(longest.strip())) if dash else (0.0, -1.0)
        if span[0] > span[1]:
            raise ValueError("expected two durations such as 1s-3s, the shorter one first")
        return span

    return parse


def choice(*words: str) -> Callable[[str], str]:
    """A parser of one of these words, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"expected {' or '.join(words)}")
        return text.lower()

    return parse


def is_loopback(name: str) -> bool:
    """Whether binding `name` can be reached from this machine only. Names other than localhost count as not."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Networks in CIDR notation or single addresses, in canonical form."""
    try:
        return tuple(str(ipaddress.ip_network(text, strict=False)) for text in texts)
    except ValueError:
        raise ValueError("expected networks such as 10.0.0.0/8 or fd00::/8, separated by commas") from None


def origins(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Web origins (scheme, host, port; nothing after), or `*`."""
    if not all(text == "*" or _ORIGIN.fullmatch(text) for text in texts):
        raise ValueError('expected a JSON list of origins such as ["https://example.com"]')
    return tuple(text.lower() for text in texts)


def directory(text: str) -> Path:
    """A folder as an absolute path; `~` is the user's home."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError("expected a folder; there is no such user's home") from None


def address(text: str) -> tuple[str, int]:
    """One `host:port` of a store."""
    name, _, number = text.rpartition(":")
    try:
        return host(name), port(number)
    except ValueError:
        raise ValueError("expected one host:port (REDIS_URL can name several)") from None


def secret(text: str) -> Secret:
    """Any text, kept out of sight."""
    return Secret(text)


def split_list(text: str) -> tuple[str, ...]:
    """The items of a JSON list of strings and numbers, or of a comma list."""
    if not text.startswith("["):
        return tuple(item.strip() for item in text.split(","))
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("expected a JSON list or a comma list") from None
    if not isinstance(items, list) or not all(isinstance(item, str | int) for item in items):
        raise ValueError("expected a JSON list of plain values")
    return tuple(str(item) for item in items)
