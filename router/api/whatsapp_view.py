"""WhatsApp view: what `GET /monitoring` shows of tasks, of Evolution API and of its instances. Never a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from actors.core.evolution_server import Server
from actors.core.rendering import rfc3339
from actors.core.tasks import TaskState
from actors.ports import StoreAway
from actors.task_ports import HealthStore

INSTANCES_SHOWN = 100


class TasksInStore(Protocol):
    """Part of `actors.task_ports.TaskStore`."""

    async def counts(self) -> Mapping[TaskState, int]: ...


class EvolutionStatus(Protocol):
    """Evolution API as this node knows it."""

    @property
    def url(self) -> str: ...
    @property
    def server(self) -> Server | None: ...


class InstanceView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of one WhatsApp instance. `state` is what Evolution told last, `held` why nothing is sent for it
    now; an instance that says it is open may still not send, so the last success and failure stand beside it."""

    instance: str
    state: str | None = None
    state_reason: int | None = None
    state_at: str | None = None
    held: str | None = None
    held_at: str | None = None
    last_sent_at: str | None = None
    last_failed_at: str | None = None
    last_failure: str | None = None
    last_event_at: str | None = None


class EvolutionView(Struct, frozen=True, kw_only=True):
    """Evolution API: where it is, what it said it is, and its instances by name, at most a hundred of `total`."""

    url: str
    version: str | None
    total: int
    instances: list[InstanceView]


class WhatsApp:
    """Asks the store, and knows what this node knows of Evolution."""

    def __init__(self, tasks: TasksInStore, health: HealthStore, evolution: EvolutionStatus) -> None:
        self._tasks = tasks
        self._health = health
        self._evolution = evolution

    async def tasks(self) -> Mapping[TaskState, int]:
        """Tasks by state; nothing while the store is away."""
        try:
            return await self._tasks.counts()
        except StoreAway:
            return {}

    async def evolution(self) -> EvolutionView:
        """Evolution and its instances; none while the store is away."""
        try:
            facts = await self._health.read()
        except StoreAway:
            facts = {}
        known = self._evolution.server
        return EvolutionView(
            url=self._evolution.url,
            version=None if known is None else known.version,
            total=len(facts),
            instances=[instance_view(name, facts[name]) for name in sorted(facts)[:INSTANCES_SHOWN]],
        )


def instance_view(name: str, facts: Mapping[str, str]) -> InstanceView:
    """One instance as it is shown."""
    reason = facts.get("state_reason", "")
    return InstanceView(
        instance=name,
        state=facts.get("state"),
        state_reason=int(reason) if reason.isdecimal() else None,
        state_at=_instant(facts.get("state_at")),
        held=facts.get("held"),
        held_at=_instant(facts.get("held_at")),
        last_sent_at=_instant(facts.get("sent_at")),
        last_failed_at=_instant(facts.get("failed_at")),
        last_failure=facts.get("failed"),
        last_event_at=_instant(facts.get("event_at")),
    )


def _instant(ms: str | None) -> str | None:
    return None if ms is None else rfc3339(int(ms))
