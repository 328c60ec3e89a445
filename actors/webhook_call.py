"""Webhook call: the errand of a closed batch: build the request, post it, judge the answer.

Owns what a webhook is sent and what follows from its answer. Never writes an outcome down. A batch whose webhook may
answer its contact hands the reply over before the outcome is written, so that no crash loses it.
Invariant: every try posts the same bytes under the same `webhook-id`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import assert_never

import msgspec
from msgspec import Struct

from actors.core import rendering, retry, signing, trace
from actors.core.outcome import Answered, Failed
from actors.core.policy import Conversation, Policy
from actors.core.replies import REPLY_BYTES_MAX, reply_text
from actors.egress_ports import Egress, OutboundRequest, Withheld
from actors.errand import Tried
from actors.ports import Claimed, Clock, Settled

_policy_decoder = msgspec.json.Decoder(Policy)


@lru_cache(maxsize=1024)
def policy_of(stored: bytes) -> Policy:
    """The policy as it was frozen with the batch."""
    return _policy_decoder.decode(stored)


class DeliveryRules(Struct, frozen=True, kw_only=True):
    """What holds where a webhook says nothing itself."""

    timeout_s: float
    max_retries: int
    retry_delay_s: float
    user_agent: str


async def _nobody(_claimed: Claimed, _conversation: Conversation, _text: str) -> None:
    raise RuntimeError("replies have nowhere to go")


class WebhookCall:
    """Implements Errand."""

    def __init__(self, egress: Egress, rules: DeliveryRules, clock: Clock, jitter: Callable[[], float]) -> None:
        self._egress = egress
        self._rules = rules
        self._clock = clock
        self._jitter = jitter
        self.reply: Callable[[Claimed, Conversation, str], Awaitable[None]] = _nobody
        """Have a text sent back; returns once that is promised. Set once by the composition root."""

    async def run(self, claimed: Claimed, may_start: Callable[[], bool]) -> Tried | Withheld:
        """Post the batch once."""
        policy = policy_of(claimed.policy)
        outcome = await self._egress.send(self._build(claimed, policy, may_start))
        if isinstance(outcome, Withheld):
            return outcome
        max_retries = policy.webhook.max_retries
        verdict = retry.decide(
            outcome,
            failures=claimed.failures,
            max_retries=self._rules.max_retries if max_retries is None else max_retries,
            retry_delay_s=self._rules.retry_delay_s,
            now_wall=self._clock.wall(),
            jitter=self._jitter(),
        )
        if isinstance(verdict, retry.Delivered):
            await self._answer(claimed, policy.conversation, outcome)
        return Tried(
            outcome=outcome,
            status=_status_after(verdict),
            retry_in_ms=round(verdict.seconds * 1000) if isinstance(verdict, retry.RetryIn) else 0,
        )

    async def _answer(self, claimed: Claimed, conversation: Conversation | None, outcome: Answered | Failed) -> None:
        """Send what the webhook said back to whom the batch came from, if its route wants that."""
        if conversation is None or conversation.reply is None or isinstance(outcome, Failed):
            return
        text = reply_text(outcome.content_type, outcome.body, conversation.reply or None)
        if text is not None:
            await self.reply(claimed, conversation, text)

    def _build(self, claimed: Claimed, policy: Policy, may_start: Callable[[], bool]) -> OutboundRequest:
        webhook = policy.webhook
        body = rendering.render(policy, key=claimed.key, reason=claimed.reason, messages=claimed.messages)
        dispatch = signing.Dispatch(
            delivery_id=claimed.delivery_id,
            attempted_at_s=int(self._clock.wall()),
            attempt=claimed.attempt,
            key=claimed.key,
            size=len(claimed.messages),
            reason=claimed.reason,
            traceparent=claimed.trace or trace.derived(claimed.delivery_id).header,
        )
        wants_reply = policy.conversation is not None and policy.conversation.reply is not None
        return OutboundRequest(
            method=webhook.method,
            url=webhook.url,
            headers=signing.delivery_headers(webhook, dispatch, body, self._rules.user_agent),
            body=body,
            timeout_s=webhook.timeout or self._rules.timeout_s,
            may_start=may_start,
            keep_bytes=REPLY_BYTES_MAX if wants_reply else 0,
        )


def _status_after(verdict: retry.Verdict) -> Settled:
    match verdict:
        case retry.Delivered():
            return "delivered"
        case retry.RetryIn():
            return "retrying"
        case retry.Dead():
            return "dead"
        case _:
            assert_never(verdict)
