"""Cache calls: what one script call asks for some entries of the cache, and what its reply says of each."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Literal

from msgspec import Struct

from actors.adapters.valkey.cache_shard import CacheShard
from actors.adapters.valkey.cluster_runner import Call
from actors.adapters.valkey.keys import done_once
from actors.adapters.valkey.lane import Begun, Lane
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.wire import translated
from actors.cache_ports import NEVER, UNPROVEN, CacheWrite, Loaded, Proof, TooLong, WriteOutcome
from actors.ports import StoreAway

CALL_BYTES = 4 * 1024 * 1024
"""A call stops looking when it has so much: other requests wait behind its reply."""
VALUE_BYTES_MAX = 32 * 1024 * 1024
LOOK_KEYS_MAX = 1000
"""Lua can hand no more than some thousand keys to one command."""
_OUTCOMES: Sequence[WriteOutcome] = ("absent", "done", "other_type", "mismatch")
Mode = Literal["each", "all", "sets"]
"""Of `cache_write`: each by itself; all or none; all or none, with sets among them."""


class Once(Struct, frozen=True):
    """How writes that are done once are marked: for how long, and with which hash tag for a key."""

    kept_ms: int
    tag_of: Callable[[str], str]

    def mark(self, write: CacheWrite) -> str:
        """The name of the mark."""
        digest = blake2b(f"{write.once}\n{write.key}".encode(), digest_size=16).digest()
        return done_once(self.tag_of(write.key), urlsafe_b64encode(digest).decode().rstrip("="))


class Look:
    """One call that loads some of the `keys`: those at `places`."""

    __slots__ = ("_asked_at", "_boottime", "_keys", "_of_key", "_proof", "_script", "_shard", "places")

    def __init__(
        self,
        script: Script,
        of_key: Callable[[str], CacheShard],
        boottime: Callable[[], float],
        keys: Sequence[str],
        places: Sequence[int],
    ) -> None:
        self._script = script
        self._of_key = of_key
        self._boottime = boottime
        self._keys = [keys[place] for place in places]
        self.places = places
        self._shard: CacheShard
        self._asked_at = 0.0
        self._proof: Proof = UNPROVEN

    def call(self) -> Call:
        """The call. It may be made again, elsewhere."""
        return Call(self._lane, self._run)

    def take(self, reply: Any, answers: list[Loaded | TooLong | StoreAway]) -> Sequence[int]:
        """Put what the reply says into its places; gives those it says nothing of, to be asked for again."""
        if isinstance(reply, StoreAway):
            for place in self.places:
                answers[place] = reply
            return ()
        now, *found = reply
        for place, value, expires in zip(self.places, found[::2], found[1::2], strict=False):
            answers[place] = self._loaded(value, expires, now)
        return self.places[len(found) // 2 :]

    def _loaded(self, value: bytes | int | None, expires_ms: int, now_ms: int) -> Loaded | TooLong:
        if isinstance(value, int):
            return TooLong(value)
        if value is None or expires_ms < 0:
            return Loaded(value, NEVER, NEVER, self._asked_at, self._proof)
        return Loaded(value, expires_ms, max(expires_ms - now_ms, 1), self._asked_at, self._proof)

    def _lane(self) -> Lane:
        self._shard = self._of_key(self._keys[0])
        return self._shard.hot

    def _run(self, lane: Lane) -> Begun:
        # The proof before the question: what changes from here on, it tells.
        self._proof, self._asked_at = self._shard.proof, self._boottime()
        return lane.script(self._script, self._keys, (CALL_BYTES, VALUE_BYTES_MAX))


def write_arguments(mode: Mode, writes: Sequence[CacheWrite], once: Once) -> list[Any]:
    """What `cache_write` is called with, beside the keys."""
    arguments: list[Any] = [mode]
    for write in writes:
        if write.once:
            arguments += ("o", once.mark(write), once.kept_ms)
        conditional = write.if_match or write.if_none_match
        if write.op == "set":
            if conditional:
                arguments += (f"c{write.ttl_ms}", write.if_match, write.if_none_match, write.value)
            else:
                arguments += (write.ttl_ms, write.value)
            continue
        what = "d" if write.op == "delete" else f"e{write.ttl_ms}"
        arguments += (f"c{what}", write.if_match, write.if_none_match) if conditional else (what,)
    return arguments


def write_outcome(said: int | bytes) -> WriteOutcome | StoreAway:
    """What `cache_write` says of one write."""
    if isinstance(said, int):
        return _OUTCOMES[said]
    error = translated(said.decode(errors="replace"))
    return error if isinstance(error, StoreAway) else StoreAway(str(error))
