"""Turn: what arrives in one turn of the loop, handled together once all of it has been read.

Between two system calls the code that answers has left the processor's caches; a dozen answers in a row share what the
first of them brought back [measured: a fifteenth of a hot read]. Knows nothing of what is handled. Order is kept.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turn(deque[tuple[Callable[[bytes], object], bytes]]):
    """What waits for the end of the turn, to be appended: who handles it, and the data. `begin` it while it is empty.
    One serves all connections of a loop; an error of one handler is no other's."""

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that all of this is handled when the turn is over."""
        loop.call_soon(self._over, loop)

    def _over(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self:
                handle, data = self.popleft()
                handle(data)
        finally:
            if self:
                self.begin(loop)
