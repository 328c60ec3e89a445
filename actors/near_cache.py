"""Near cache: what was read lately, kept in this process for as long as it can be proved fresh.

Owns entries, least recently used out first, bounded in bytes. Knows no store and never waits. An entry is fresh while
its server tells what changes (its proof), it has not expired and nobody has forgotten it; all of that is looked at when
it is asked for, so a process that was frozen serves nothing that it slept over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import msgspec
from msgspec import Raw, Struct

from actors.cache_ports import NEVER, Loaded, Proof
from actors.core.entity_tag import entity_tag

NEAR_S_MAX = 600.0
"""No entry is believed for longer without being read again, whatever proves it."""
ENTRY_BYTES = 460
"""What an entry takes beside its key and its value [measured: `tests/unit/test_near_cache.py` holds it to that]."""
SHARE_MAX = 8
"""An entry that would fill more than the eighth part of the room is not kept."""
_JSON = msgspec.json.Decoder(Raw)
_FOREVER = float("inf")


class Entry(Struct, gc=False, eq=False):
    """What a key holds. `value` is valid JSON, None for nothing; `stored` are the bytes it was made of.

    `fresh_until` and `deadline` are boottimes: until when it may be believed, until when it may be shown at all.
    `expires_at` is room for the instant as an answer writes it, `tag` for the entity tag, which batches never ask for.
    Only these change once an entry is made.
    """

    value: bytes | None
    stored: bytes | None
    expires_ms: int
    deadline: float
    fresh_until: float
    proof: Proof
    expires_at: bytes = b""
    tag: str = ""

    @property
    def etag(self) -> str:
        """The entity tag of the stored bytes, "" for nothing."""
        if not self.tag and self.stored is not None:
            self.tag = entity_tag(self.stored)
        return self.tag


class NearCache:
    """Entries by key. `now` is always the boottime."""

    def __init__(self, bytes_max: int, stale_s: float) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self.evicted = 0
        self._stale_s = stale_s
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float) -> Entry | None:
        """The entry, if it is fresh."""
        entry = self._entries.get(key)
        if entry is None or now >= entry.fresh_until or now >= entry.proof.until:
            return None
        self._entries.move_to_end(key)
        return entry

    def get_many(self, keys: Iterable[str], now: float) -> tuple[dict[str, Entry], list[str]]:
        """The entries that are fresh, and the keys of the others, each once."""
        entries = self._entries
        used = entries.move_to_end
        found: dict[str, Entry] = {}
        missing: dict[str, None] = {}
        for key in keys:
            entry = entries.get(key)
            if entry is None or now >= entry.fresh_until or now >= entry.proof.until:
                missing[key] = None
            else:
                used(key)
                found[key] = entry
        return found, list(missing)

    def stale(self, key: str, now: float) -> Entry | None:
        """The entry, if it may be shown as stale: it has not expired, and was proved fresh not too long ago."""
        entry = self._entries.get(key)
        return None if entry is None or self._useless(entry, now) else entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep an entry, if there is room for one of its size."""
        if not self.bytes_max:
            return
        size = _size(key, entry)
        if size * SHARE_MAX > self.bytes_max:
            self.forget(key)
            return
        before = self._entries.pop(key, None)
        if before is not None:
            self.bytes -= _size(key, before)
        self._entries[key] = entry
        self.bytes += size
        while self.bytes > self.bytes_max:
            oldest, dropped = self._entries.popitem(last=False)
            self.bytes -= _size(oldest, dropped)
            self.evicted += 1

    def forget(self, key: str) -> None:
        """Drop an entry."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= _size(key, entry)

    def empty(self) -> None:
        """Drop everything."""
        self._entries.clear()
        self.bytes = 0

    def keys(self) -> list[str]:
        """Every key, as a copy."""
        return list(self._entries)

    def tidy(self, keys: Iterable[str], now: float) -> None:
        """Drop what can never be shown again among these keys."""
        for key in keys:
            entry = self._entries.get(key)
            if entry is not None and self._useless(entry, now):
                self.forget(key)

    def _useless(self, entry: Entry, now: float) -> bool:
        return now >= entry.deadline or now >= entry.proof.until + self._stale_s


def entry_of(loaded: Loaded) -> Entry:
    """What a load found, as it is kept and shown."""
    stored = loaded.value
    deadline = _FOREVER if loaded.left_ms == NEVER else loaded.asked_at + loaded.left_ms / 1000
    return Entry(
        value=None if stored is None else _as_json(stored),
        stored=stored,
        expires_ms=loaded.expires_ms,
        deadline=deadline,
        fresh_until=min(deadline, loaded.asked_at + NEAR_S_MAX),
        proof=loaded.proof,
    )


def left_ms(entry: Entry, now: float) -> int:
    """For how long an entry stays, at least 1; NEVER: for ever."""
    return NEVER if entry.expires_ms == NEVER else max(round((entry.deadline - now) * 1000), 1)


def _as_json(stored: bytes) -> bytes:
    """What another program stored may be no JSON: then it is shown as a string."""
    try:
        if not stored.isascii():
            stored.decode()
        _JSON.decode(stored)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.encode(stored.decode("utf-8", "replace"))
    return stored


def _size(key: str, entry: Entry) -> int:
    return ENTRY_BYTES + len(key) + (0 if entry.value is None else len(entry.value))
