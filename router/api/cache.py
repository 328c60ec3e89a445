"""Cache: what both of its APIs share: keys, preconditions, reading one entry and changing one.

From keys and bytes to commands for the cache actor, and from its answers to bytes or to a problem. Stored values are
spliced into answers as they are. Knows neither API's words. Invariant: whatever is refused has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated

from msgspec import Meta, Struct

from actors.cache import Cache, ValueTooLong
from actors.cache_ports import NEVER, CacheWrite, OtherType, ReadHow, SliceCursor, WriteOp, WriteOutcome
from actors.cache_walks import CacheWalks
from actors.core.cache_names import PATTERN_BYTES_MAX, CacheNames, pattern_fault
from actors.core.recent import Recent
from actors.core.ttl import Ttl, parse_ttl_ms
from actors.near_cache import Entry
from actors.runtime.outcome import Tell
from router.edge.answer import Ready, ready
from router.edge.conditions import Tags, if_match, if_none_match, matches_strongly, matches_weakly
from router.edge.errors import BadInput, Conflict, NotFound, Problem
from router.edge.paging import Cursor, Limit, Token
from router.edge.query import Query
from router.edge.usecase import Reply, RequestHeaders, ToReply

TAG = "cache"
ABOUT = "Keys and JSON values: two APIs, one store, and a near cache that knows when it is fresh."
ITEMS_MAX = 1000
"""Keys in one batch."""
NO_SUCH_KEY = "Clave no encontrada"
STORED = "Valor guardado en cache"
DELETED = "Clave eliminada del cache"
ALL_DELETED = "Claves eliminadas"
FLUSHED = "Cache limpiado"
KEY_PATH = {"key": "The key, percent-encoded."}
STATIC = "(?:keys|stats|batch|exists|pattern|flush)"
"""Segments that win over keys of the same name."""

TtlField = Annotated[Ttl, Meta(description='Seconds, a Go duration (`"1h30m"`, `"100ms"`), or `"none"`: for ever.')]
Key = Annotated[str, Meta(description="1 to 512 bytes in UTF-8.")]
Keys = Annotated[list[str], Meta(max_length=ITEMS_MAX)]

SHOWN_VALUE_BYTES_MAX = 2048
SHOWN_BYTES_MAX = 2 * 2**20
"""Of short values the whole answers are kept: in a generation of each API about so much."""
SHOWN_BYTES = 1100
"""What a kept answer takes beside its body."""
EXACT_MS = 60_000
"""What stays for less is told to the millisecond, and its answers are written anew each time."""

Render = Callable[[str, bytes, Entry, int], bytes]
"""Writes an answer of key, value, entry and how long it stays (ms)."""

_FOREVER = float("inf")
_ENTITY_TAG_LENGTH = 40
_HEXADECIMAL = frozenset("0123456789abcdef")
_CURSOR = Cursor(SliceCursor)


class ListQuery(Struct, frozen=True, kw_only=True):
    """The query of a list of keys. Without `limit`: as many as can be found in a short while, up to 10,000."""

    pattern: Annotated[str, Meta(description=f"A Redis glob of at most {PATTERN_BYTES_MAX} bytes.")] = "*"
    limit: Limit | None = None
    cursor: Token | None = None


_LIST = Query(ListQuery)


class NameList(Struct, frozen=True, kw_only=True):
    """Some keys that match; `cursor` goes on there, null at the end."""

    pattern: str
    count: int
    keys: list[str]
    cursor: str | None


class Entries:
    """What the routes of both APIs do with entries."""

    def __init__(self, cache: Cache, walks: CacheWalks, names: CacheNames, default_ttl_ms: int) -> None:
        self.cache = cache
        self.walks = walks
        self._names = names
        self._default_ttl_ms = default_ttl_ms

    async def find(self, key: str) -> tuple[Entry, ReadHow]:
        """The entry, which may hold nothing. Raises `BadInput`, and 413 for a value that is too long."""
        self.check(key)
        try:
            return await self.cache.read(key)
        except ValueTooLong as error:
            raise too_long(error) from None

    async def change(self, op: WriteOp, key: str, headers: RequestHeaders, value: bytes = b"", ttl_ms: int = 0) -> bool:
        """Do one write under the request's preconditions; False when there was nothing to delete or to expire.

        Raises `BadInput`, `Conflict` (no string), 412.
        """
        return _changed(key, await self.cache.write(self.write_of(op, key, headers, value, ttl_ms)))

    def store(self, write: CacheWrite, reply: Reply, tell: Tell[WriteOutcome]) -> ToReply[WriteOutcome]:
        """Do one write of `write_of`; gives what answers it with `reply`, or raises as `change` does."""
        key = write.key

        def answer(outcome: WriteOutcome) -> Reply:
            _changed(key, outcome)
            return reply

        self.cache.submit(write, tell)
        return answer

    def write_of(
        self, op: WriteOp, key: str, headers: RequestHeaders, value: bytes = b"", ttl_ms: int = 0, once: str = ""
    ) -> CacheWrite:
        """One write under the request's preconditions. Raises `BadInput`, 412."""
        self.check(key)
        wanted = unwanted = ""
        if _is_conditional(headers):
            wanted, unwanted = _preconditions(key, headers)
        return CacheWrite(
            key=key, op=op, value=value, ttl_ms=ttl_ms, if_match=wanted, if_none_match=unwanted, once=once
        )

    async def change_all(self, writes: Sequence[CacheWrite]) -> int:
        """Do all of these or none; how many have changed something. Raises `Conflict`."""
        outcomes = await self.cache.write_all(writes) if writes else ()
        if isinstance(outcomes, OtherType):
            raise other_type(outcomes.key)
        return sum(outcome == "done" for outcome in outcomes)

    async def list_names(self, query: Mapping[str, str]) -> NameList:
        """The keys that a query asks for."""
        wanted = _LIST.decode(query)
        check_pattern(wanted.pattern)
        cursor = _CURSOR.decode(wanted.cursor) or SliceCursor()
        if cursor.server < 0 or cursor.place < 0:
            raise BadInput("cursor", "is not one that this API gave out")
        names, following = await self.walks.names(wanted.pattern, cursor, wanted.limit)
        return NameList(
            pattern=wanted.pattern,
            count=len(names),
            keys=names,
            cursor=None if following is None else _CURSOR.encode(following),
        )

    def check(self, key: str, pointer: str = "key") -> None:
        """Raise `BadInput` for what can't be a key."""
        if fault := self._names.fault(key):
            raise bad_key(pointer, key, fault)

    def check_all(self, keys: Sequence[str], pointer: Callable[[int], str]) -> None:
        """Raise `BadInput` for the first that can't be a key."""
        found = self._names.first_fault(keys)
        if found is not None:
            at, key, fault = found
            raise bad_key(pointer(at), key, fault)

    def ttl_ms(self, ttl: Ttl | None, pointer: str = "$.ttl") -> int:
        """Milliseconds, 0 for ever, of what the caller said or didn't. Raises `BadInput`."""
        if ttl is None:
            return self._default_ttl_ms
        try:
            return parse_ttl_ms(ttl)
        except ValueError as error:
            raise BadInput(pointer, str(error)) from None


