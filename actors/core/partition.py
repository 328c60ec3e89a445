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
    return _kid(digest), digest[0]


def line_of(instance: str, contact: str) -> tuple[str, int]:
    """The kid of what is sent to one contact, which no buffer's key has, and the partition of the instance: all that
    one instance sends has one owner."""
    digest = blake2b(
        f"{len(instance)}:{instance}{contact}".encode(), digest_size=_DIGEST_BYTES, person=b"task"
    ).digest()
    return _kid(digest), partition_of_instance(instance)


def partition_of_instance(instance: str) -> int:
    """The partition of everything that is sent by one instance."""
    return locate(instance)[1]


def mark_of(instance: str, key_id: str) -> str:
    """Twenty-two characters that name a WhatsApp message of an instance."""
    digest = blake2b(f"{len(instance)}:{instance}{key_id}".encode(), digest_size=_DIGEST_BYTES, person=b"sent").digest()
    return _kid(digest)


def dedupe_id(kid: str, message_id: str) -> bytes:
    """Sixteen bytes that name a message id of one key. A kid's length is fixed, so no two pairs run together."""
    return blake2b(f"{kid}{message_id}".encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def _kid(digest: bytes) -> str:
    return b2a_base64(digest, newline=False)[:KID_CHARACTERS].translate(_URL_SAFE).decode()
