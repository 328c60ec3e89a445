"""Bodies: from the bytes of a request to a typed Struct, or to a problem that names the field.

One decoder per Struct, made once at import. The order is from cheap to dear: media type, size of nesting and
integers, UTF-8, then the decode itself. Nothing the caller sent is ever repeated in an answer but the name of a field.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Generic, TypeVar

import msgspec
from msgspec import inspect

from actors.core.json_limits import check_limits
from router.edge.errors import BadInput, NotJson
from router.edge.usecase import JSON, RequestHeaders

T = TypeVar("T")

_AT = re.compile(r"(.*) - at `(.+)`", re.DOTALL)
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_SAFE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
_OFFSET = re.compile(r"\(byte (\d+)\)$")
_STEP = re.compile(r"\.([^.\[]+)|\[[^\]]*\]")
_TOP = "$"


class JsonBody(Generic[T]):
    """Decodes bodies into one Struct."""

    def __init__(self, target: type[T]) -> None:
        self.target = target
        self._decoder = msgspec.json.Decoder(target)

    def decode(self, body: bytes, headers: RequestHeaders) -> T:
        """The typed body. Raises `NotJson` (415), `BadInput` or `JsonLimit` (400)."""
        check(body, headers)
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise rejection(error, self.target) from None
        except msgspec.DecodeError as error:
            raise BadInput(_TOP, _malformed(str(error))) from None
        except RecursionError:
            raise BadInput(_TOP, "the body is nested too deeply") from None


def check(body: bytes, headers: RequestHeaders) -> None:
    """What holds of every body before it is decoded. Raises `NotJson` (415), `BadInput` or `JsonLimit` (400)."""
    check_type(headers)
    if not body:
        raise BadInput(_TOP, "a JSON body is required")
    check_limits(body)
    if not body.isascii():
        try:
            body.decode()  # the decoder does not look inside a payload that is kept raw
        except UnicodeDecodeError as error:
            raise BadInput(_TOP, f"the body is not UTF-8 (byte {error.start})") from None


def check_type(headers: RequestHeaders) -> None:
    """What holds of every body's headers. Raises `NotJson` (415)."""
    if headers.content_type != JSON and not is_json(headers.content_type):
        raise NotJson
    if _is_compressed(headers):
        raise NotJson("the body must not be compressed")


def announces_json(headers: RequestHeaders) -> bool:
    """Whether `check_type` lets these headers pass."""
    return is_json(headers.content_type) and not _is_compressed(headers)


def _is_compressed(headers: RequestHeaders) -> bool:
    """Whether the body has another coding than itself."""
    return headers.content_encoding != "" and headers.content_encoding.lower() != "identity"


@lru_cache(maxsize=256)
def is_json(content_type: str) -> bool:
    """Whether a Content-Type header (or its absence, "") announces JSON in UTF-8 (RFC 8259, RFC 6839)."""
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    if media_type not in ("", JSON, "text/json") and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        return False
    charsets = [value.strip(' "') for name, _, value in (p.partition("=") for p in parameters) if name == "charset"]
    return all(charset in ("utf-8", "utf8") for charset in charsets)


def rejection(error: msgspec.ValidationError, target: object, top: str = _TOP) -> BadInput:
    """What a decoder's complaint means to the client, with its field and without the value.

    `top` is what a path starts with in the answer: `$` in a body, "" for the parameters of a query.
    """
    message, pointer = str(error), _TOP
    if at := _AT.fullmatch(message):
        message, pointer = at.groups()
    if field := _FIELD.fullmatch(message):
        problem, name = field.groups()
        known = problem == "missing required"
        if known or _SAFE_NAME.fullmatch(name):
            return BadInput(_renamed(f"{pointer}.{name}", top), "is required" if known else "is not a known field")
        return BadInput(_renamed(pointer, top), "has an unknown field")
    return BadInput(_renamed(pointer, top), _without_value(message, target, pointer))


def _renamed(pointer: str, top: str) -> str:
    return top + pointer[1:] if top else pointer.removeprefix("$").removeprefix(".")


def _without_value(message: str, target: object, pointer: str) -> str:
    if message.startswith("Invalid enum value"):
        allowed = _allowed(inspect.type_info(target), pointer)
        return f"must be one of {', '.join(allowed)}" if allowed else "is not one of the allowed values"
    if " matching regex " in message:
        return "has characters that are not allowed here"
    if "'" in message or '"' in message:
        return "is not valid"
    return message[:1].lower() + message[1:]


def _allowed(node: inspect.Type, pointer: str) -> list[str]:
    """The values of the literal that `pointer` leads to, from the type that the decoder was made of."""
    for step in _STEP.finditer(pointer):
        node = _step(node, step.group(1))
    literals = [choice for choice in _choices(node) if isinstance(choice, inspect.LiteralType)]
    return [str(value) for literal in literals for value in literal.values]


def _step(node: inspect.Type, name: str | None) -> inspect.Type:
    for choice in _choices(node):
        if name is not None and isinstance(choice, inspect.StructType):
            return next((field.type for field in choice.fields if field.encode_name == name), inspect.AnyType())
        if name is None and isinstance(choice, inspect.ListType):
            return choice.item_type
        if name is None and isinstance(choice, inspect.DictType):
            return choice.value_type
    return inspect.AnyType()


def _choices(node: inspect.Type) -> tuple[inspect.Type, ...]:
    if isinstance(node, inspect.Metadata):
        return _choices(node.type)
    return node.types if isinstance(node, inspect.UnionType) else (node,)


def _malformed(message: str) -> str:
    offset = _OFFSET.search(message)
    where = f"byte {offset.group(1)}" if offset else "it ends early"
    return f"the body is not valid JSON ({where})"
