"""The loop of many processes: one that is frozen, asleep or dead does nothing, and the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import pytest

from tests.simulation.loop import Process, ProcessClock, SimLoop
from tests.support.until import passing
from tests.support.virtual_time import STARTS_AT_S

Test = Callable[[SimLoop], Coroutine[Any, Any, None]]


def on_a_loop(test: Test) -> Callable[[], None]:
    """Run a test on a loop of its own."""

    @wraps(test)
    def run() -> None:
        loop = SimLoop()
        try:
            loop.run_until_complete(test(loop))
        finally:
            loop.close()

    del run.__wrapped__  # pytest would ask for its parameter
    return run


def ticking(loop: SimLoop, process: Process, every_s: float = 1.0) -> list[float]:
    """Have a process note the time again and again; gives its notes."""
    notes: list[float] = []

    async def tick() -> None:
        while True:
            await passing(every_s)
            notes.append(loop.now - STARTS_AT_S)

    loop.create_task(tick(), context=process.context)
    return notes


@on_a_loop
async def test_a_frozen_process_is_late(loop: SimLoop) -> None:
    """Its timers fire at its thaw; another process's in time."""
    one, other = Process("one"), Process("other")
    notes, others = ticking(loop, one), ticking(loop, other)
    await passing(1.5)
    one.freeze()
    await passing(3.0)
    assert (notes, others) == ([1.0], [1.0, 2.0, 3.0, 4.0])
    one.thaw(loop, 0.0, timers_first=True)
    await passing(1.2)
    assert notes == [1.0, 4.5, 5.5]
    one.kill()
    other.kill()


@on_a_loop
async def test_a_sleeping_process_does_not_notice(loop: SimLoop) -> None:
    """Its timers have as much time left as before; only its boot time tells."""
    process = Process("one", boot_offset_s=5.0)
    clock = ProcessClock(loop, process)
    notes, before = ticking(loop, process), (clock.monotonic(), clock.boottime())
    await passing(1.5)
    process.freeze()
    await passing(3.0)
    process.thaw(loop, 3.0, timers_first=False)
    await passing(1.2)
    assert notes == pytest.approx([1.0, 5.0])
    assert clock.monotonic() - before[0] == pytest.approx(2.7)
    assert clock.boottime() - before[1] == pytest.approx(5.7)
    process.kill()


@on_a_loop
async def test_what_arrives_at_a_frozen_process_waits(loop: SimLoop) -> None:
    """It is handed over at the thaw, before or after the timers, as loops differ."""
    for timers_first, order in ((True, ["timer", "arrived"]), (False, ["arrived", "timer"])):
        process, seen = Process("one"), list[str]()
        loop.call_at(loop.time() + 1.0, seen.append, "timer", context=process.context)
        process.freeze()
        process.deliver(loop, lambda seen=seen: seen.append("arrived"))  # type: ignore[misc]  # a default as a cell
        await passing(2.0)
        assert seen == []
        process.thaw(loop, 0.0, timers_first)
        await passing(0.1)
        assert seen == order


@on_a_loop
async def test_a_dead_process_hears_nothing(loop: SimLoop) -> None:
    """Nothing of it runs any more, and what arrives is gone."""
    process, seen = Process("one"), list[str]()
    notes = ticking(loop, process)
    process.kill()
    process.deliver(loop, lambda: seen.append("arrived"))
    await passing(5.0)
    assert notes == []
    process.thaw(loop, 0.0, timers_first=False)
    await passing(0.1)
    assert seen == []


@on_a_loop
async def test_a_complaint_is_the_processs(loop: SimLoop) -> None:
    """What a callback raises is noted with the process whose it was."""
    process = Process("one")

    def wrong() -> None:
        raise ValueError("wrong")

    loop.call_soon(wrong, context=process.context)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(process.complaints) == 1
    assert "wrong" in process.complaints[0]
    assert loop.complaints == []
