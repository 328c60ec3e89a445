"""Idempotency records: what the edge asks about idempotency keys, put to the store's first-wins records."""

from __future__ import annotations

from actors.ports import FirstWins
from router.edge.idempotency import Absent, InProgress, Mismatch, StoredAnswer


class IdempotencyRecords:
    """Implements the edge's IdempotencyStore. A record is the body's fingerprint, then the first answer."""

    def __init__(self, records: FirstWins) -> None:
        self._records = records

    async def begin(
        self, scope_key: str, fingerprint: bytes, ttl_s: float
    ) -> Absent | Mismatch | InProgress | StoredAnswer:
        """Note that a request with this key and body runs, unless one did before. Raises StoreAway."""
        record = await self._records.begin(scope_key, fingerprint, round(ttl_s * 1000))
        if record is None:
            return Absent()
        if not record.startswith(fingerprint):
            return Mismatch()
        return StoredAnswer(record[len(fingerprint) :]) if len(record) > len(fingerprint) else InProgress()

    async def finish(self, scope_key: str, fingerprint: bytes, answer: bytes, ttl_s: float) -> StoredAnswer | None:
        """Keep the answer if it is the first; otherwise give back the one that was. Raises StoreAway."""
        record = await self._records.finish(scope_key, fingerprint, answer, round(ttl_s * 1000))
        first = record[len(fingerprint) :]
        return None if first == answer else StoredAnswer(first)
