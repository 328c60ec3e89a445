"""Operations: what people and machines that run a node ask it: health, readiness, metrics and the API's own document.

Never touches the store: it reads what the node knows already, so these answers stay quick when everything else is in
trouble. None of them needs authorisation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, Protocol

import msgspec
from aiohttp import hdrs, web
from msgspec import Struct

from actors.ports import Clock
from router.edge.docs import ASSETS, SPEC, Docs
from router.edge.handlers import endpoint, hot, response_of
from router.edge.metrics import Metrics
from router.edge.openapi import About, Document, Operation, Text, freeze
from router.edge.usecase import Call, Reply, RequestHeaders

TAG = "operations"
DOCS = "/docs"
MONITORING = "/monitoring"

_HEALTHY = 200
_AWAY = 503


class NodeStatus(Protocol):
    """What a node knows of itself. All of it at once, without waiting for anything."""

    @property
    def service(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def port(self) -> int: ...
    def store_connected(self) -> bool: ...
    def cache_connected(self) -> bool | None: ...
    def postgres(self) -> Literal["connected", "away", "unused"]: ...
    def not_ready_reasons(self) -> Sequence[str]: ...


class Welcome(Struct, frozen=True):
    """`GET /`."""

    message: str
    status: Literal["healthy"]
    docs: str
    monitoring: str
    version: str


class Health(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`GET /health`. `away` names what is missing, only when something is; `cache` is there when it has a store of its
    own."""

    service: str
    status: Literal["healthy", "unhealthy"]
    port: int
    redis: Literal["connected", "away"]
    postgres: Literal["connected", "away", "unused"]
    version: str
    node: str
    timestamp: str
    cache: Literal["connected", "away"] | None = None
    away: tuple[str, ...] = ()


class Alive(Struct, frozen=True):
    """`GET /livez`."""

    status: Literal["alive"]


class Readiness(Struct, frozen=True, omit_defaults=True):
    """`GET /readyz`. `reasons` and `node` only when asked for (`?verbose`) or when the node is not ready."""

    status: Literal["ready", "not ready"]
    reasons: tuple[str, ...] | None = None
    node: str | None = None


class ReadinessQuery(Struct, frozen=True):
    """The query of `GET /readyz`. Present without a value means yes."""

    verbose: str | None = None


