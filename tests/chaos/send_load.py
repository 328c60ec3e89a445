"""The senders of WhatsApp messages, a process of its own: `python -m tests.chaos.send_load SOCKET`.

One sequential client a contact, whose messages go round the nodes; what was not acknowledged is sent again under the
same `message_id` to the next node. Writes down what was acknowledged; nobody ever kills this process.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from random import Random
from time import monotonic, time

import msgspec
import uvloop
from msgspec import Struct

from tests.chaos.control import serve
from tests.chaos.wire import Node
from tests.support.until import passing

PATH = "/messages"
TAKEN = 202
RETRY_S = 0.2
PHONE_FROM = 491_510_000_000
"""German numbers: Evolution rewrites none of them."""


class Begin(Struct, frozen=True, kw_only=True):
    """`contacts` for each instance. `rate`: messages a second of all. `messages`: as many for each contact, and no
    more; None: until told to stop."""

    ledger: str
    nodes: dict[str, int]
    instances: list[str]
    prefix: str
    seed: str
    contacts: int = 10
    rate: float = 60.0
    messages: int | None = None


class Acknowledged(Struct, frozen=True):
    """A message that a node has promised to send. `at` is Unix time."""

    text: str
    contact: str
    sequence: int
    task_id: str
    at: float


class Senders:
    """One row's."""

    def __init__(self, begin: Begin) -> None:
        self._begin = begin
        self._nodes = [Node(name, port) for name, port in begin.nodes.items()]
        self._turn = 0
        self._stopped = False
        self._gives_up_at = float("inf")
        self._tasks: list[asyncio.Task[None]] = []
        self.acknowledged: list[Acknowledged] = []
        self.refused = 0

    def start(self) -> None:
        """Set everybody going."""
        spawn = asyncio.get_running_loop().create_task
        for number, instance in enumerate(self._begin.instances):
            for each in range(self._begin.contacts):
                phone = str(PHONE_FROM + number * self._begin.contacts + each)
                self._tasks.append(spawn(self._talk(instance, phone)))

    async def over(self) -> None:
        """Wait until everybody has sent what it had to."""
        await asyncio.gather(*self._tasks)

    async def stop(self, grace_s: float) -> int:
        """Let everybody finish its message; gives how many could not."""
        self._stopped = True
        self._gives_up_at = monotonic() + grace_s
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for node in self._nodes:
            node.close()
        Path(self._begin.ledger).write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in self.acknowledged))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, TimeoutError):
                raise result
        return sum(isinstance(result, TimeoutError) for result in results)

    async def _talk(self, instance: str, phone: str) -> None:
        begin = self._begin
        chance = Random(f"{begin.seed} {phone}")  # noqa: S311  a repeatable run, no secret
        gap_s = begin.contacts * len(begin.instances) / begin.rate
        due = monotonic() + chance.uniform(0, gap_s)
        sequence = 0
        while begin.messages is None or sequence < begin.messages:
            await passing(max(0.0, due - monotonic()))
            if self._stopped:
                return
            sequence += 1
            await self._say(instance, phone, sequence)
            due = max(due, monotonic() - gap_s) + gap_s * chance.uniform(0.5, 1.5)

    async def _say(self, instance: str, phone: str, sequence: int) -> None:
        contact = f"{self._begin.prefix}/{instance}/{phone}"
        text = f"{contact}.{sequence}"
        document = {"phone": f"+{phone}", "message": text, "instance_name": instance, "message_id": text}
        body = msgspec.json.encode(document)
        while True:
            self._turn += 1
            status, answer = await self._nodes[self._turn % len(self._nodes)].post(PATH, body)
            if status == TAKEN:
                task_id = msgspec.json.decode(answer)["task_id"]
                self.acknowledged.append(Acknowledged(text, contact, sequence, task_id, time()))
                return
            self.refused += 1
            if monotonic() > self._gives_up_at:
                raise TimeoutError
            await passing(RETRY_S)


class Desk:
    """What the harness may ask."""

    def __init__(self) -> None:
        self._senders: Senders | None = None

    async def do_begin(self, **words: object) -> None:
        """Start."""
        assert self._senders is None, "they send already"
        self._senders = Senders(msgspec.convert(words, Begin))
        self._senders.start()

    async def do_acknowledged(self) -> int:
        """How many messages were promised to be sent."""
        return len(self._running().acknowledged)

    async def do_over(self) -> int:
        """Wait until everybody has sent what it had to, and give how many that were."""
        await self._running().over()
        return len(self._running().acknowledged)

    async def do_stop(self, grace_s: float) -> int:
        """Stop; gives how many messages were given up."""
        senders, self._senders = self._running(), None
        return await senders.stop(grace_s)

    def _running(self) -> Senders:
        assert self._senders is not None, "nobody sends"
        return self._senders


if __name__ == "__main__":
    uvloop.run(serve(Desk(), Path(sys.argv[1])))
