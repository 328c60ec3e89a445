"""Question: a connection that nobody shares yet: its making, and commands on it, each within the reply deadline.

uvloop raises RuntimeError when something is written to a connection that has ended meanwhile, where asyncio's own loop
says nothing. Here that is what it is: not connected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as NotConnected

from actors.adapters.valkey.wire import REPLY_DEADLINE_S


async def connect(connection: AbstractConnection) -> None:
    """Make it, with all that redis-py says first. Raises what redis-py raises; the time is the caller's to bound."""
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it without types
    except RuntimeError as error:
        raise NotConnected(str(error)) from error


async def ask(connection: AbstractConnection, *command: Any) -> Any:
    """Run one command; gives its raw reply. Raises what redis-py raises, TimeoutError when it takes too long."""
    return (await ask_all(connection, (command,)))[0]


async def ask_all(connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Run commands in one go. After an error the connection is of no more use."""
    async with asyncio.timeout(REPLY_DEADLINE_S):
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        except RuntimeError as error:
            raise NotConnected(str(error)) from error
        return [await connection.read_response(disable_decoding=True) for _ in commands]
