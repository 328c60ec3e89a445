"""Origins: which web pages may open a connection that stays (RFC 6454, RFC 6455 section 10.2).

A browser lets any page open a WebSocket to any server and says whose page it is; nobody but the server looks at that.
A request without `Origin` is no browser's. Pages of this server's own host may always.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

ANY = "*"
_PORTS = {"http": "80", "https": "443"}


def may_open(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Whether a page of this origin ("" for none) may; `host` is the request's `Host`, `allowed` are origins in lower
    case, or `*`."""
    if not origin or ANY in allowed:
        return True
    origin = origin.lower()
    if origin in allowed:
        return True
    scheme, _, netloc = origin.partition("://")
    if scheme not in _PORTS or not netloc:
        return False
    try:
        page, server = urlsplit(f"//{netloc}"), urlsplit(f"//{host.lower()}")
        # Behind a proxy that ends TLS the page's scheme is not the one that is seen here: the host decides.
        port = str(page.port or _PORTS[scheme])
        ports = {str(server.port)} if server.port else set(_PORTS.values())
    except ValueError:
        return False
    return bool(page.hostname) and page.hostname == server.hostname and port in ports
