"""Conversations: which buffer a contact's messages go to, whichever of the contact's names they came under.

Owns the joining of a phone JID and a lid, and the turns in which the messages of one contact are taken: in the order
in which they came, each after the one before is stored, so that a name that changes between two of them is noticed.
Never stores a message. Invariants: a burst that began under a lid ends under it; turns are taken in one order, so no
two messages wait for each other.
Source: the facts about Evolution, section 2.4 (identity): keep both names as aliases of one conversation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from zlib import crc32

from msgspec import Struct

from actors.core.evolution_contact import Contact
from actors.core.phones import GROUP_DOMAIN
from actors.inbound_ports import InboundRecords

LINES = 1024
"""Contacts that share a line wait for each other; there are so many that few do."""
TURN_S = 1.0
"""How long a message waits for those before it; the store answers in 2 ms. Who waits longer is told to come back."""


class Conversation(Struct, frozen=True):
    """Where the messages go: the buffer's key, and the JID that a reply goes to."""

    key: str
    contact: str


class Conversations:
    """The conversations of all instances."""

    def __init__(self, records: InboundRecords) -> None:
        self._records = records
        self._lines = [asyncio.Lock() for _ in range(LINES)]

    @asynccontextmanager
    async def turn(self, instance: str, contact: Contact) -> AsyncIterator[None]:
        """Wait until those who came before under any of the contact's names are done. Raises TimeoutError."""
        names = {contact.key} if _is_group(contact) else {contact.phone_jid, contact.lid} - {None}
        places = {crc32(f"{instance}:{name}".encode()) % LINES for name in names}
        async with AsyncExitStack() as held:
            async with asyncio.timeout(TURN_S):
                for place in sorted(places):
                    await held.enter_async_context(self._lines[place])
            yield

    async def of(self, instance: str, contact: Contact) -> Conversation:
        """Where a message of the contact's goes, to be asked in the contact's turn. Raises StoreAway.

        Under the phone JID when one is known, also from earlier; but what goes on under the lid stays there until
        nothing of it waits any more.
        """
        if _is_group(contact):
            return Conversation(f"{instance}:{contact.key}", contact.key)
        phone_jid, lid = await self._names(instance, contact)
        name = phone_jid or lid or contact.key
        key = f"{instance}:{name}"
        if phone_jid is not None and lid is not None:
            lid_key = f"{instance}:{lid}"
            if await self._records.is_active(lid_key):
                key = lid_key
        return Conversation(key, name)

    async def _names(self, instance: str, contact: Contact) -> tuple[str | None, str | None]:
        """The phone JID and the lid, as far as either is known."""
        phone_jid, lid = contact.phone_jid, contact.lid
        if phone_jid is not None and lid is not None:
            await self._records.join(instance, phone_jid, lid)
        elif phone_jid is not None:
            lid = await self._records.other_name(instance, phone_jid)
        elif lid is not None:
            phone_jid = await self._records.other_name(instance, lid)
        return phone_jid, lid


def _is_group(contact: Contact) -> bool:
    """The names of a group's message are those of who wrote there; the conversation is everybody's."""
    return contact.key.endswith(GROUP_DOMAIN)
