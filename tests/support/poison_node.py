"""A node that payloads can hurt: `POISON-EXIT` in one ends the process as it is about to be sent, `POISON-RAISE` in
one raises there. Test builds only; otherwise the same node as production."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from actors.core.outcome import Answered, Failed
from actors.egress_ports import Egress, OutboundRequest, Withheld
from router.app import Node
from router.lifecycle import run
from router.settings import Settings, load

EXIT = b"POISON-EXIT"
RAISE = b"POISON-RAISE"
EXIT_CODE = 66
SERVE = ("-m", "tests.support.poison_node")


class PoisonTaken(Exception):
    """What a payload made the egress do."""


class Poisonable:
    """Stands in front of the egress."""

    def __init__(self, inner: Egress) -> None:
        self._inner = inner

    async def send(self, request: OutboundRequest) -> Answered | Failed | Withheld:
        """Send, unless the payload is poison."""
        if EXIT in request.body:
            os._exit(EXIT_CODE)
        if RAISE in request.body:
            raise PoisonTaken
        return await self._inner.send(request)


def make(configured: Settings, store_url: str, on_fatal: Callable[[str], None]) -> Node:
    """Compose the node."""
    return Node(configured, store_url, on_fatal, wrap_egress=Poisonable)


if __name__ == "__main__":
    sys.exit(run(load(os.environ).settings, make))
