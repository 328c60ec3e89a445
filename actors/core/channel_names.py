"""Channel names: what a channel may be called, and who may publish on it.

Any Unicode is a name. Those that begin with `$` are the router's own events: everybody may listen, the router alone
publishes. Those that begin with `buzon:` are what it needs for itself, and no channels at all.
"""

from __future__ import annotations

NAME_BYTES_MAX = 255
INTERNAL_PREFIX = "buzon:"
EVENTS_PREFIX = "$"


def name_fault(name: str) -> str:
    """What is wrong with a name; "" for nothing. The length is that of the name in UTF-8."""
    try:
        size_bytes = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if not 1 <= size_bytes <= NAME_BYTES_MAX:
        return f"has 1 to {NAME_BYTES_MAX} bytes"
    return "begins with a prefix that is the router's own" if name.startswith(INTERNAL_PREFIX) else ""


def is_event_channel(name: str) -> bool:
    """Whether only the router itself may publish there."""
    return name.startswith(EVENTS_PREFIX)
