"""Handshake: how two nodes prove to each other that they know the cluster's secret, without saying it.

dialler   -> MAGIC, nonce, its name, the name it expects to find
listener  -> nonce, proof
dialler   -> proof; frames may follow at once

A proof is an HMAC over all that was said, both nonces among it, so none can be used again; each side's begins with
another word, so none can be sent back. A listener says nothing to a dialler that expects another node.
Pure: bytes in, bytes out. Nothing here keeps more of a stranger than HELLO_BYTES_MAX bytes.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from msgspec import Struct

MAGIC = b"BZN\x01"
"""The last byte is the version of the protocol: nodes that speak another one are strangers."""
NONCE_BYTES = 32
PROOF_BYTES = 32
WELCOME_BYTES = NONCE_BYTES + PROOF_BYTES
NAME_BYTES_MAX = 255
HELLO_BYTES_MAX = len(MAGIC) + NONCE_BYTES + 2 * (1 + NAME_BYTES_MAX)
_NAMES_AT = len(MAGIC) + NONCE_BYTES


class Stranger(Exception):
    """The other side is no node of this cluster, or not the one that was expected."""


class Hello(Struct, frozen=True):
    """What a dialler says first; `said` is how it was written."""

    dialler: str
    listener: str
    said: bytes


class Session(Struct, frozen=True):
    """What both sides know after the nonces are exchanged. Never logged."""

    listener_proof: bytes
    dialler_proof: bytes
    to_listener: bytes
    """The key of the frames that go to the listener."""
    to_dialler: bytes

    def __repr__(self) -> str:
        return "Session(…)"


def hello(dialler: str, listener: str, nonce: bytes) -> Hello:
    """What the node `dialler` says to a listener that should be the node `listener`'s."""
    names = b"".join(bytes((len(name),)) + name for name in (dialler.encode(), listener.encode()))
    return Hello(dialler, listener, MAGIC + nonce + names)


def parse_hello(received: bytes) -> Hello | None:
    """The hello at the beginning of what was received, None while it is incomplete. Raises Stranger."""
    if not MAGIC.startswith(received[: len(MAGIC)]):
        raise Stranger("no hello")
    names = []
    at = _NAMES_AT
    for _ in range(2):
        if len(received) <= at:
            return None
        end = at + 1 + received[at]
        if len(received) < end:
            return None
        names.append(received[at + 1 : end])
        at = end
    try:
        return Hello(names[0].decode(), names[1].decode(), received[:at])
    except UnicodeDecodeError as error:
        raise Stranger("no name") from error


def session(secret: bytes, said: Hello, listener_nonce: bytes) -> Session:
    """The proofs and keys of one connection. Raises Stranger when this node does not know the secret yet."""
    if not secret:
        raise Stranger("the secret is not known yet")
    transcript = said.said + listener_nonce

    def derived(purpose: bytes) -> bytes:
        return hmac.digest(secret, b"buzon peers " + purpose + b"\0" + transcript, sha256)

    return Session(
        listener_proof=derived(b"listener"),
        dialler_proof=derived(b"dialler"),
        to_listener=derived(b"to listener"),
        to_dialler=derived(b"to dialler"),
    )


def check(proof: bytes, expected: bytes) -> None:
    """Compare a proof in constant time. Raises Stranger."""
    if not hmac.compare_digest(proof, expected):
        raise Stranger("no proof of the secret")
