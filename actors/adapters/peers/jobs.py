"""Jobs: the owner of tasks, as the peers' connections need it; the supervisor is one."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol


class Jobs(Protocol):
    """Runs a job once. Raises Overloaded when it has too many."""

    def spawn(self, name: str, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]: ...
