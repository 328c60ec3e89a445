"""Problems: the exact members and headers of every error answer."""

from __future__ import annotations

import msgspec
import pytest

from actors.core.json_limits import BadField
from actors.ports import Overloaded, StoreAway
from router.edge.errors import (
    BadInput,
    Conflict,
    NotFound,
    NotJson,
    Problem,
    TooLarge,
    TryLater,
    problem_of,
    render,
)


def members(problem: Problem, path: str = "/api/v1/message") -> dict[str, object]:
    """The rendered body."""
    decoded: dict[str, object] = msgspec.json.decode(render(problem, path=path, request_id="req_1").body)
    return decoded


def test_a_problem_has_all_its_members() -> None:
    """RFC 9457's five, plus `error` for older clients, the request's id and the field."""
    assert members(BadInput("$.buffer.max_size", "expected `int` >= 1")) == {
        "type": "urn:buzon:problem:bad-input",
        "title": "Bad Request",
        "status": 400,
        "detail": "$.buffer.max_size: expected `int` >= 1",
        "instance": "/api/v1/message",
        "error": "$.buffer.max_size: expected `int` >= 1",
        "request_id": "req_1",
        "pointer": "$.buffer.max_size",
    }


@pytest.mark.parametrize(
    ("problem", "status", "slug"),
    [
        (BadInput("$", "no"), 400, "bad-input"),
        (NotFound("no"), 404, "not-found"),
        (Conflict("no"), 409, "conflict"),
        (TooLarge(10), 413, "too-large"),
        (NotJson(), 415, "not-json"),
        (TryLater("no"), 503, "try-later"),
        (Problem(500, "no"), 500, "internal"),
    ],
)
def test_each_kind_has_its_status_and_type(problem: Problem, status: int, slug: str) -> None:
    """The type is stable: programs may compare it."""
    reply = render(problem, path="/", request_id="r")
    assert reply.status == status == members(problem)["status"]
    assert members(problem)["type"] == f"urn:buzon:problem:{slug}"
    assert reply.headers is not None
    assert reply.headers["Content-Type"] == "application/problem+json"


def test_a_status_without_a_type_of_ours_is_blank() -> None:
    """RFC 9457: `about:blank` means that the status says it all."""
    assert members(Problem(418, "no"))["type"] == "about:blank"
    assert members(Problem(499, "no"))["title"] == "Error"


def test_extra_members_come_along_but_replace_nothing() -> None:
    """The older clients' `message` and `key` live beside the standard members."""
    problem = NotFound("no such key", extra={"message": "Clave no encontrada", "key": "ñ", "status": 200})
    rendered = members(problem)
    assert (rendered["message"], rendered["key"], rendered["status"]) == ("Clave no encontrada", "ñ", 404)


@pytest.mark.parametrize("failure", [StoreAway(), Overloaded(), TimeoutError("inner detail"), TryLater("x", 1)])
def test_what_may_pass_asks_to_try_later(failure: StoreAway | Overloaded | TimeoutError | Problem) -> None:
    """503 with `Retry-After`, and nothing of the exception's own text."""
    reply = render(problem_of(failure), path="/", request_id="r")
    assert reply.status == 503
    assert reply.headers is not None
    assert reply.headers["Retry-After"] == "1"
    assert b"inner" not in reply.body


def test_a_bad_field_is_bad_input() -> None:
    """What the pure code refuses becomes a 400 that names the field."""
    rendered = members(problem_of(BadField("$.payload.a", "cannot be joined")))
    assert (rendered["status"], rendered["detail"]) == (400, "$.payload.a: cannot be joined")


@pytest.mark.parametrize(
    ("path", "instance"),
    [
        ("/a%20b", "/a%20b"),
        ("/\udcff\udcfe", "/%FF%FE"),
        ('/"<script>', "/%22%3Cscript%3E"),
        ("/ñ", "/%C3%B1"),
    ],
)
def test_the_instance_is_always_a_uri_reference(path: str, instance: str) -> None:
    """Whatever bytes the request line held."""
    assert members(NotFound("no"), path)["instance"] == instance
