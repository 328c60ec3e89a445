"""Debian's webdis, the HTTP front of Redis in C: started on a store of ours with one HTTP thread and a file of its own.

Where it is not installed there is nothing to compare with; `make test-packages` installs it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.support.valkey import ValkeyServer

NAME = "webdis"
PROBE = "/PING"


def binary() -> str | None:
    """The program, if this machine has it."""
    return shutil.which(NAME)


def command(program: str, directory: Path, store: ValkeyServer, port: int) -> list[str]:
    """How to run it. One thread; two connections to the store (its default, and as fast as one or four [measured])."""
    config = directory / "webdis.json"
    config.write_text(
        json.dumps(
            {
                "redis_host": str(store.socket_path),  # a path is a Unix socket to it, and the node has no other either
                "redis_port": 0,
                "database": 0,
                "http_host": "127.0.0.1",
                "http_port": port,
                "threads": 1,
                "daemonize": False,
                "verbosity": 0,
                "logfile": str(directory / "webdis.log"),
                "acl": [{"disabled": ["DEBUG"]}],
            }
        )
    )
    return [program, str(config)]
