"""Fresh: what the process that owns the embedded engine clears up before its first node joins.

Whoever holds the lock of the data folder knows that no node of an earlier start is alive, so nobody has to wait until
their beats are found to stand still. Never called while nodes live: not after a crash of the engine alone.
"""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from actors.adapters.valkey.keys import NODES
from actors.core.refusals import CannotStart

ANSWER_S = 5.0


class EngineUnfit(CannotStart):
    """The embedded engine runs but does not do what it is told."""


def forget_nodes(url: str) -> None:
    """Take away the records of all nodes. Blocks for one round trip; `EngineUnfit` when that fails."""
    try:
        with redis.Redis.from_url(url, socket_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0)) as client:
            client.delete(NODES)
    except redis.RedisError as error:
        raise EngineUnfit(f"DATA_DIR: the embedded Valkey does not answer: {error}") from None
