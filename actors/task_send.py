"""Task send: the errand of a task: have Evolution send its text, and judge what became of it.

Owns what Evolution is given and what the outcome means for the task and for its instance's lane. Never writes an
outcome down. Invariants: one task always sends one message id where the server takes one; a task of which nobody knows
whether it was sent is sent again only if that cannot send twice or its request allows it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_never

import msgspec

from actors.core import tasks
from actors.core.evolution_answers import Rejected, SendOutcome, Sent, Trouble, Uncertain
from actors.core.evolution_send import TextSend, message_id_for
from actors.core.evolution_server import Paused, Server
from actors.core.outcome import Answered, Failed
from actors.core.partition import mark_of
from actors.core.phones import LID_DOMAIN
from actors.core.tasks import Failure, Success, TaskPolicy, policy_of
from actors.egress_ports import Withheld
from actors.errand import Tried
from actors.evolution import OUT_OF_REACH, Evolution, Sending
from actors.instances import Instances
from actors.ports import Claimed

CUT_OFF = "the node that sent it stopped before it knew the outcome"
_encode = msgspec.json.Encoder().encode


async def _no_phone(_instance: str, _lid: str) -> str | None:
    return None


class TaskSend:
    """Implements Errand. `retry_delay_s` is the wait between two tries."""

    def __init__(self, evolution: Evolution, instances: Instances, retry_delay_s: float) -> None:
        self._evolution = evolution
        self._instances = instances
        self._retry_in_ms = round(retry_delay_s * 1000)
        self.phone_of: Callable[[str, str], Awaitable[str | None]] = _no_phone
        """The phone JID that is known to be the same contact as a lid of an instance; set by the composition root."""

    async def run(self, claimed: Claimed, may_start: Callable[[], bool]) -> Tried | Withheld:
        """Have the text sent once."""
        policy = policy_of(claimed.policy)
        server = await self._server(policy.instance)
        once = isinstance(server, Server) and server.honours_message_id
        if isinstance(server, Paused):
            if claimed.cut_off:
                return Withheld()  # a try that is written down would hide that nobody knows of the one before
            return self._tried(policy, tasks.Held(server.reason), Failed(server.reason, 0.0))
        if claimed.cut_off and not once and policy.on_unknown == "dead":
            return self._tried(policy, tasks.Given(CUT_OFF, uncertain=True), Failed(CUT_OFF, 0.0))
        sending = await self._send(claimed, policy, once, may_start)
        if isinstance(sending, Withheld):
            return sending
        paused = await self._pause_after(policy.instance, sending)
        verdict = tasks.decide(sending.outcome, paused, policy, failures=claimed.failures, once=once)
        tried = self._tried(policy, verdict, sending.exchange)
        return tried if _says_something_of_all(sending.outcome) else msgspec.structs.replace(tried, blames_line=False)

    async def _server(self, instance: str) -> Server | Paused | None:
        """What the server is, or why nothing is sent now. A lane can be held after a try began: while it waited for its
        turn, or for what the server says."""
        held = self._instances.why_held(instance)
        if held is not None:
            return held
        server = await self._evolution.look()
        if isinstance(server, Paused):
            self._instances.hold(instance, server)
            return server
        held = self._instances.why_held(instance)
        if held is None and server is None and self._evolution.silent:
            # It may take message ids. Sent without one now, and with one when it has said so, a text would come twice.
            return await self._instances.doubt(instance, Trouble("unreachable", OUT_OF_REACH.reason))
        return held or server

    async def _send(
        self, claimed: Claimed, policy: TaskPolicy, once: bool, may_start: Callable[[], bool]
    ) -> Sending | Withheld:
        """Send to the number as it was given; a lid that this version does not find is tried by its phone, if known."""
        send = TextSend(
            number=policy.number,
            text=claimed.messages[0][2].decode(),
            message_id=message_id_for(claimed.delivery_id, claimed.created_ms) if once else None,
        )
        sending = await self._evolution.send(policy.instance, send, may_start)
        if _is_lost(sending) and policy.number.endswith(LID_DOMAIN):
            phone = await self.phone_of(policy.instance, policy.number)
            if phone is not None:
                other = msgspec.structs.replace(send, number=phone)
                return await self._evolution.send(policy.instance, other, may_start)
        return sending

    async def _pause_after(self, instance: str, sending: Sending) -> Paused | None:
        """What a send says about its instance, asked for where it says that something is wrong."""
        match sending.outcome:
            case Sent():
                self._instances.sent(instance)
            case Rejected(_, reason):
                self._instances.failed(instance, reason)
            case Paused() as paused:
                self._instances.hold(instance, paused)
                return paused
            case Trouble() as trouble:
                self._instances.failed(instance, trouble.reason)
                return await self._instances.doubt(instance, trouble)
            case Uncertain(reason):
                self._instances.failed(instance, reason)
                return await self._instances.doubt(instance, Trouble("other", reason))
        return None

    def _tried(self, policy: TaskPolicy, verdict: tasks.Verdict, exchange: Answered | Failed) -> Tried:
        match verdict:
            case tasks.Succeeded(key_id):
                return Tried(
                    outcome=_plain(exchange),
                    status="delivered",
                    result=_encode(Success(phone=policy.phone, evolution_key=key_id)),
                    mark=mark_of(policy.instance, key_id),
                )
            case tasks.Again(reason):
                return Tried(outcome=_with_reason(exchange, reason), status="retrying", retry_in_ms=self._retry_in_ms)
            case tasks.Held(reason):
                return Tried(
                    outcome=_with_reason(exchange, reason), status="held", retry_in_ms=round(tasks.HELD_S * 1000)
                )
            case tasks.Given(reason, uncertain):
                failure = Failure(success=False, phone=policy.phone, error=reason, uncertain=uncertain)
                outcome = _refused(exchange) if isinstance(exchange, Answered) else _with_reason(exchange, reason)
                return Tried(outcome=outcome, status="dead", result=_encode(failure))
            case _:
                assert_never(verdict)


def _says_something_of_all(outcome: SendOutcome) -> bool:
    """Whether other sends of the instance would go the same way: a fault that its instance does not confirm may be one
    of this contact."""
    return not isinstance(outcome, Trouble) or outcome.kind in ("closed", "rate_limited", "not_loaded", "unreachable")


def _is_lost(sending: Sending | Withheld) -> bool:
    """Whether Evolution did not find a lid, which some versions do not find though it is there."""
    outcome = sending.outcome if isinstance(sending, Sending) else None
    return isinstance(outcome, Rejected) and outcome.kind == "lid_not_found"


def _plain(exchange: Answered | Failed) -> Answered | Failed:
    """What was said, without its words: it repeats the text."""
    return msgspec.structs.replace(exchange, excerpt="", body=b"") if isinstance(exchange, Answered) else exchange


def _refused(exchange: Answered) -> Answered:
    return Answered(exchange.status, None, "", exchange.latency_ms)


def _with_reason(exchange: Answered | Failed, reason: str) -> Failed:
    """A failure of the lane: what wants to be tried again counts against it, whatever its status was."""
    return Failed(reason, exchange.latency_ms)
