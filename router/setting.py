"""Setting: what is declared of one setting, and how values are written for people."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from actors.core.durations import format_duration
from router import values
from router.database_url import redacted_database_url
from router.store_url import redacted_url

DAY_S = 86_400.0
TTL_S_MAX = 3650 * DAY_S
WHOLE = 1e-6
"""How far from a whole number a rate may be that was one before it became seconds."""


def plain(value: object) -> str:
    """As it is; several with commas."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def duration(value: object) -> str:
    """Seconds as Go writes them."""
    return format_duration(float(str(value)))


def rate(value: object) -> str:
    """As EVOLUTION_RATE is written: so many a second, or a minute, or an hour, whichever is a whole number."""
    every_s = float(str(value))
    unit, count = min(
        ((unit, seconds / every_s) for unit, seconds in (("s", 1), ("m", 60), ("h", 3600))),
        key=lambda each: round(each[1]) < 1 or abs(each[1] - round(each[1])) > WHOLE,
    )
    return f"{round(count)}/{unit}"


def span(value: object) -> str:
    """Two durations with a dash."""
    return "-".join(map(duration, value)) if isinstance(value, tuple) else ""


def flag(value: object) -> str:
    """true or false."""
    return "true" if value else "false"


def switch(value: object) -> str:
    """on or off."""
    return "on" if value else "off"


def auth(value: object) -> str:
    """AUTH: off or on."""
    return "off" if value else "on"


def address(value: object) -> str:
    """Host and port."""
    return values.host_port(*value) if isinstance(value, tuple) else ""


def node_url(value: object) -> str:
    """A node's address as NODE_URL is written."""
    return f"tcp://{address(value)}"


def url(value: object) -> str:
    """A store's URL without its password."""
    return redacted_url(str(value))


def database_url(value: object) -> str:
    """A database's URL without its passwords."""
    return redacted_database_url(str(value))


def hidden(value: object) -> str:
    """Nothing of it."""
    return "***"


def _unparsed(text: str) -> object:
    raise AssertionError("a list setting is parsed by parse_list")


class Setting(Struct, frozen=True, kw_only=True):
    """One setting. `field` is its attribute in `Settings`, empty for a part of the store's address.

    `show` writes a value for people and never tells a secret; a bad `secret` is not repeated in its error either.
    """

    name: str
    field: str
    meaning: str
    default: str = ""
    aliases: tuple[str, ...] = ()
    parse: Callable[[str], object] = _unparsed
    parse_list: Callable[[tuple[str, ...]], object] | None = None
    show: Callable[[object], str] = plain
    secret: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All names it goes by, the strongest first."""
        return (self.name, *self.aliases)
