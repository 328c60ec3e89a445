"""OpenAPI: the document is valid, complete, and made of the Structs that decode the requests."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from actors.core.policy import Message
from router.edge.body import JsonBody
from router.edge.errors import ProblemBody
from router.edge.handlers import body_endpoint, endpoint
from router.edge.openapi import Operation, Text, Undocumented, build, freeze, routes
from router.edge.paging import Page
from router.edge.usecase import Call, Reply, RequestHeaders
from tests.support.edge import ABOUT

SEED_EXAMPLE = {
    "webhook": {
        "url": "https://api.example.com/webhook",
        "method": "POST",
        "headers": {"Authorization": "Bearer token123"},
    },
    "buffer": {
        "key": "user123@domain.net",
        "wait_time": 20,
        "aggregate_field": "json.input.data.query",
        "max_size": 5,
    },
    "payload": {"json": {"input": {"data": {"query": "mensaje de ejemplo"}}}},
}


class Accepted(msgspec.Struct):
    """An answer."""

    message_id: str


class Listing(Page, frozen=True, kw_only=True):
    """A query with a filter."""

    key: str | None = None


@Operation(
    summary="Take a message",
    tag="buffers",
    request=Message,
    responses={200: Accepted},
    errors=(503,),
    idempotent=True,
    example=SEED_EXAMPLE,
    answers={200: {"message_id": "msg_1"}},
)
async def accept(_body: bytes, _headers: RequestHeaders) -> Reply:
    """Answer `POST /api/v1/message`."""
    return Reply(200, b"{}")


@Operation(
    summary="Show one",
    tag="buffers",
    query=Listing,
    responses={200: Accepted, 404: Accepted},
    path={"key": "Its key."},
    errors=(404,),
)
async def show(_call: Call) -> Reply:
    """Answer `GET /api/v1/buffers/{key}`."""
    return Reply(200, b"{}")


@Operation(summary="A picture", tag="buffers", responses={200: Text("image/png")}, include=False)
async def picture(_call: Call) -> Reply:
    """Answer `GET /picture`."""
    return Reply(200, b"")


@pytest.fixture(name="app")
def fixture_app() -> web.Application:
    """An application with a route of each kind."""
    app = web.Application()
    app.router.add_post("/api/v1/message", body_endpoint(accept))
    app.router.add_get("/api/v1/buffers/{key:.+}", endpoint(show))
    app.router.add_get("/picture", endpoint(picture))
    return app


def test_the_document_is_valid(app: web.Application) -> None:
    """By the official schema of OpenAPI 3.1."""
    document = build(app, ABOUT)
    OpenAPIV31SpecValidator(document).validate()
    assert document["openapi"].startswith("3.1.")
    assert "jsonSchemaDialect" not in document


def test_requests_are_described_by_the_struct_that_decodes_them(app: web.Application) -> None:
    """Limits and strictness come from the type, not from a copy."""
    document = build(app, ABOUT)
    operation = document["paths"]["/api/v1/message"]["post"]
    content = operation["requestBody"]["content"]["application/json"]
    assert content["schema"] == {"$ref": "#/components/schemas/Message"}
    options = document["components"]["schemas"]["BufferOptions"]
    assert options["additionalProperties"] is False
    assert options["properties"]["max_size"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5}
    assert operation["operationId"] == "accept"


def test_the_example_decodes() -> None:
    """What the document shows is accepted by the decoder."""
    headers = RequestHeaders(path="/", request_id="r")
    message = JsonBody(Message).decode(msgspec.json.encode(SEED_EXAMPLE), headers)
    assert message.buffer.key == "user123@domain.net"


def test_parameters_come_from_path_query_and_headers(app: web.Application) -> None:
    """Each with its type; an optional one is never null."""
    document = build(app, ABOUT)
    shown: list[dict[str, Any]] = document["paths"]["/api/v1/buffers/{key}"]["get"]["parameters"]
    by_place = {(each["in"], each["name"]): each for each in shown}
    assert set(by_place) == {("path", "key"), ("query", "limit"), ("query", "cursor"), ("query", "key")}
    assert by_place["path", "key"]["required"] is True
    assert by_place["query", "limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    assert by_place["query", "key"]["schema"] == {"type": "string"}
    assert by_place["query", "cursor"]["description"]
    posted = document["paths"]["/api/v1/message"]["post"]["parameters"]
    assert posted == [{"$ref": "#/components/parameters/IdempotencyKey"}]


def test_every_error_is_a_problem(app: web.Application) -> None:
    """The shape of a route implies its 4xx; any other error is a problem too."""
    document = build(app, ABOUT)
    responses = document["paths"]["/api/v1/message"]["post"]["responses"]
    assert set(responses) == {"200", "400", "409", "413", "415", "503", "default"}
    for status, response in responses.items():
        if status != "200":
            name = response["$ref"].rpartition("/")[2]
            content = document["components"]["responses"][name]["content"]
            assert set(content) == {"application/problem+json"}
            problem = content["application/problem+json"]
            assert problem["schema"] == {"$ref": "#/components/schemas/ProblemBody"}
            if status != "default":
                assert msgspec.convert(problem["example"], ProblemBody).status == int(status)
    shown = document["paths"]["/api/v1/buffers/{key}"]["get"]["responses"]
    assert shown["404"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Accepted"}


def test_every_route_is_in_it_unless_it_says_otherwise(app: web.Application) -> None:
    """HEAD comes with GET and is not written twice."""
    document = build(app, ABOUT)
    assert {path for path, _, _ in routes(app)} == {"/api/v1/message", "/api/v1/buffers/{key}", "/picture"}
    assert set(document["paths"]) == {"/api/v1/message", "/api/v1/buffers/{key}"}
    assert set(document["paths"]["/api/v1/buffers/{key}"]) == {"get"}


def test_a_route_without_a_description_stops_the_start(app: web.Application) -> None:
    """In one line that names it."""

    async def forgotten(_request: web.Request) -> web.Response:
        return web.Response()

    app.router.add_put("/forgotten", forgotten)
    with pytest.raises(Undocumented, match=r"^PUT /forgotten has no description$"):
        build(app, ABOUT)


def test_two_routes_cannot_share_an_operation_id(app: web.Application) -> None:
    """Generated clients would lose one of them."""
    app.router.add_post("/elsewhere", body_endpoint(accept))
    with pytest.raises(Undocumented, match="'accept'"):
        build(app, ABOUT)


def test_a_described_parameter_must_exist() -> None:
    """A typo in a description is found at start-up."""
    app = web.Application()
    app.router.add_get("/x/{id}", endpoint(show))
    with pytest.raises(Undocumented, match="key"):
        build(app, ABOUT)


def test_the_frozen_document_has_a_stable_tag(app: web.Application) -> None:
    """Two nodes of one version agree."""
    frozen = freeze(app, ABOUT)
    assert frozen == freeze(app, ABOUT)
    assert frozen.etag.startswith('"')
    assert msgspec.json.decode(frozen.body) == build(app, ABOUT)
