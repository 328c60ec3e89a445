"""Record ports: small answers that are kept once. Nothing here does anything."""

from __future__ import annotations

from typing import Protocol


class FirstWins(Protocol):
    """Records of which the first answer stays; a record is its fingerprint, then the answer. May raise StoreAway."""

    async def begin(self, scope: str, fingerprint: bytes, ttl_ms: int) -> bytes | None: ...
    async def finish(self, scope: str, fingerprint: bytes, answer: bytes, ttl_ms: int) -> bytes: ...
