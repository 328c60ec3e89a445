"""An Evolution API that costs next to nothing: `python -m tests.bench.evolution_fast PORT`, made of the fast sink.

Takes `POST /message/sendText/{instance}` with the key and answers 201 as version 2.4 does: with the id that was chosen,
else with one of its own each time. A message counts once, by the number at the end of its text; GETs are not counted.
"""

from __future__ import annotations

import sys
from itertools import count
from time import time

import msgspec
import uvloop
from msgspec import Struct

from tests.bench.sink_fast import Sink, json_answer, serve
from tests.bench.task_requests import number_of

KEY = "bench-key"
SEND = b"POST /message/sendText/"
STATE = b"GET /instance/connectionState/"
WELCOME = json_answer(
    {"status": 200, "message": "Welcome to the Evolution API, it is working!", "version": "2.4.0-rc2"}
)
UNAUTHORIZED = json_answer(
    {"status": 401, "error": "Unauthorized", "response": {"message": "Unauthorized"}}, "401 Unauthorized"
)
NOT_FOUND = json_answer({"status": 404, "error": "Not Found", "response": {"message": ["Cannot"]}}, "404 Not Found")


class SendText(Struct, frozen=True, rename="camel"):
    """The body of a send, as far as it matters here."""

    number: str
    text: str
    message_id: str | None = None


class Key(Struct, frozen=True, rename="camel"):
    """Names a message in WhatsApp."""

    remote_jid: str
    id: str
    from_me: bool = True


class Conversation(Struct, frozen=True):
    """A message's content."""

    conversation: str


class Sent(Struct, frozen=True, rename="camel"):
    """The answer to a send."""

    key: Key
    message: Conversation
    message_timestamp: int
    status: str = "PENDING"
    message_type: str = "conversation"


class Evolution(Sink):
    """Counts sends: `messages` are those that are here for the first time, `requests` all of them."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[int] = set()
        self._answers = count(1)

    def reply(self, head: bytes, body: bytes) -> bytes:
        """Count a send once."""
        if not head.startswith(SEND):
            return NOT_FOUND
        if b": " + KEY.encode() not in head:
            return UNAUTHORIZED
        send = decode(body)
        self._seen.add(number_of(send.text))
        self.counts.messages = len(self._seen)
        jid = send.number if "@" in send.number else send.number.lstrip("+") + "@s.whatsapp.net"
        key = Key(jid, send.message_id or f"3EB0{next(self._answers):018X}")
        return json_answer(Sent(key, Conversation(send.text), int(time())), "201 Created")

    def page(self, head: bytes) -> bytes:
        """The version, or an instance that is open."""
        if head.startswith(STATE):
            name = head[len(STATE) :].split(b" ", 1)[0].decode()
            return json_answer({"instance": {"instanceName": name, "state": "open"}})
        return WELCOME if head.startswith((b"GET / ", b"GET /readyz ")) else NOT_FOUND


decode = msgspec.json.Decoder(SendText).decode


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), Evolution()))
