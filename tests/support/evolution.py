"""Evolution: the fake Evolution API inside a test, with a handle for everything that can happen to it.

`async with evolution(dialect="2.4") as fake:` serves it on loopback until the block ends. Webhooks go nowhere until
`fake.webhook(url)` or `webhook=` says where. `await fake.settled()` waits until all of them are answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from router.fake_evolution import control
from router.fake_evolution.behaviours import FAULTS, Behaviour
from router.fake_evolution.control import Writes
from router.fake_evolution.dialects import DIALECTS, Json
from router.fake_evolution.events import Presence
from router.fake_evolution.fake import DEFAULT_KEY, Fake, Note, Options
from router.fake_evolution.instances import State, WebhookConfig
from router.fake_evolution.numbers import jid_of
from router.fake_evolution.posting import Posted
from router.fake_evolution.running import serving
from router.fake_evolution.webhook_calls import GlobalWebhook
from router.fake_evolution.whatsapp import Received
from router.listening import addresses, http_url, listen

RETRY_SCALE = 0.002
"""5 s between two attempts at a webhook are 10 ms here."""


class Evolution:
    """A running fake. `notes` is all that it told, `headers` what a client needs to be let in."""

    def __init__(self, fake: Fake, url: str, notes: list[Note]) -> None:
        self.fake = fake
        self.url = url
        self.notes = notes
        self.headers = {"apikey": fake.options.key}

    def received(self, number: str) -> list[str]:
        """The texts on a contact's phone, oldest first."""
        return [message.text for message in self.messages(number)]

    def messages(self, number: str) -> Sequence[Received]:
        """The messages on a contact's phone, oldest first."""
        return self.fake.whatsapp.received(number)

    def fail_next(
        self,
        fault: str | Behaviour,
        *,
        number: str | None = None,
        instance: str | None = None,
        times: int | None = 1,
    ) -> None:
        """The next `times` sends (None: all until `heal`) meet this: a name in `behaviours.FAULTS`, or a behaviour."""
        behaviour = FAULTS[fault] if isinstance(fault, str) else fault
        jid = None if number is None else jid_of(number)
        self.fake.script.add(behaviour, instance=instance, jid=jid, times=times)

    def heal(self) -> None:
        """Forget the faults that were to come."""
        self.fake.script.heal()

    def incoming(self, number: str, text: str = "", **more: Any) -> str:
        """Somebody writes (`more` as in `control.Writes`); the message's id."""
        answer = control.writes(self.fake, Writes(sender=number, text=text, **more))
        return str(answer["id"])

    def state(self, state: State | None, *, instance: str | None = None, reason: int | None = None) -> None:
        """Connect, drop, log out, or unload an instance."""
        self.fake.set_state(self.fake.instance(instance), state, reason)

    def status(self, message_id: str, status: str) -> bool:
        """Tell that a message was delivered, read …; false when Evolution never stored it."""
        return self.fake.status(message_id, status)

    def delete(self, message_id: str) -> bool:
        """Tell that a message was deleted for everybody; false when Evolution never stored it."""
        return self.fake.delete(message_id)

    def edit(self, message_id: str, text: str) -> bool:
        """Tell that a message says something else now; false when Evolution never stored it."""
        return self.fake.edit(message_id, text)

    def presence(self, number: str, presence: Presence, *, instance: str | None = None) -> bool:
        """Somebody types; false when the instance has not subscribed to that contact."""
        return self.fake.presence(self.fake.instance(instance), number, presence)

    def absent(self, number: str) -> None:
        """Let a number or a group not be on WhatsApp."""
        self.fake.whatsapp.absent.add(jid_of(number))

    def webhook(self, url: str, *, instance: str | None = None, **more: Any) -> None:
        """Let an instance's events go there (`more` as in `instances.WebhookConfig`)."""
        self.fake.instance(instance).webhook = WebhookConfig(url=url, **more)

    def hold(self) -> None:
        """Keep webhooks back until `release`."""
        self.fake.poster.hold()

    def release(self, *, reverse: bool = False, copies: int = 1) -> None:
        """Post what was held back, one after the other; backwards, or several times, if that is wanted."""
        self.fake.poster.release(reverse=reverse, copies=copies)

    async def settled(self) -> None:
        """Wait until every webhook was answered well or given up."""
        await self.fake.poster.settled()

    @property
    def posted(self) -> Sequence[Posted]:
        """Every attempt at a webhook so far."""
        return self.fake.poster.posted

    @property
    def answers(self) -> list[Json]:
        """Every request so far: method, path, status, and the answer when it was an error."""
        return [note.fields for note in self.notes if note.what == "request"]


@asynccontextmanager
async def evolution(
    dialect: str = "2.3", *, port: int = 0, webhook: str | None = None, key: str = DEFAULT_KEY, **more: Any
) -> AsyncIterator[Evolution]:
    """A fake Evolution of version 1, 2.3 or 2.4 (`more` as in `fake.Options`)."""
    notes: list[Note] = []
    everywhere = None if webhook is None else GlobalWebhook(url=webhook)
    given: dict[str, Any] = {"retry_scale": RETRY_SCALE, "webhook": everywhere, **more}
    fake = Fake(Options(dialect=DIALECTS[dialect], key=key, **given), told=notes.append)
    sockets = listen("127.0.0.1", [port])
    url = http_url(*addresses(sockets)[0])
    posting = asyncio.create_task(fake.poster.run())
    try:
        async with serving(fake, sockets, url):
            yield Evolution(fake, url, notes)
    finally:
        posting.cancel()
        with suppress(asyncio.CancelledError):
            await posting
