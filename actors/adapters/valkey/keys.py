"""Keys: the names the router's own data has in the store. All begin with the reserved prefix.

A partition's keys share the hash tag of its two hex digits, so one partition lives on one Redis Cluster slot; nothing
a user wrote ever becomes part of a name.
"""

from __future__ import annotations

from actors.core.partition import PARTITIONS

RESERVED_PREFIX = "buzon:"
CONFIG = "buzon:cfg"
NODES = "buzon:{buzon:cfg}:nodes"
LOG = "buzon:{buzon:cfg}:log"
INBOUND = "buzon:{buzon:cfg}:inbound"
"""The tag puts them into the slot of CONFIG."""
HEALTH = "buzon:{buzon:cfg}:instances"
"""What is known of WhatsApp instances, as `what:instance`."""
EVENTS = "buzon:events"
"""The inventory's events, for whoever wants to follow them."""
HEALTH_AT = "buzon:{buzon:cfg}:heard"
"""When each of them was heard of."""
FORMAT = 2
"""Of the stored data. A node refuses a store that holds another."""

PREFIXES = tuple(f"{RESERVED_PREFIX}{{{partition:02x}}}:" for partition in range(PARTITIONS))
AWAKE_CHANNEL = f"{RESERVED_PREFIX}awake"
"""The Redis channel on which every ear hears that somebody listens to one of the router's own channels."""
OWNERS = tuple(f"{prefix}own" for prefix in PREFIXES)


def side_channel(partition: int, kid: str) -> str:
    """The Redis channel on which nodes hear, beside the plain one, what they must know of a channel's messages."""
    return f"{PREFIXES[partition]}ch:{kid}"


def probe_channel(partition: int, kid: str) -> str:
    """The plain Redis channel of a node's own on which it proves that it hears."""
    return f"{PREFIXES[partition]}probe:{kid}"


def done_once(tag: str, digest: str) -> str:
    """The mark of a cache write that is done once; the tag puts it into the slot of the entry, the digest is of both
    the entry and the request."""
    return f"{RESERVED_PREFIX}once:{tag}{digest}"


def idempotency(scope: str) -> str:
    """The record of an idempotency key; `scope` is a hash."""
    return f"{RESERVED_PREFIX}idem:{scope}"


def alias(digest: str) -> str:
    """The other name of a contact of an instance; the digest is of the instance and the name."""
    return f"{RESERVED_PREFIX}alias:{digest}"


def taken(digest: str) -> str:
    """The mark of a WhatsApp message that was taken; the digest is of the instance and the message's id."""
    return f"{RESERVED_PREFIX}wa:{digest}"
