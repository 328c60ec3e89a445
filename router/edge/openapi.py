"""OpenAPI: the document that describes every route, made from the very Structs that decode the requests.

Owns the metadata a handler carries and the walk over an application's routes. A route without metadata is an error
at start-up, not a hole in the document. The result is frozen bytes; nothing is computed per request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from aiohttp import hdrs, web
from msgspec import Struct

from router.edge.errors import PROBLEM_JSON, Problem, ProblemBody, render
from router.edge.idempotency import HEADER as IDEMPOTENCY_KEY
from router.edge.idempotency import KEY_CHARACTERS_MAX
from router.edge.usecase import JSON

F = TypeVar("F", bound=Callable[..., object])
Node = dict[str, Any]

VERSION = "3.1.0"
_ATTRIBUTE = "__openapi__"
_SCHEMA_REF = "#/components/schemas/{name}"
_PROBLEM = {"$ref": _SCHEMA_REF.format(name=ProblemBody.__name__)}
_BAD_INPUT, _CONFLICT, _TOO_LARGE, _NOT_JSON = 400, 409, 413, 415


class Text(Struct, frozen=True):
    """An answer that is not JSON."""

    media_type: str


class Operation(Struct, frozen=True, kw_only=True):
    """What the document says of one route. Use it as a decorator on the handler or its use case.

    `request` is the Struct its body decodes to, `query` the one its query does, `responses` the Struct (or `Text`, or
    `None` for no body) of each success, `errors` the statuses that are its own beside those its shape implies, `path`
    what each path parameter means. `operation_id` defaults to the function's name.
    """

    summary: str
    tag: str
    responses: Mapping[int, type | Text | None]
    description: str = ""
    operation_id: str = ""
    request: type | None = None
    query: type | None = None
    path: Mapping[str, str] = msgspec.field(default_factory=dict)
    errors: tuple[int, ...] = ()
    idempotent: bool = False
    example: object = None
    answers: Mapping[int, object] = msgspec.field(default_factory=dict)
    include: bool = True

    def __call__(self, handler: F) -> F:
        """Attach this description to the handler."""
        named = self if self.operation_id else msgspec.structs.replace(self, operation_id=handler.__name__)
        setattr(handler, _ATTRIBUTE, named)
        return handler


class Undocumented(Exception):
    """A route carries no `Operation`, or two routes claim one operation id. The message is one line naming it."""


class About(Struct, frozen=True, kw_only=True):
    """What the document says of the whole API. `tags` in the order that the pages show them."""

    title: str
    version: str
    description: str
    tags: Mapping[str, str]


class Document(Struct, frozen=True):
    """The document as it is served."""

    body: bytes
    etag: str


def carry(source: object, target: Callable[..., object]) -> None:
    """Give a handler the description of the use case that it stands for."""
    described = described_by(source)
    if described is not None:
        described(target)


def described_by(handler: object) -> Operation | None:
    """The description that a handler carries."""
    found = getattr(handler, _ATTRIBUTE, None)
    return found if isinstance(found, Operation) else None


def freeze(app: web.Application, about: About) -> Document:
    """The document of all routes as bytes. Raises `Undocumented`."""
    body = msgspec.json.encode(build(app, about))
    return Document(body, f'"{sha256(body).hexdigest()[:32]}"')


def build(app: web.Application, about: About) -> Node:
    """The document of all routes. Raises `Undocumented`."""
    documented = list(_documented(app))
    schemas = _Schemas([operation for _, _, operation in documented])
    paths: Node = {}
    for path, method, operation in documented:
        paths.setdefault(path, {})[method.lower()] = _operation(path, operation, schemas)
    _check_unique(paths)
    return {
        "openapi": VERSION,
        "info": {"title": about.title, "version": about.version, "description": about.description},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in about.tags.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": _problems(documented),
            "parameters": {"IdempotencyKey": _IDEMPOTENCY_PARAMETER},
            "headers": {"RequestId": _REQUEST_ID_HEADER},
        },
    }


def routes(app: web.Application) -> list[tuple[str, str, Operation]]:
    """Path template, method and description of every route, also of those that the document leaves out."""
    found: dict[tuple[str, str], Operation] = {}
    for route in app.router.routes():
        resource = route.resource
        if resource is None:
            continue
        operation = described_by(route.handler)
        if operation is None:
            raise Undocumented(f"{route.method} {resource.canonical} has no description")
        found[resource.canonical, route.method] = operation
    return [
        (path, method, operation)
        for (path, method), operation in found.items()
        # aiohttp adds a HEAD to every GET; the document speaks of those that somebody wrote.
        if not (method == hdrs.METH_HEAD and found.get((path, hdrs.METH_GET)) is operation)
    ]


def _documented(app: web.Application) -> list[tuple[str, str, Operation]]:
    return [entry for entry in routes(app) if entry[2].include]


class _Schemas:
    """The JSON Schemas of all Structs in use, and references to them."""

    def __init__(self, operations: list[Operation]) -> None:
        bodies = [ProblemBody, *(each.request for each in operations if each.request is not None)]
        for each in operations:
            bodies += [found for found in each.responses.values() if found is not None and not isinstance(found, Text)]
        queries = [each.query for each in operations if each.query is not None]
        unique = list(dict.fromkeys(bodies))
        refs, self.components = msgspec.json.schema_components(unique, ref_template=_SCHEMA_REF)
        self._refs = dict(zip(unique, refs, strict=True))
        self._queries = {query: _object_schema(query) for query in queries}

    def ref(self, target: type) -> Node:
        """The reference to (or, for a type without a name, the schema of) a body."""
        return self._refs[target]

    def parameters(self, query: type) -> list[Node]:
        """One parameter per field of a query Struct."""
        schema = self._queries[query]
        return [
            _parameter("query", name, _nullless(field), required=name in schema["required"])
            for name, field in schema["properties"].items()
        ]


def _object_schema(target: type) -> Node:
    (ref,), components = msgspec.json.schema_components([target], ref_template=_SCHEMA_REF)
    schema: Node = components[ref["$ref"].rpartition("/")[2]]
    return schema


def _nullless(schema: Node) -> Node:
    """An optional parameter is left out, never null."""
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name != "anyOf" and value is not None}
    if len(choices) == 1:
        return {**choices[0], **rest}
    return {**rest, "anyOf": choices} if choices else rest


def _parameter(where: str, name: str, schema: Node, *, required: bool) -> Node:
    parameter: Node = {"name": name, "in": where, "required": required, "schema": schema}
    if text := schema.pop("description", ""):
        parameter["description"] = text
    return parameter


def _operation(path: str, operation: Operation, schemas: _Schemas) -> Node:
    names = [part.partition("}")[0] for part in path.split("{")[1:]]
    if unknown := set(operation.path) - set(names):
        raise Undocumented(f"{path} has no parameter {', '.join(sorted(unknown))}")
    parameters = [
        _parameter("path", name, {"type": "string", "description": operation.path.get(name, "")}, required=True)
        for name in names
    ]
    if operation.query is not None:
        parameters += schemas.parameters(operation.query)
    if operation.idempotent:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    node: Node = {"operationId": operation.operation_id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        node["description"] = operation.description
    if parameters:
        node["parameters"] = parameters
    if operation.request is not None:
        content: Node = {"schema": schemas.ref(operation.request)}
        if operation.example is not None:
            content["example"] = operation.example
        node["requestBody"] = {"required": True, "content": {JSON: content}}
    node["responses"] = _responses(operation, schemas)
    return node


def _responses(operation: Operation, schemas: _Schemas) -> Node:
    responses: Node = {}
    for status, target in operation.responses.items():
        response: Node = {
            "description": HTTPStatus(status).phrase,
            "headers": {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}},
        }
        if isinstance(target, Text):
            response["content"] = {target.media_type: {"schema": {"type": "string"}}}
        elif target is not None:
            content: Node = {"schema": schemas.ref(target)}
            if status in operation.answers:
                content["example"] = operation.answers[status]
            response["content"] = {JSON: content}
        responses[str(status)] = response
    for status in sorted(_error_statuses(operation) - set(operation.responses)):
        responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    responses["default"] = {"$ref": "#/components/responses/Problem"}
    return responses


def _error_statuses(operation: Operation) -> set[int]:
    statuses = set(operation.errors)
    if operation.request is not None:
        statuses |= {_BAD_INPUT, _TOO_LARGE, _NOT_JSON}
    if operation.query is not None:
        statuses.add(_BAD_INPUT)
    if operation.idempotent:
        statuses |= {_BAD_INPUT, _CONFLICT}
    return statuses


def _problems(documented: list[tuple[str, str, Operation]]) -> Node:
    statuses = {status for _, _, operation in documented for status in _error_statuses(operation)}
    content: Node = {"schema": _PROBLEM}
    problems: Node = {"Problem": {"description": "Any other error", "content": {PROBLEM_JSON: content}}}
    for status in sorted(statuses):
        phrase = HTTPStatus(status).phrase
        example = msgspec.json.decode(render(Problem(status, phrase.lower()), path="/", request_id="req_1").body)
        problems[f"Problem{status}"] = {
            "description": phrase,
            "content": {PROBLEM_JSON: {**content, "example": example}},
        }
    return problems


def _check_unique(paths: Node) -> None:
    seen: dict[str, str] = {}
    for path, methods in paths.items():
        for method, operation in methods.items():
            name, here = operation["operationId"], f"{method.upper()} {path}"
            if not name or name in seen:
                raise Undocumented(f"{here} and {seen.get(name, 'nothing')} share the operation id {name!r}")
            seen[name] = here


_REQUEST_ID_HEADER: Node = {
    "description": "The id of the request: the caller's own if it sent one, else one made here.",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_PARAMETER: Node = {
    "name": IDEMPOTENCY_KEY,
    "in": "header",
    "required": False,
    "description": "The same key with the same body gives the first answer again; with another body, 409.",
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS_MAX},
}
