"""Turn: what arrives in one turn of the loop is handled together, in its order, and an error stops nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

from router.edge.turn import Turn
from tests.support.virtual_time import ticks


def arrives(turn: Turn, handle: Any, data: bytes) -> None:
    """As a connection does it."""
    if not turn:
        turn.begin(asyncio.get_running_loop())
    turn.append((handle, data))


async def test_all_is_handled_once_the_turn_is_over_in_the_order_of_arrival() -> None:
    """And what arrives in the next turn with the end of that one."""
    turn, handled = Turn(), list[bytes]()

    for data in (b"1", b"2", b"3"):
        arrives(turn, handled.append, data)
    assert handled == []
    await ticks(1)
    assert handled == [b"1", b"2", b"3"]

    arrives(turn, handled.append, b"4")
    await ticks(1)
    assert handled == [b"1", b"2", b"3", b"4"]


async def test_what_arrives_while_others_are_handled_is_handled_with_them() -> None:
    """Once, like everything."""
    turn, handled = Turn(), list[bytes]()

    def handle(data: bytes) -> None:
        handled.append(data)
        if data == b"1":
            arrives(turn, handle, b"3")

    arrives(turn, handle, b"1")
    arrives(turn, handle, b"2")
    await ticks(3)

    assert handled == [b"1", b"2", b"3"]
    assert not turn


async def test_an_error_of_one_is_no_others() -> None:
    """It is the loop's to report; the others are handled in its next turn."""
    turn, handled, reported = Turn(), list[bytes](), list[object]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
    error = RuntimeError("a bug")

    def fails(_data: bytes) -> None:
        raise error

    arrives(turn, handled.append, b"1")
    arrives(turn, fails, b"2")
    arrives(turn, handled.append, b"3")
    await ticks(2)

    assert handled == [b"1", b"3"]
    assert reported == [error]