class _Shown(Struct, frozen=True, gc=False):
    """What was shown of an entry; it stays true until then (boottime)."""

    entry: Entry
    reply: Ready
    until: float


def _weight(shown: _Shown) -> int:
    """Bytes, about."""
    return SHOWN_BYTES + len(shown.reply.body)


class Reading:
    """How one API answers reads of one entry; `render` writes the body. Of a hot key the same text goes out again
    until what it says of the time that is left has changed."""

    def __init__(self, entries: Entries, render: Render) -> None:
        self._cache = entries.cache
        self._find = entries.find
        self._render = render
        self._shown: Recent[str, _Shown] = Recent(SHOWN_BYTES_MAX, _weight)

    async def show(self, key: str, headers: RequestHeaders) -> Reply:
        """The entry. 304 when the caller has it."""
        reply = self.now(key, headers)()
        return self._answer(key, headers, *await self._find(key)) if reply is None else reply

    def now(self, key: str, headers: RequestHeaders) -> Callable[[], Reply | None]:
        """What gives the same to such requests if this node has the entry near; None when it must be asked for."""
        return partial(self._show_now, key, headers, _is_conditional(headers))

    def _show_now(self, key: str, headers: RequestHeaders, conditional: bool) -> Reply | None:
        cache = self._cache
        now = cache.now()
        entry = cache.read_now(key, now)
        if entry is None:
            return None
        shown = self._shown[key]
        if shown is not None and shown.entry is entry and now < shown.until and not conditional:
            return shown.reply
        return self._answer(key, headers, entry, "hit")

    def _answer(self, key: str, headers: RequestHeaders, entry: Entry, how: ReadHow) -> Reply:
        value = entry.value
        if value is None:
            raise missing(key, how)
        left_ms = self._cache.left_ms(entry)
        head = f'ETag: "{entry.etag}"\r\nCache-Status: {cache_status(how, left_ms)}\r\nCache-Control: no-cache\r\n'
        if _is_conditional(headers) and _is_known(entry.etag, key, headers):
            return Reply(304, b"", None, head)
        reply = ready(200, self._render(key, value, entry, left_ms), head)
        until = said_until(entry, left_ms)
        if until and how == "hit" and len(value) <= SHOWN_VALUE_BYTES_MAX:
            self._shown.remember(key, _Shown(entry, reply, until))
        return reply


