"""A node with the inbound routes, whose sending part is in memory: it knows what SEND_MESSAGE events said, no more.

Test builds only; otherwise the same node as production.
"""

from __future__ import annotations

import os
import sys

from aiohttp import web

from actors.inbound_ports import Sending
from router.api import inbound
from router.app import Node
from router.lifecycle import run
from router.settings import load
from tests.support.inbound_rig import Known

SERVE = ("-m", "tests.support.inbound_node")


class InboundNode(Node):
    """Adds the routes."""

    def app(self) -> web.Application:
        """The application with every route."""
        app = super().app()
        known = Known()
        inbound.register(app, self._make_inbound(Sending(known, known, known)))
        return app


if __name__ == "__main__":
    sys.exit(run(load(os.environ).settings, InboundNode))
