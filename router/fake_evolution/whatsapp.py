"""WhatsApp: the other side of the socket. Who exists there, and what each contact really received, in which order.

Knows nothing of HTTP. Invariant: one id reaches one contact once, however often it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from router.fake_evolution.numbers import is_lid, jid_of, lid_of


class Received(Struct, frozen=True, kw_only=True):
    """One message on a contact's phone."""

    id: str
    instance: str
    text: str


class WhatsApp:
    """All contacts. Everybody exists who was not said to be absent."""

    def __init__(self) -> None:
        self.absent: set[str] = set()  # JIDs, of groups too
        self._inboxes: dict[str, dict[str, Received]] = {}  # by contact and id, in order of arrival
        self._phones: dict[str, str] = {}  # lid: the JID with the number

    def exists(self, jid: str) -> bool:
        """Whether there is such a contact or group."""
        return not jid.startswith("@") and self._person(jid) not in self.absent

    def lid(self, jid: str) -> str:
        """The contact's hidden identity; from now on messages to it reach the contact as well."""
        lid = lid_of(jid)
        self._phones[lid] = jid
        return lid

    def deliver(self, jid: str, message: Received) -> bool:
        """Put a message on the contact's phone; false when its id is there already."""
        return self._inboxes.setdefault(self._person(jid), {}).setdefault(message.id, message) is message

    def received(self, number: str) -> Sequence[Received]:
        """What a contact has received, oldest first. `number` may be written in any way."""
        return tuple(self._inboxes.get(self._person(jid_of(number)), {}).values())

    def everything(self) -> dict[str, list[Received]]:
        """All that was received, by JID."""
        return {jid: list(inbox.values()) for jid, inbox in self._inboxes.items()}

    def _person(self, jid: str) -> str:
        return self._phones.get(jid, jid) if is_lid(jid) else jid
