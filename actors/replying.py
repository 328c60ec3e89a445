"""Replying: sends what a webhook answered back to the contact whose messages it was called with.

The reply is a task whose id follows from its delivery: however often that is tried, one reply is stored, the first. It
is stored before the delivery counts as delivered, so that no crash in between loses it.
"""

from __future__ import annotations

import asyncio

import msgspec

from actors.core.ids import derived_task_id
from actors.core.policy import Conversation
from actors.core.tasks import OnUnknown, TaskPolicy
from actors.ports import Claimed, Overloaded, StoreAway
from actors.tasks import Tasks, drafted

PAUSE_S = 0.1


class Replying:
    """`on_unknown` and `max_retries` are those of every reply."""

    def __init__(self, tasks: Tasks, on_unknown: OnUnknown, max_retries: int) -> None:
        self._tasks = tasks
        self._on_unknown = on_unknown
        self._max_retries = max_retries

    async def reply(self, claimed: Claimed, conversation: Conversation, text: str) -> None:
        """Store the reply; returns once that is done, however long the store is away."""
        contact = conversation.contact
        policy = TaskPolicy(
            instance=conversation.instance,
            phone=contact,
            number=contact,
            on_unknown=self._on_unknown,
            max_retries=self._max_retries,
        )
        draft = drafted(policy, contact, text)
        task_id = derived_task_id(draft.partition, f"reply to {claimed.delivery_id}")
        task = msgspec.structs.replace(draft, task_id=task_id, trace=claimed.trace)
        while True:
            try:
                await self._tasks.enqueue(task)
            except (StoreAway, Overloaded):
                await asyncio.sleep(PAUSE_S)
            else:
                return
