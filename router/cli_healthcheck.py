"""Healthcheck: asks a node on this machine whether it can do work. Standard library only, so that it starts fast."""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from router.listening import http_url
from router.settings import Settings

TIMEOUT_S = 2.0


def ready_url(settings: Settings) -> str | None:
    """Where the node of these settings listens; None when the kernel picked its port."""
    return http_url(settings.host, settings.ports[0]) if settings.ports[0] else None


def not_ready_reason(url: str) -> str:
    """Empty when `GET /readyz` answers 200, else one line that says why not."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return f"not ready: {url} does not answer ({error})"
    finally:
        connection.close()
    return "" if status == 200 else f"not ready: {url}/readyz answers {status}"  # noqa: PLR2004  HTTP's own number
