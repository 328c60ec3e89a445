"""Records: small answers kept once under a name, for a while; the first one written stays."""

from __future__ import annotations

from actors.adapters.valkey.keys import idempotency
from actors.adapters.valkey.runner import Runner


class ValkeyRecords:
    """Implements FirstWins. A record is its fingerprint, followed by the answer once there is one."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    async def begin(self, scope: str, fingerprint: bytes, ttl_ms: int) -> bytes | None:
        """Write the fingerprint unless there is a record; gives the record that was there before."""
        found = await self._runner.command("SET", idempotency(scope), fingerprint, "NX", "GET", "PX", ttl_ms)
        return None if found is None else bytes(found)

    async def finish(self, scope: str, fingerprint: bytes, answer: bytes, ttl_ms: int) -> bytes:
        """Add the answer unless there is one; gives the record as it is now."""
        return bytes(await self._runner.cold("idempotency", (idempotency(scope),), [fingerprint, answer, ttl_ms]))
