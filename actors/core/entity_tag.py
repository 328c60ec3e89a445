"""Entity tags: the name of a value's exact bytes, in HTTP (RFC 9110) and in the scripts that compare it.

SHA-1, because that is the digest a store's scripts can make by themselves. It tells values apart for clients that wish
each other well; nothing secret hangs on it.
"""

from __future__ import annotations

from hashlib import sha1


def entity_tag(value: bytes) -> str:
    """The tag of a stored value: 40 hex digits."""
    return sha1(value, usedforsecurity=False).hexdigest()
