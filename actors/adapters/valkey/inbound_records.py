"""Inbound records: routes, contacts' names and marks of messages in the store.

Routes are one hash, read on every event, so that a change holds on every node with the next event. Names and marks are
keys of their own with times to live, spread over the servers. Nothing a caller wrote becomes part of a key's name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from actors.adapters.valkey.keys import INBOUND, PREFIXES, alias, taken
from actors.adapters.valkey.runner import Runner
from actors.core.inbound_route import ANY_INSTANCE, InboundRoute
from actors.core.partition import locate

NAMES_KEPT_S = 30 * 86_400
TAKEN_KEPT_S = 86_400
_DIGEST_BYTES = 16

_decode = msgspec.json.Decoder(InboundRoute).decode
_encode = msgspec.json.Encoder().encode


class ValkeyInboundRecords:
    """Implements InboundRecords."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def route_of(self, instance: str) -> InboundRoute | None:
        """The instance's route, else that of all others."""
        own, others = await self._runner.command("HMGET", INBOUND, instance, ANY_INSTANCE)
        found = others if own is None else own
        return None if found is None else _decode(found)

    async def get(self, instance: str) -> InboundRoute | None:
        """The route of exactly that name."""
        found = await self._runner.command("HGET", INBOUND, instance)
        return None if found is None else _decode(found)

    async def put(self, instance: str, route: InboundRoute) -> None:
        """Keep a route, instead of the one that was there."""
        await self._runner.command("HSET", INBOUND, instance, _encode(route))

    async def delete(self, instance: str) -> bool:
        """Drop a route; whether there was one."""
        return int(await self._runner.command("HDEL", INBOUND, instance)) > 0

    async def list_routes(self, after: str, limit: int) -> tuple[Sequence[tuple[str, InboundRoute]], str | None]:
        """Routes by name, those after one of them, and the name after which there are more."""
        names = sorted(name.decode() for name in await self._runner.command("HKEYS", INBOUND))
        first = bisect_right(names, after)
        wanted = names[first : first + limit]
        if not wanted:
            return (), None
        found = await self._runner.command("HMGET", INBOUND, *wanted)
        # One that has gone meanwhile is left out.
        rows = [(name, _decode(text)) for name, text in zip(wanted, found, strict=True) if text is not None]
        return rows, wanted[-1] if first + limit < len(names) else None

    async def join(self, instance: str, phone_jid: str, lid: str) -> None:
        """Remember that both are one contact."""
        for name, other in ((lid, phone_jid), (phone_jid, lid)):
            await self._runner.command("SET", alias(_digest(instance, name)), other, "EX", NAMES_KEPT_S)

    async def other_name(self, instance: str, jid: str) -> str | None:
        """The lid of a phone JID, the phone JID of a lid, as far as is remembered."""
        found = await self._runner.command("GET", alias(_digest(instance, jid)))
        return None if found is None else bytes(found).decode()

    async def is_active(self, key: str) -> bool:
        """Whether a buffer key has an open batch, or deliveries that are not over. Both are in its partition."""
        kid, partition = locate(key)
        prefix = PREFIXES[partition]
        return int(await self._runner.command("EXISTS", f"{prefix}m:{kid}", f"{prefix}q:{kid}")) > 0

    async def is_taken(self, instance: str, key_id: str) -> bool:
        """Whether a message was taken within the last day."""
        return int(await self._runner.command("EXISTS", taken(_digest(instance, key_id)))) > 0

    async def take(self, instance: str, key_id: str) -> None:
        """Remember that it was."""
        await self._runner.command("SET", taken(_digest(instance, key_id)), "", "EX", TAKEN_KEPT_S)


def _digest(instance: str, name: str) -> str:
    """One name for both; the length keeps two pairs apart that read the same."""
    return blake2b(f"{len(instance)}:{instance}{name}".encode(), digest_size=_DIGEST_BYTES).hexdigest()
