"""Engine account: as which user PostgreSQL runs, since it refuses to be root.

Changes nothing by itself and makes no user. Where the node is not root there is nothing to decide.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from actors.adapters.engine_process import EngineFailed

ACCOUNTS = ("buzon", "nobody")
"""The first of these that the machine has; nobody else can enter the folder around its files."""


def engine_account(cluster: Path) -> tuple[int, int] | None:
    """The user and group to become, None to stay who we are. A cluster that is there already keeps its owner."""
    if os.geteuid() != 0:
        return None
    try:
        found = cluster.stat()
    except FileNotFoundError:
        pass
    else:
        if found.st_uid != 0:
            return found.st_uid, found.st_gid
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise EngineFailed(f"the embedded PostgreSQL refuses to be root, and there is no user {' or '.join(ACCOUNTS)}")
