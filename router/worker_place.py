"""Worker place: what one of several workers is told by the parent process that started it.

It comes in one variable of the environment, `BUZON_WORKER`, as JSON: `group` (shared by all workers of one parent),
`index` (1 is the first), `parent` (its process id) and `line` (the descriptor of the socket between the two). Not a
setting: nobody but `router/workers.py` writes it, and without it a process is a node of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct

VARIABLE = "BUZON_WORKER"


class WorkerPlace(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which worker this process is, and of whom."""

    group: str
    index: int
    parent: int
    line: int


def worker_place(environment: Mapping[str, str]) -> WorkerPlace | None:
    """The place that the environment gives this process, None when it is no worker; `ValueError` for what is none."""
    text = environment.get(VARIABLE, "")
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=WorkerPlace)
    except msgspec.DecodeError:
        raise ValueError("expected what a parent of workers writes; leave it unset") from None


def with_place(environment: Mapping[str, str], place: WorkerPlace) -> dict[str, str]:
    """The environment of the worker at that place."""
    return {**environment, VARIABLE: msgspec.json.encode(place).decode()}
