"""Store URL: which stores a URL can name, and how such a URL is shown.

Pure. Says whether a URL is well formed, never whether somebody answers there; what its parts mean to a client is the
store adapter's affair. Raises `ValueError` that never repeats the URL: it may carry a password.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from router.values import Secret, host, port

SECRET_QUERY = frozenset({"password", "sentinel_password", "ssl_keyfile_password"})
"""Parts that nobody should read, besides the password of the account."""
QUERY = frozenset(
    {"db", "username", "password", "ssl_ca_certs", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile"}
    | {"ssl_keyfile_password", "sentinel_username", "sentinel_password"}
)
"""What may stand behind the question mark; anything else is a slip that would only show when nothing connects."""


def store_url(text: str) -> Secret:
    """A Redis URL: one server (`redis`, `rediss`, `unix`), or several (`+sentinel`, `+cluster`). Secret, as it may
    carry a password."""
    url = text.strip()
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _STORES and _STORES[parts.scheme](parts) and _is_query(parts)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(
            "expected redis://host:port/db, unix:///path?db=0, redis+sentinel://host:port,host:port/service or "
            "redis+cluster://host:port,host:port (rediss for TLS)"
        )
    return Secret(url)


def _is_query(parts: SplitResult) -> bool:
    given = parse_qsl(parts.query, keep_blank_values=True)
    for_tls = any(name.startswith("ssl_") for name, _ in given)
    databases = [value for name, value in given if name == "db"]
    return (
        {name for name, _ in given} <= QUERY
        and (not for_tls or parts.scheme.startswith("rediss"))
        and all(re.fullmatch(r"[0-9]{1,5}", each) for each in databases)
    )


def _is_server(parts: SplitResult) -> bool:
    port_valid = parts.port is None or parts.port > 0
    return port_valid and bool(parts.hostname) and bool(re.fullmatch(r"(/[0-9]{0,5})?", parts.path))


def _is_socket(parts: SplitResult) -> bool:
    account_only = not parts.netloc or parts.netloc.endswith("@")  # unix://tmp/x would lose its first folder
    return account_only and len(parts.path) > 1


def _is_sentinel(parts: SplitResult) -> bool:
    service = re.fullmatch(r"/[A-Za-z0-9_.-]{1,64}", parts.path)
    return service is not None and _are_hosts(parts)


def _is_cluster(parts: SplitResult) -> bool:
    databases = {value for name, value in parse_qsl(parts.query) if name == "db"}
    return parts.path in ("", "/", "/0") and databases <= {"0"} and _are_hosts(parts)


def _are_hosts(parts: SplitResult) -> bool:
    return all(_is_place(text) for text in parts.netloc.rpartition("@")[2].split(","))


def _is_place(text: str) -> bool:
    name, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        return bool(host(text))
    return bool(host(name)) and port(number) > 0


_STORES = {
    "redis": _is_server,
    "rediss": _is_server,
    "unix": _is_socket,
    "redis+sentinel": _is_sentinel,
    "rediss+sentinel": _is_sentinel,
    "redis+cluster": _is_cluster,
    "rediss+cluster": _is_cluster,
}


def redacted_url(url: str) -> str:
    """The URL without its password, for people to read."""
    parts = urlsplit(url)
    account, at, place = parts.netloc.rpartition("@")
    name, colon, _ = account.partition(":")
    query = [(key, "***" if key in SECRET_QUERY else value) for key, value in parse_qsl(parts.query)]
    netloc = f"{name}{':***' if colon else ''}{at}{place}"
    return urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe="*"), ""))
