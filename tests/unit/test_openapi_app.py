"""The router's own document: valid, with every route, and with examples that its decoders take."""

from __future__ import annotations

import json
from collections import Counter

import msgspec
import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from router.app import Node, openapi_document
from router.edge.body import JsonBody
from router.edge.openapi import Operation, Text, routes
from router.edge.usecase import RequestHeaders
from router.settings import load

LEFT_OUT = {
    *("/assets/{name}", "/api/cache", "/api/v1/cache"),
    *("/evolution/webhook/", "/evolution/webhook/{event}/"),
}
"""Files of the docs pages, and paths that are described with or without the slash at their end."""
LISTENING = {"/ws", "/events", "/connection/websocket"}
"""A listener has no head alone."""


@pytest.fixture(name="app")
async def fixture_app() -> web.Application:
    """The application of a node that is not started."""
    return Node(load({}).settings, "redis://127.0.0.1:6379/0", lambda _reason: None).app()


def test_the_document_is_valid() -> None:
    """By the official schema of OpenAPI 3.1, without a dialect of its own."""
    document = json.loads(openapi_document())
    OpenAPIV31SpecValidator(document).validate()
    assert "jsonSchemaDialect" not in document


async def test_every_route_is_in_the_document(app: web.Application) -> None:
    """Whoever adds a route describes it; only static files may stay out."""
    described = routes(app)
    registered = {
        (route.resource.canonical, route.method) for route in app.router.routes() if route.resource is not None
    }
    assert {(path, method) for path, method, _ in described} | {
        (path, "HEAD") for path, method, _ in described if method == "GET" and path not in LISTENING
    } == registered
    assert {path for path, _, operation in described if not operation.include} == LEFT_OUT


async def test_operation_ids_are_unique(app: web.Application) -> None:
    """Generated clients name their functions by them."""
    ids = Counter(operation.operation_id for _, _, operation in routes(app))
    assert [name for name, times in ids.items() if times > 1] == []


async def test_every_body_has_an_example_that_decodes(app: web.Application) -> None:
    """What a reader copies from the docs is accepted."""
    headers = RequestHeaders(path="/", request_id="r")
    with_body = [operation for _, _, operation in routes(app) if operation.request is not None]
    assert with_body
    for operation in with_body:
        assert operation.example is not None, operation.operation_id
        assert operation.request is not None
        JsonBody(operation.request).decode(msgspec.json.encode(operation.example), headers)


async def test_every_example_answer_fits_its_type(app: web.Application) -> None:
    """What a reader expects from the docs is what comes."""

    def fits(operation: Operation, status: int, answer: object) -> None:
        target = operation.responses[status]
        assert target is not None
        assert not isinstance(target, Text)
        msgspec.convert(answer, target)

    for _, _, operation in routes(app):
        for status, answer in operation.answers.items():
            fits(operation, status, answer)
