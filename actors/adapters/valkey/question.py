"""Question: commands on a connection that nobody shares yet, each within the reply deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection

from actors.adapters.valkey.wire import REPLY_DEADLINE_S


async def ask(connection: AbstractConnection, *command: Any) -> Any:
    """Run one command; gives its raw reply. Raises what redis-py raises, TimeoutError when it takes too long."""
    return (await ask_all(connection, (command,)))[0]


async def ask_all(connection: AbstractConnection, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Run commands in one go. After an error the connection is of no more use."""
    async with asyncio.timeout(REPLY_DEADLINE_S):
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        return [await connection.read_response(disable_decoding=True) for _ in commands]
