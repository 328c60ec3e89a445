"""Partitions: which of the 256 a key belongs to, and the fixed-size names that stand for user bytes in the store.

Keys and message ids are hashed, so no user byte becomes part of one of the router's own Redis keys.
Invariant: stored data depends on these functions; they never change.
"""

from __future__ import annotations

from binascii import b2a_base64
from hashlib import blake2b

PARTITIONS = 256
KID_CHARACTERS = 22
_DIGEST_BYTES = 16
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def locate(key: str) -> tuple[str, int]:
    """The key's kid (base64url of its hash, without padding) and its partition (the hash's first byte)."""
    # Keys in paths may hold lone surrogates; such a key is nobody's, but looking for it is no error.
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
    return b2a_base64(digest, newline=False)[:KID_CHARACTERS].translate(_URL_SAFE).decode(), digest[0]


def dedupe_id(kid: str, message_id: str) -> bytes:
    """Sixteen bytes that name a message id of one key. A kid's length is fixed, so no two pairs run together."""
    return blake2b(f"{kid}{message_id}".encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
