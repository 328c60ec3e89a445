"""Banner: what a person is told when the node is ready, and the one line when it could not start.

Only words: prints nothing, and never holds a secret.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from actors.core.refusals import CannotStart
from router.__about__ import __version__
from router.listening import http_url
from router.settings import Settings
from router.store_url import redacted_url

START_ERRORS = (CannotStart, OSError)
"""What a node may fail with before it is ready."""


def ready_lines(settings: Settings, addresses: Sequence[tuple[str, int]], store: str = "") -> list[str]:
    """Say where the node listens (`addresses`: the bound ones), where the data is, where the docs are, how to stop.

    `store` names the engine and its version as the store told it, such as `Valkey 9.1.2`.
    """
    urls = [http_url(host, port) for host, port in addresses]
    if settings.redis_url is None:
        place = f"{settings.data_dir} (embedded {store or 'Valkey'}, append-only file synced every second)"
    else:
        place = f"{redacted_url(settings.redis_url)}{f' ({store})' if store else ''}"
    several = settings.workers > 1 and settings.worker is None
    who = f"{settings.workers} workers" if several else f"node {settings.node_id}"
    lines = [
        f"{settings.app_name} {__version__} is ready ({who})",
        f"  listening  {'  '.join(urls)}",
        f"  data       {place}",
    ]
    if urls:
        lines.append(f"  docs       {urls[0]}/docs")
    return [*lines, "  stop       Ctrl-C or SIGTERM: finishes what it has begun; nothing that was accepted is lost"]


def start_error_line(error: BaseException) -> str | None:
    """The one line for an error that a person can mend; None for one that needs its traceback."""
    if isinstance(error, OSError):
        disk = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        return f"DATA_DIR: cannot write: {error.strerror}" if disk else None
    return str(error) if isinstance(error, CannotStart) else None
