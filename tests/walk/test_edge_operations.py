"""What a node says of itself over HTTP: health, readiness, metrics and the API's document."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.edge import EdgeServer


@pytest.fixture(name="server")
async def fixture_server() -> AsyncIterator[EdgeServer]:
    """A running server with nothing but the routes of operations."""
    async with EdgeServer() as server:
        yield server


@pytest.fixture(name="client")
async def fixture_client(server: EdgeServer) -> AsyncIterator[ClientSession]:
    """A client of it."""
    async with ClientSession(server.make_url("/")) as client:
        yield client


async def test_the_root_says_who_answers(client: ClientSession) -> None:
    """The fields of the older service."""
    async with client.get("/") as response:
        answer = await response.json()
    assert answer.pop("message")
    assert answer == {"status": "healthy", "docs": "/docs", "monitoring": "/monitoring", "version": "0.0.1"}


async def test_health_names_what_is_away(server: EdgeServer, client: ClientSession) -> None:
    """200 while the store answers, 503 when it does not."""
    async with client.get("/health") as response:
        assert (response.status, await response.json()) == (
            200,
            {
                "service": "buzon",
                "status": "healthy",
                "port": 8000,
                "redis": "connected",
                "postgres": "unused",
                "version": "0.0.1",
                "node": "node-1",
                "timestamp": "2027-01-15T08:00:00.250000Z",
            },
        )
    server.state.connected = False
    async with client.get("/health") as response:
        answer = await response.json()
    assert (response.status, answer["status"], answer["redis"]) == (503, "unhealthy", "away")
    assert answer["away"] == ["redis"]
    server.state.cache = False
    async with client.get("/health") as response:
        assert (await response.json())["away"] == ["redis", "cache"]
    server.state.connected, server.state.cache = True, True
    async with client.get("/health") as response:
        assert (response.status, (await response.json())["cache"]) == (200, "connected")


async def test_readiness_gives_its_reasons_and_liveness_has_none(server: EdgeServer, client: ClientSession) -> None:
    """A node that cannot work is alive all the same."""
    async with client.get("/readyz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ready"})
    async with client.get("/readyz?verbose") as response:
        assert await response.json() == {"status": "ready", "reasons": [], "node": "node-1"}
    server.state.connected = False
    server.state.reasons = ("the store is away", "draining")
    async with client.get("/readyz") as response:
        assert response.status == 503
        assert (await response.json())["reasons"] == ["the store is away", "draining"]
    async with client.get("/livez") as response:
        assert (response.status, await response.json()) == (200, {"status": "alive"})


async def test_metrics_are_negotiated(client: ClientSession) -> None:
    """Plain Prometheus text by default, OpenMetrics when asked for."""
    async with client.get("/metrics", headers={"Accept": "*/*"}) as response:
        assert response.headers["Content-Type"].startswith("text/plain")
        assert "buzon_messages_accepted_total 0.0" in await response.text()
    wanted = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    async with client.get("/metrics", headers=wanted) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        text = await response.text()
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]  # the parser has no types
    assert "buzon_loop_lag_seconds" in {family.name for family in families}


async def test_the_document_is_valid_complete_and_cached(client: ClientSession) -> None:
    """Every route is in it; with its tag it need not be sent again."""
    async with client.get("/openapi.json") as response:
        document = await response.json()
        tag = response.headers["ETag"]
    OpenAPIV31SpecValidator(document).validate()
    assert set(document["paths"]) == {
        "/",
        "/health",
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/redoc",
    }
    for known in (tag, f'"other", {tag}', "*"):
        async with client.get("/openapi.json", headers={"If-None-Match": known}) as response:
            assert (response.status, await response.read(), response.headers["ETag"]) == (304, b"", tag)
    for stale in ('"other"', 'W/"other"', "garbage"):
        async with client.get("/openapi.json", headers={"If-None-Match": stale}) as response:
            assert response.status == 200


async def test_every_operation_answers_head(client: ClientSession) -> None:
    """Probes use it."""
    for path in ("/", "/health", "/livez", "/readyz", "/metrics", "/docs", "/redoc", "/openapi.json"):
        async with client.head(path) as response:
            assert (response.status, await response.read()) == (200, b"")
