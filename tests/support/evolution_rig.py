"""Evolution rig: a server of Evolution API's that is told what to answer, and sends through it in virtual time.

Records what it was asked; checks nothing itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit

import msgspec

from actors.core.outcome import Answered, Failed
from actors.egress_ports import OutboundRequest, Withheld
from actors.evolution import Evolution, EvolutionRules
from actors.instances import Instances, InstanceTools, Pacing
from actors.ports import StoreAway
from actors.task_send import TaskSend
from tests.support.doubles import Stage
from tests.support.until import passing

URL = "http://evolution.example:8080/base"
KEY = "B6D711FCDE4D4FD5936544120E713976"
RETRY_DELAY_S = 5.0
Step = Answered | Failed


def said(status: int, body: object, latency_ms: float = 3.0) -> Answered:
    """An answer with a JSON body."""
    raw = msgspec.json.encode(body)
    return Answered(status, None, raw[:1024].decode(), latency_ms, raw, "application/json")


def welcome(version: str) -> Answered:
    """What `GET /` says."""
    return said(200, {"status": 200, "message": "Welcome to the Evolution API", "version": version})


def taken(key_id: str = "3EB0A") -> Answered:
    """A send that was made."""
    return said(201, {"key": {"id": key_id, "remoteJid": "1@s.whatsapp.net", "fromMe": True}, "status": "PENDING"})


def fault(message: object, status: int = 400) -> Answered:
    """An error as Evolution wraps it."""
    return said(status, {"status": status, "error": "Bad Request", "response": {"message": message}})


def state(word: str | None) -> Answered:
    """What the state of an instance is said to be."""
    return said(200, {"instance": {"instanceName": "i", "state": word}})


LICENSE = said(503, {"code": "LICENSE_REQUIRED"})
CLOSED = fault("Connection Closed")
REFUSED = Failed("connection refused", 1.0)
SILENCE = Failed("timeout", 60_000.0, written=True)
NO_NUMBER = fault([{"jid": "1@s.whatsapp.net", "exists": False, "number": "1"}])
NO_LID = fault([{"jid": "1@lid", "exists": False, "number": "1@lid"}])
WANTS_V1 = fault([['instance requires property "textMessage"']])
WANTS_V2 = fault([['instance requires property "text"']])


class Server:
    """Implements Egress. What is `planned` for a kind of request is used up in order, then its default holds."""

    def __init__(self, version: str = "2.4.0") -> None:
        self.version: Step = welcome(version)
        self.state: Step = state("open")
        self.send_default: Step = taken()
        self.planned: dict[str, deque[Step]] = {"look": deque(), "state": deque(), "send": deque()}
        self.asked: list[tuple[str, OutboundRequest]] = []
        self.took_s = 0.0
        self.on_request: Callable[[str], None] = lambda _kind: None

    async def send(self, request: OutboundRequest) -> Answered | Failed | Withheld:
        """Take a request."""
        kind = self._kind(request)
        if not request.may_start():
            return Withheld()
        self.asked.append((kind, request))
        self.on_request(kind)
        if self.took_s:
            await passing(self.took_s)
        default = {"look": self.version, "state": self.state, "send": self.send_default}[kind]
        return self.planned[kind].popleft() if self.planned[kind] else default

    def count(self, kind: str) -> int:
        """How many requests of a kind there were."""
        return sum(each == kind for each, _ in self.asked)

    def of(self, kind: str) -> list[OutboundRequest]:
        """The requests of a kind."""
        return [request for each, request in self.asked if each == kind]

    def bodies(self) -> list[dict[str, object]]:
        """What was asked to be sent, in order."""
        return [msgspec.json.decode(request.body) for request in self.of("send")]

    @staticmethod
    def _kind(request: OutboundRequest) -> str:
        path = unquote(urlsplit(request.url).path)
        if "/connectionState/" in path:
            return "state"
        return "send" if "/sendText/" in path else "look"


class HealthTable:
    """Implements HealthStore; while it is `away` every call fails."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[str, str]] = {}
        self.away = False
        self.notes = 0

    async def note(self, facts: Mapping[tuple[str, str], str]) -> None:
        """Keep facts."""
        if self.away:
            raise StoreAway("away")
        self.notes += 1
        for (what, instance), value in facts.items():
            of = self.facts.setdefault(instance, {})
            of[what] = value
            if not value:
                del of[what]

    async def read(self) -> Mapping[str, Mapping[str, str]]:
        """All facts."""
        if self.away:
            raise StoreAway("away")
        return self.facts


class EvolutionRig:
    """A server and all that sends through it on one node."""

    def __init__(self, stage: Stage, version: str = "2.4.0", *, key: str = KEY, pacing: Pacing | None = None) -> None:
        self.stage = stage
        self.server = Server(version)
        self.health = HealthTable()
        self.chance = 0.5
        rules = EvolutionRules(url=URL, api_key=key, timeout_s=60.0, user_agent="buzon/test")
        self.evolution = Evolution(self.server, rules, stage.clock)
        tools = InstanceTools(
            clock=stage.clock,
            chance=lambda: self.chance,
            journal=stage.journal,
            held=stage.meters.lanes_held,
            supervisor=stage.supervisor,
        )
        self.instances = Instances(self.evolution, self.health, pacing or Pacing(), tools)
        self.errand = TaskSend(self.evolution, self.instances, RETRY_DELAY_S)
        self.freed: list[str] = []
        self.instances.on_free = self.freed.append

    def run(self) -> None:
        """Have the service of instances run."""
        self.stage.supervisor.service("instances", self.instances.run)
        self.stage.supervisor.service("held instances", self.instances.ask)
