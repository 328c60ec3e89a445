"""Dialling: from the URL of a store to connections with its servers.

One server: `redis://`, `rediss://` (TLS), `unix://`. Sentinel: `redis+sentinel://[user:pass@]host:port,…/service`, with
`sentinel_username` and `sentinel_password` in the query for the sentinels' own account. Cluster: `redis+cluster://
[user:pass@]host:port,…`. Both also with `rediss+`, which is TLS to every server and every sentinel. redis-py reads what
the rest of the URL says, and makes the connections; it never tries anything twice.
"""

from __future__ import annotations

from typing import Any, Literal, Self
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from msgspec import Struct
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from actors.adapters.valkey.lane import CONNECT_DEADLINE_S

Kind = Literal["one", "sentinel", "cluster"]
REDIS_PORT, SENTINEL_PORT = 6379, 26379
_SENTINEL_FIELDS = ("sentinel_username", "sentinel_password")


class Address(Struct, frozen=True, order=True):
    """Where a server or a sentinel listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class StoreUrl(Struct, frozen=True, kw_only=True):
    """A store's URL, read. `parts` are redis-py's arguments for a connection to a server of the store, `sentinel` those
    for one to a sentinel; `seeds` are what the URL names: sentinels, or some of a cluster's servers."""

    kind: Kind
    parts: dict[str, Any]
    seeds: tuple[Address, ...] = ()
    service: str = ""
    sentinel: dict[str, Any] = {}

    @classmethod
    def read(cls, url: str) -> Self:
        """Raises ValueError for a URL that names no server."""
        split = urlsplit(url)
        scheme, plus, kind = split.scheme.partition("+")
        if not plus:
            return cls(kind="one", parts=dict(parse_url(url)))
        query = dict(parse_qsl(split.query))
        own = {field: query.pop(field) for field in _SENTINEL_FIELDS if field in query}
        account, at, _ = split.netloc.rpartition("@")
        seeds = _addresses(split, SENTINEL_PORT if kind == "sentinel" else REDIS_PORT)
        parts = dict(parse_url(f"{scheme}://{account}{at}any?{urlencode(query)}"))
        del parts["host"]
        if kind == "cluster":
            return cls(kind="cluster", parts=parts, seeds=seeds)
        sentinel: dict[str, Any] = {name.removeprefix("sentinel_"): value for name, value in own.items()}
        if scheme == "rediss":
            sentinel |= {name: value for name, value in parts.items() if name.startswith("ssl_")}
            sentinel["ssl"] = True
        service = unquote(split.path.strip("/"))
        return cls(kind="sentinel", parts=parts, seeds=seeds, service=service, sentinel=sentinel)


class Dialler:
    """Makes connections to the servers of one store, under the name `client_name`."""

    def __init__(self, url: StoreUrl, client_name: str) -> None:
        parts = dict(url.parts)
        self._kind: type[AbstractConnection] = parts.pop("connection_class", None) or (
            UnixDomainSocketConnection if "path" in parts else Connection
        )
        if issubclass(self._kind, Connection | SSLConnection):
            parts.setdefault("socket_keepalive", True)
        self._parts: dict[str, Any] = {
            **parts,
            "protocol": 3,
            "legacy_responses": False,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_DEADLINE_S,
            "client_name": client_name,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }

    def dial(self, address: Address | None = None) -> AbstractConnection:
        """A connection, not made yet, to the server the URL names or to another one."""
        if address is None:
            return self._kind(**self._parts)
        return self._kind(**self._parts | {"host": address.host, "port": address.port})


def _addresses(split: SplitResult, default_port: int) -> tuple[Address, ...]:
    found = []
    for place in split.netloc.rpartition("@")[2].split(","):
        each = urlsplit(f"//{place}")
        if not each.hostname:
            raise ValueError("a store's URL names its servers as host:port,host:port")
        found.append(Address(each.hostname, each.port or default_port))
    return tuple(found)
