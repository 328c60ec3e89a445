"""Listening run: listeners and publishers of channels during a row, and the verdict at its end.

Use as `async with Listening(rig, chaos, options) as listening:`. Nothing that a listener was told may contradict what
was published or what others were told; `unrecovered` and `lost` are for the row to judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.chaos.chaos import Chaos
from tests.chaos.control import Remote
from tests.chaos.listening_checker import Told
from tests.chaos.listening_load import Begin
from tests.chaos.rig import Rig
from tests.support.until import until

STOP_S = 30.0
JOINED_S = 10.0


class Listening:
    """The listeners of one row. `options` are fields of `Begin`."""

    def __init__(self, rig: Rig, chaos: Chaos, options: Mapping[str, Any] | None = None) -> None:
        self._rig = rig
        self._chaos = chaos
        self._options = options or {}
        self._load: Remote
        self.begin: Begin
        self.told: Told

    async def __aenter__(self) -> Self:
        chaos = self._chaos
        self._load = await self._rig.helper("listening_load")
        self.begin = Begin(
            nodes=self._rig.ports(),
            store=str(self._rig.store.socket_path),
            prefix=f"l{chaos.row.name}-{chaos.random.randrange(10**6)}",
            seed=str(chaos.random.random()),
            **self._options,
        )
        await self._load.ask("begin", **msgspec.to_builtins(self.begin))
        await self.joined()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.told = told = msgspec.convert(await self._load.ask("stop", within_s=STOP_S), Told, strict=False)
        if kind is None:
            for finding in told.findings:
                self._chaos.problem(finding)
            self._chaos.expect(told.wrong == len(told.findings), f"{told.wrong} findings in all")
            self._chaos.note(
                f"{told.received:,} heard of {told.published:,} published and {told.foreign:,} foreign, "
                f"{told.resumed:,} resumed, {told.unrecovered} unrecovered, {told.lost} told of a loss"
            )

    async def joined(self, share: float = 0.9, within_s: float = JOINED_S) -> None:
        """Wait until nearly everybody follows its channels: somebody always comes and goes."""
        wanted = int(self.begin.listeners * share)

        async def enough() -> bool:
            return int(await self._load.ask("joined")) >= wanted

        await until(enough, within_s, every_s=0.1, what="listeners follow their channels")

    async def stall(self, count: int) -> None:
        """Have so many stop reading."""
        await self._load.ask("stall", count=count)

    async def unstall(self) -> None:
        """Have them read again."""
        await self._load.ask("unstall")

    async def late(self) -> list[float]:
        """How late messages came since this was last asked, in seconds."""
        found: list[float] = await self._load.ask("late")
        return found
