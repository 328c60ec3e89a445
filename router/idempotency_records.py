"""Idempotency records: what the edge asks about idempotency keys, put to the store's first-wins records."""

from __future__ import annotations

from collections.abc import Callable

from actors.record_ports import FirstWins
from router.edge.idempotency import Absent, InProgress, Mismatch, StoredAnswer

NONCE_BYTES = 8
"""So that a key that was forgotten and is used again is another request, whose ids are new."""


class IdempotencyRecords:
    """Implements the edge's IdempotencyStore. A record is its token (the body's fingerprint and a nonce), then the
    first answer. `entropy` gives random bytes."""

    def __init__(self, records: FirstWins, entropy: Callable[[int], bytes]) -> None:
        self._records = records
        self._entropy = entropy

    async def begin(
        self, scope_key: str, fingerprint: bytes, ttl_s: float
    ) -> Absent | Mismatch | InProgress | StoredAnswer:
        """Note that a request with this key and body runs, unless one did before. Raises StoreAway."""
        token = fingerprint + self._entropy(NONCE_BYTES)
        record = await self._records.begin(scope_key, token, round(ttl_s * 1000))
        if record is None:
            return Absent(token)
        if not record.startswith(fingerprint):
            return Mismatch()
        earlier, answer = record[: len(token)], record[len(token) :]
        return StoredAnswer(answer) if answer else InProgress(earlier)

    async def finish(self, scope_key: str, token: bytes, answer: bytes, ttl_s: float) -> StoredAnswer | None:
        """Keep the answer if it is the first; otherwise give back the one that was. Raises StoreAway."""
        record = await self._records.finish(scope_key, token, answer, round(ttl_s * 1000))
        first = record[len(token) :]
        return None if first == answer else StoredAnswer(first)
