"""Egress ports: the only way out to a webhook, as the actors see it. Nothing here does anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from actors.core.outcome import Answered, Failed


def _always() -> bool:
    return True


class OutboundRequest(Struct, frozen=True, kw_only=True):
    """One request: body and headers go out as they are. `timeout_s` bounds the whole exchange; `may_start` is asked
    right before the first byte is written. `keep_bytes`: how much of the answer to give back as it came."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    timeout_s: float
    may_start: Callable[[], bool] = _always
    keep_bytes: int = 0


class Withheld(Struct, frozen=True):
    """Nothing was sent: when the connection stood, `may_start` said no."""


class Egress(Protocol):
    """The only way out to a webhook; every address is checked when it is dialled."""

    async def send(self, request: OutboundRequest) -> Answered | Failed | Withheld:
        """Send and read at most 64 KiB of the answer, or as much as is to be kept. Never raises for what the other side
        does."""
        ...
