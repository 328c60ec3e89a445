"""Evolution: one Evolution API server, as sends and their lanes see it.

Owns the requests to it and what is known of the server itself: its dialect, and whether it takes message ids of ours.
Never waits between tries, never decides what follows from an outcome.
Invariants: the API key is in a header and nowhere else; nothing of a caller's becomes part of a query; a send is asked
for once in each dialect at the most, and a second time only when the first was certainly not sent.
Source: the facts about Evolution, sections 2.1 to 2.3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import quote

from msgspec import Struct

from actors.core.evolution_answers import ANSWER_BYTES_MAX, SendOutcome, Silence, WrongDialect, judge
from actors.core.evolution_send import Dialect, TextSend, answer_timeout_s, send_body, send_path
from actors.core.evolution_server import (
    Answer,
    InstanceState,
    Paused,
    Server,
    license_missing,
    read_state,
    read_welcome,
)
from actors.core.foreign_json import Unreadable, decode
from actors.core.outcome import Answered, Failed
from actors.egress_ports import Egress, OutboundRequest, Withheld
from actors.ports import Clock

LOOK_S = 10.0
"""For a question about the server or an instance."""
KNOWN_S = 600.0
"""After this the server is asked again what it is: somebody may have updated it."""
UNKNOWN_S = 5.0
"""The same, while it did not say: every send would wait for the answer that does not come."""
SERVER_ERROR = 500
OUT_OF_REACH = Paused("unreachable", "Evolution cannot be reached")


class EvolutionRules(Struct, frozen=True, kw_only=True):
    """Where Evolution is and how to speak to it. `timeout_s`: how long a send may take beside its typing delay."""

    url: str
    api_key: str
    timeout_s: float
    user_agent: str


class Sending(Struct, frozen=True):
    """How a send ended, and the HTTP exchange behind it, the last one if there were two."""

    outcome: SendOutcome
    exchange: Answered | Failed


class Evolution:
    """Talks to one server. `server` is what is known of it; None: it did not say, and is taken for version 2."""

    def __init__(self, egress: Egress, rules: EvolutionRules, clock: Clock) -> None:
        self._egress = egress
        self._rules = rules
        self._clock = clock
        self._look_at = float("-inf")
        self._looking: asyncio.Lock = asyncio.Lock()
        self._dialect: Dialect = "v2"
        self.server: Server | None = None
        self.silent = False
        """Whether it did not answer at all when it was asked last what it is."""

    @property
    def url(self) -> str:
        """Where it is. There is no secret in it."""
        return self._rules.url

    async def look(self) -> Server | Paused | None:
        """What the server says of itself, asked when that is not known or long ago."""
        async with self._looking:
            if self._clock.monotonic() < self._look_at:
                return self.server
            found = await self._get("")
            self.silent = not isinstance(found, Answered)
            welcome = read_welcome(Answer(found.status, found.body)) if isinstance(found, Answered) else None
            if isinstance(welcome, Paused):
                return welcome
            if welcome is not None:
                self.server, self._dialect = welcome, welcome.dialect
            self._look_at = self._clock.monotonic() + (UNKNOWN_S if welcome is None else KNOWN_S)
            return self.server

    def forget(self) -> None:
        """Ask the server again what it is before the next send: it was away, and may be another one now."""
        self._look_at = float("-inf")

    async def send(self, instance: str, send: TextSend, may_start: Callable[[], bool]) -> Sending | Withheld:
        """Have a text sent. A server that asks for the other dialect is asked in that one."""
        dialect = self._dialect
        sending = await self._send_as(dialect, instance, send, may_start)
        if isinstance(sending, Sending) and isinstance(sending.outcome, WrongDialect):
            self._dialect = sending.outcome.use
            self.forget()
            return await self._send_as(self._dialect, instance, send, may_start)
        return sending

    async def state(self, instance: str) -> InstanceState | Paused | None:
        """What the server says of an instance; Paused when nothing can be sent through it at all, None when it says
        nothing that can be understood."""
        found = await self._get(f"/instance/connectionState/{quote(instance, safe='')}")
        if not isinstance(found, Answered):
            return OUT_OF_REACH
        try:
            if license_missing(decode(found.body)):
                return Paused("license", "Evolution's license has to be activated")
        except Unreadable:
            pass
        state = read_state(Answer(found.status, found.body))
        return OUT_OF_REACH if state is None and found.status >= SERVER_ERROR else state

    async def _send_as(
        self, dialect: Dialect, instance: str, send: TextSend, may_start: Callable[[], bool]
    ) -> Sending | Withheld:
        request = OutboundRequest(
            method="POST",
            url=self._rules.url + send_path(instance),
            headers={**self._headers(), "Content-Type": "application/json"},
            body=send_body(send, dialect),
            timeout_s=answer_timeout_s(send.delay_ms, self._rules.timeout_s),
            may_start=may_start,
            keep_bytes=ANSWER_BYTES_MAX,
        )
        exchange = await self._egress.send(request)
        if isinstance(exchange, Withheld):
            return exchange
        if isinstance(exchange, Failed):
            return Sending(judge(Silence(exchange.written, exchange.error), dialect), exchange)
        return Sending(judge(Answer(exchange.status, exchange.body), dialect), exchange)

    async def _get(self, path: str) -> Answered | Failed | Withheld:
        request = OutboundRequest(
            method="GET",
            url=f"{self._rules.url}{path or '/'}",
            headers=self._headers(),
            body=b"",
            timeout_s=LOOK_S,
            keep_bytes=ANSWER_BYTES_MAX,
        )
        return await self._egress.send(request)

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": self._rules.user_agent}
        if self._rules.api_key:
            headers["apikey"] = self._rules.api_key
        return headers
