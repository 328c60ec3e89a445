"""The Lua scripts, one file a transition, and how they reach the server.

A script names what it needs with `-- include NAME`; the text of NAME.lua stands there when it is sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources

from msgspec import Struct

NAMES = (
    "acquire",
    "add_events",
    "append",
    "attended",
    "awaken",
    "beat",
    "cancel",
    "census",
    "claim",
    "close",
    "discard",
    "enqueue",
    "hand_over",
    "health",
    "idempotency",
    "identity",
    "ingest",
    "leave",
    "mark",
    "note_sent",
    "owners",
    "page",
    "peek",
    "publish",
    "recall",
    "receipt",
    "reclose",
    "release",
    "report",
    "requeue",
    "resign",
    "restore",
    "restore_tasks",
    "settle",
    "sweep",
    "task_counts",
    "turn_back",
)

CACHE_NAMES = ("cache_load", "cache_types", "cache_write")
"""Those of the cache, which may be on a server of its own."""


class Script(Struct, frozen=True):
    """A script as the server gets it, and the SHA-1 it is called by."""

    name: str
    source: bytes
    sha: str


def load(name: str) -> Script:
    """Read a script with its includes. Raises FileNotFoundError for one that does not exist."""
    folder = resources.files(__name__)
    lines = []
    for line in folder.joinpath(f"{name}.lua").read_text().splitlines():
        if line.startswith("-- include "):
            lines.append(folder.joinpath(f"{line.removeprefix('-- include ').strip()}.lua").read_text())
        else:
            lines.append(line)
    source = "\n".join(lines).encode()
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())


def load_all(names: Sequence[str] = NAMES) -> dict[str, Script]:
    """Scripts by their names."""
    return {name: load(name) for name in names}