class Operations:
    """The use cases of this file."""

    def __init__(self, status: NodeStatus, metrics: Metrics, clock: Clock) -> None:
        self._status = status
        self._metrics = metrics
        self._clock = clock
        self._docs = Docs()
        self._document: Document | None = None

    def freeze(self, app: web.Application, about: About) -> None:
        """Make the document of all routes; from then on `/openapi.json` serves it."""
        self._document = freeze(app, about)

    @Operation(summary="Say who answers here", tag=TAG, responses={200: Welcome})
    async def welcome(self, _call: Call) -> Reply:
        """Answer `GET /`."""
        status = self._status
        return _json(_HEALTHY, Welcome(f"{status.service} is running", "healthy", DOCS, MONITORING, status.version))

    @Operation(summary="Say what is connected", tag=TAG, responses={200: Health, 503: Health})
    async def health(self, _call: Call) -> Reply:
        """Answer `GET /health`: 503 when something the node needs is away."""
        status = self._status
        connected, cache = status.store_connected(), status.cache_connected()
        postgres = status.postgres()
        parts = {"redis": connected, "postgres": postgres != "away", "cache": cache is not False}
        away = tuple(name for name, there in parts.items() if not there)
        health = Health(
            service=status.service,
            status="unhealthy" if away else "healthy",
            port=status.port,
            redis="connected" if connected else "away",
            postgres=postgres,
            version=status.version,
            node=status.node,
            timestamp=datetime.fromtimestamp(self._clock.wall(), UTC).isoformat().replace("+00:00", "Z"),
            cache=None if cache is None else "connected" if cache else "away",
            away=away,
        )
        return _json(_AWAY if away else _HEALTHY, health)

    @Operation(summary="Say that the process runs", tag=TAG, responses={200: Alive})
    async def livez(self, _call: Call) -> Reply:
        """Answer `GET /livez`: depends on nothing."""
        return _ALIVE

    def livez_now(self, _params: Mapping[str, str], _headers: RequestHeaders) -> Callable[[], Reply]:
        """What does the same without waiting."""
        return lambda: _ALIVE

    @Operation(
        summary="Say whether the node can do work",
        tag=TAG,
        query=ReadinessQuery,
        responses={200: Readiness, 503: Readiness},
    )
    async def readyz(self, call: Call) -> Reply:
        """Answer `GET /readyz`: 503 with the reasons while it cannot, also from the moment it is told to stop."""
        reasons = tuple(self._status.not_ready_reasons())
        if reasons:
            return _json(_AWAY, Readiness("not ready", reasons, self._status.node))
        verbose = "verbose" in call.query
        return _json(_HEALTHY, Readiness("ready", (), self._status.node) if verbose else Readiness("ready"))

    @Operation(
        summary="Give the document of this API",
        tag=TAG,
        responses={200: Text("application/json"), 304: None},
    )
    async def openapi(self, request: web.Request) -> web.Response:
        """Answer `GET /openapi.json`, with a strong ETag."""
        if self._document is None:
            raise web.HTTPNotFound
        headers = {"ETag": self._document.etag, "Cache-Control": "no-cache"}
        known = {etag.value for etag in request.if_none_match or () if not etag.is_weak}
        if known & {self._document.etag.strip('"'), "*"}:
            return response_of(Reply(304, b"", headers))
        return response_of(Reply(_HEALTHY, self._document.body, headers))

    @Operation(summary="Give all metrics", tag=TAG, responses={200: Text("text/plain")})
    async def metrics(self, request: web.Request) -> web.Response:
        """Answer `GET /metrics` as Prometheus text, or OpenMetrics when `Accept` prefers it."""
        return response_of(await self._metrics.answer(request.headers.get(hdrs.ACCEPT, "")))

    @Operation(summary="Show Swagger UI", tag=TAG, responses={200: Text("text/html")})
    async def docs(self, _call: Call) -> Reply:
        """Answer `GET /docs`."""
        return self._docs.swagger()

    @Operation(summary="Show Redoc", tag=TAG, responses={200: Text("text/html")})
    async def redoc(self, _call: Call) -> Reply:
        """Answer `GET /redoc`."""
        return self._docs.redoc()

    @Operation(summary="Give a script or style of the docs", tag=TAG, responses={200: None}, include=False)
    async def asset(self, request: web.Request) -> web.Response:
        """Answer `GET /assets/{name}`."""
        accept_encoding = request.headers.get(hdrs.ACCEPT_ENCODING, "")
        return response_of(await self._docs.asset(request.match_info["name"], accept_encoding))


def register(app: web.Application, operations: Operations, about: About) -> None:
    """Add the routes; the document is made at start-up, when every other route is there too."""
    router = app.router
    router.add_get("/", endpoint(operations.welcome))
    router.add_get("/health", endpoint(operations.health))
    router.add_get("/livez", hot(endpoint(operations.livez), operations.livez_now))
    router.add_get("/readyz", endpoint(operations.readyz))
    router.add_get("/metrics", operations.metrics)
    router.add_get(SPEC, operations.openapi)
    router.add_get(DOCS, endpoint(operations.docs))
    router.add_get("/redoc", endpoint(operations.redoc))
    router.add_get(f"{ASSETS}/{{name}}", operations.asset)

    async def freeze_document(app: web.Application) -> None:
        operations.freeze(app, about)

    app.on_startup.append(freeze_document)


def _json(status: int, body: Struct) -> Reply:
    return Reply(status, msgspec.json.encode(body), {hdrs.CACHE_CONTROL: "no-store"})


_ALIVE = _json(_HEALTHY, Alive("alive"))
