"""Trace context: reads and writes the `traceparent` header (W3C Trace Context, level 1).

Pure: ids come from the caller. A header that cannot be understood is `None`, never an error: the specification asks
for a new trace then. Flags are kept as they came, unknown bits included (level 2 already uses 0x02).
"""

from __future__ import annotations

import re
from hashlib import blake2b

from msgspec import Struct

SAMPLED = 0x01
_VERSION_00_CHARACTERS = 55
_HEADER = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


class Trace(Struct, frozen=True, gc=False):
    """One position in a trace: 32 and 16 lower-case hex digits, and the flags byte."""

    trace_id: str
    span_id: str
    flags: int = SAMPLED

    @property
    def header(self) -> str:
        """The `traceparent` to send on, always in version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse(header: str | None) -> Trace | None:
    """Read a `traceparent`; versions from 01 on may carry more after the flags, version ff is invalid."""
    if header is None:
        return None
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, _more = match.groups()
    if version == "ff" or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    if version == "00" and len(header) != _VERSION_00_CHARACTERS:
        return None
    return Trace(trace_id, span_id, int(flags, 16))


def child(parent: Trace, span: int) -> Trace:
    """The next position in the parent's trace. `span` is 64 random bits."""
    return Trace(parent.trace_id, _hex(span, 16), parent.flags)


def fresh(trace: int, span: int, flags: int = SAMPLED) -> Trace:
    """The first position of a new trace. `trace` is 128 random bits, `span` 64."""
    return Trace(_hex(trace, 32), _hex(span, 16), flags)


def derived(seed: str) -> Trace:
    """The trace of something that came without one, the same for the same seed (a delivery id): retries share it."""
    digits = blake2b(seed.encode(), digest_size=24).hexdigest()
    return Trace(_some(digits[:32]), _some(digits[32:]))


def _hex(value: int, digits: int) -> str:
    return _some(f"{value % (1 << 4 * digits):0{digits}x}")


def _some(digits: str) -> str:
    """All zeros means "none" in the specification, so the one value in 2^64 that would say that becomes 1."""
    return digits if digits.strip("0") else digits[:-1] + "1"
