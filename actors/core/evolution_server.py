"""Evolution servers: what a server says of itself and of an instance.

Owns what follows from its version (the dialect, whether a message id of ours is honoured) and from an instance's
state. Never talks to it. Invariant: what cannot be read says nothing (None); it never becomes a state.
Source: the facts about Evolution, sections 2.1 (license), 2.2 (`GET /`, versions) and 2.3 (states).
"""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from actors.core.evolution_send import Dialect
from actors.core.foreign_json import Unreadable, at, decode, text_at

InstanceState = Literal["open", "connecting", "close", "refused", "not_loaded", "unknown"]
"""`not_loaded`: in Evolution's database, but not running. `unknown`: there is no such instance."""
PauseCause = Literal["license", "closed", "not_loaded", "unreachable"]


class Answer(Struct, frozen=True):
    """An answer of the server, with as much of its body as was read."""

    status: int
    body: bytes


class Paused(Struct, frozen=True):
    """Nothing can be sent until somebody acts or the instance is back: wait, and burn no retries."""

    cause: PauseCause
    reason: str


class Server(Struct, frozen=True):
    """What a version means. `honours_message_id`: a send may choose its own WhatsApp id, so it cannot happen twice."""

    version: str
    dialect: Dialect
    honours_message_id: bool


_VERSION = re.compile(r"v?([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})(?:-([0-9A-Za-z.-]{1,32}))?")
_CANDIDATE = re.compile(r"rc\.?([0-9]{1,6})")
_FINAL = 1_000_000
"""A final version comes after all its candidates."""
_MESSAGE_ID_SINCE = (2, 4, 0, 2)
"""2.4.0-rc2: `messageId` in its Metadata, handed to Baileys. Up to 2.3.7 it is ignored."""
_STATES: dict[str, InstanceState] = {
    "open": "open",
    "connecting": "connecting",
    "close": "close",
    "closed": "close",
    "refused": "refused",
}


def read_welcome(answer: Answer) -> Server | Paused | None:
    """Read the answer to `GET /`: `{"status": 200, "message": "Welcome …", "version": "2.3.7", …}`."""
    body = _body(answer)
    if license_missing(body):
        return Paused("license", "Evolution's license has to be activated")
    return server_of(text_at(body, "version") or "")


def server_of(version: str) -> Server | None:
    """What a version means; None for what is none. A candidate of another kind than `-rcN` honours no message id."""
    found = _VERSION.fullmatch(version.strip())
    if found is None:
        return None
    major, minor, patch = (int(part) for part in found.groups()[:3])
    candidate = _CANDIDATE.fullmatch(found[4] or "")
    order = int(candidate[1]) if candidate is not None else 0 if found[4] else _FINAL
    return Server(
        version=found[0],
        dialect="v1" if major < 2 else "v2",  # noqa: PLR2004  2.0 flattened the body of a send
        honours_message_id=(major, minor, patch, order) >= _MESSAGE_ID_SINCE,
    )


def read_state(answer: Answer) -> InstanceState | None:
    """Read the answer to `GET /instance/connectionState/{instance}`; None when it tells nothing about the instance."""
    body = _body(answer)
    if answer.status == 404 and "instance does not exist" in str(at(body, "response", "message")):  # noqa: PLR2004
        return "unknown"
    instance = at(body, "instance")
    if answer.status != 200 or not isinstance(instance, dict):  # noqa: PLR2004
        return None
    return "not_loaded" if instance.get("state") is None else state_of(instance["state"])


def state_of(state: object) -> InstanceState | None:
    """The state that Evolution's word for it means, in an answer as in a CONNECTION_UPDATE; None for no such word."""
    return _STATES.get(state) if isinstance(state, str) else None


def pause_for(state: InstanceState) -> Paused | None:
    """Whether an instance in this state can send nothing at all.

    `connecting` too: a dropped connection shows no other state until it is back, and so does one that waits for its
    QR code for days. An unknown instance does not pause: its sends are refused, one by one.
    """
    match state:
        case "close" | "refused" | "connecting":
            return Paused("closed", f"the instance is not connected to WhatsApp ({state})")
        case "not_loaded":
            return Paused("not_loaded", "Evolution has not loaded the instance: it has to be connected or restarted")
        case "open" | "unknown":
            return None


def license_missing(body: object) -> bool:
    """Whether an answer is the gate of a server without an activated license (2.4.0 and later)."""
    return at(body, "code") == "LICENSE_REQUIRED"


def _body(answer: Answer) -> object:
    try:
        return decode(answer.body)
    except Unreadable:
        return None
