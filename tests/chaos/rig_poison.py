"""A rig whose nodes some payloads can kill (`tests.support.poison_node`)."""

from __future__ import annotations

from tests.chaos.rig import Rig
from tests.support import poison_node


class PoisonRig(Rig):
    """Otherwise as the plain one."""

    program = poison_node.SERVE