def _changed(key: str, outcome: WriteOutcome) -> bool:
    if outcome == "mismatch":
        raise unmet(key)
    if outcome == "other_type":
        raise other_type(key)
    return outcome == "done"


def cache_status(how: ReadHow, left_ms: int) -> str:
    """`Cache-Status` (RFC 9211); `left_ms` below 0: not known, or for ever."""
    if how == "hit":
        return f"buzon; hit; ttl={left_ms // 1000}" if left_ms >= 0 else "buzon; hit"
    return _STATUS[how]


_STATUS: Mapping[ReadHow, str] = {
    "miss": "buzon; fwd=miss",
    "collapsed": "buzon; fwd=miss; collapsed",
    "stale": "buzon; hit; stale",
}


def said_ms(left_ms: int) -> int:
    """The time left as it is said: of a minute or more in whole seconds, rounded up."""
    return left_ms if left_ms < EXACT_MS else -(-left_ms // 1000) * 1000


def said_until(entry: Entry, left_ms: int) -> float:
    """Until when (boottime) the same is said of an entry that has so much time left; 0: no longer."""
    if left_ms == NEVER:
        return _FOREVER
    return entry.deadline - left_ms // 1000 if left_ms >= EXACT_MS else 0.0


def missing(key: str, how: ReadHow | None = None) -> NotFound:
    """There is nothing under a key."""
    problem = NotFound(NO_SUCH_KEY, extra={"message": NO_SUCH_KEY, "key": key})
    if how is not None:
        problem.headers = {"Cache-Status": cache_status(how, -1)}
    return problem


def other_type(key: str) -> Conflict:
    """A key holds what is no cache entry."""
    detail = "the key holds another type of value, which is no cache entry"
    return Conflict(detail, extra={"message": detail, "key": key})


def unmet(key: str) -> Problem:
    """A precondition does not hold."""
    detail = "the precondition does not hold for what is stored"
    return Problem(412, detail, extra={"message": detail, "key": key})


def too_long(error: ValueTooLong) -> Problem:
    """A value is too long to be read."""
    detail = f"{error.size_bytes} bytes are more than is read at once"
    return Problem(413, detail, extra={"message": detail, "key": error.key})


def bad_key(pointer: str, key: str, fault: str) -> BadInput:
    """What was given can't be a key. It is named unless it is too long, or no text, to be repeated."""
    named = {"key": key} if fault.startswith("begins") else {}
    return BadInput(pointer, fault, extra={"message": fault, **named})


def check_unconditional(headers: RequestHeaders) -> None:
    """Refuse a precondition on what changes many keys: nobody could say which of them it was meant for."""
    for name, given in (("If-Match", headers.if_match), ("If-None-Match", headers.if_none_match)):
        if given:
            raise BadInput(name, "is not taken for a request that may change many keys")


def check_pattern(pattern: str, pointer: str = "pattern") -> None:
    """Raise `BadInput` for what can't be a pattern."""
    if fault := pattern_fault(pattern):
        raise BadInput(pointer, fault)


def _is_conditional(headers: RequestHeaders) -> bool:
    return headers.if_none_match != "" or headers.if_match != ""


def _is_known(etag: str, key: str, headers: RequestHeaders) -> bool:
    """Whether the caller has this version. Raises 412 when it wants another one."""
    wanted, had = if_match(headers), if_none_match(headers)
    if wanted is not None and not matches_strongly(wanted, etag):
        raise unmet(key)
    return had is not None and matches_weakly(had, etag)


def _preconditions(key: str, headers: RequestHeaders) -> tuple[str, str]:
    """Both, as `CacheWrite` wants them. Raises 412 for one that nothing can fulfil."""
    wanted, unwanted = if_match(headers), if_none_match(headers)
    ours = "" if wanted is None else _ours(wanted, wanted.strong)
    if wanted is not None and not ours:
        raise unmet(key)
    return ours, "" if unwanted is None else _ours(unwanted, unwanted.strong + unwanted.weak)


def _ours(tags: Tags, listed: Sequence[str]) -> str:
    """Those that could be ours at all: a tag of another make is never the one of a stored value."""
    if tags.any:
        return "*"
    return ",".join(tag for tag in listed if len(tag) == _ENTITY_TAG_LENGTH and _HEXADECIMAL.issuperset(tag))
