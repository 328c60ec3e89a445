"""The benchmark's inventory: commands and queries as prepared bytes, and whether an answer is the right one.

One command in five makes an inventory; the others add a line to one of those that are there already. What is read is
never written, so that every answer about it is known. Three ranges of ids, all filled alike: `inventory_history.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct

PATH = "/inventario"
RANGE = 1000
READ, WRITTEN, WATCHED = 1000, 2000, 3000
"""The first ids of those that are read, those that get lines, and those whose projection is waited for."""
LINES = 5
CANTIDAD = 3
LATEST = date(2090, 1, 1)
"""The lower its id, the later an inventory expires, and all of these later than what commands make."""
EXPIRES = "2030-06-30"
PAGE = 20
MAKES_EVERY = 5
EVENT_ID = "evt_" + "0" * 32
"""One in length."""

InventoryKind: TypeAlias = Literal["command", "list", "one", "after"]


class InventorySpec(Struct, frozen=True, kw_only=True, tag="inventory"):
    """Requests of one kind. `constant`: a server that answers the same to all. `after`: an event the projection has."""

    kind: InventoryKind
    constant: bool = False
    after: str = ""


class NewInventory(Struct, frozen=True):
    """What is posted to make one, as a server has to see it."""

    cliente: str
    fecha_caducidad: date | None = None


class NewLine(Struct, frozen=True):
    """What is posted to add a line."""

    producto: str
    cantidad: int


class Made(Struct, frozen=True):
    """The answer to the first."""

    id: int
    cliente: str
    total_items: int
    event_id: str


class Added(Struct, frozen=True):
    """The answer to the second."""

    id: int
    inventario_id: int
    producto: str
    cantidad: int
    event_id: str


class Row(Struct, frozen=True):
    """An inventory of the projection."""

    inventario_id: int
    cliente: str
    total_items: int
    fecha_caducidad: date | None


class Line(Struct, frozen=True):
    """One of its lines."""

    id: int
    producto: str
    cantidad: int


class Detail(Row, frozen=True):
    """The same with all of them."""

    lineas: list[Line]


def makes(number: int) -> bool:
    """Whether command `number` makes an inventory."""
    return number % MAKES_EVERY == 0


def command(number: int, first: int = WRITTEN) -> tuple[str, dict[str, str | int]]:
    """Path and document of command `number`; lines go to the range that begins with `first`."""
    if makes(number):
        return PATH, {"cliente": f"Cliente {number:09d}", "fecha_caducidad": EXPIRES}
    return f"{PATH}/{first + number % RANGE}/linea", {"producto": f"Tuerca M8 {number:09d}", "cantidad": CANTIDAD}


def seeded(number: int) -> Row:
    """What the projection has of an inventory that was there from the start."""
    expires = LATEST - timedelta(days=number - READ)
    return Row(number, f"Cliente {number:09d}", LINES * CANTIDAD, expires)


def sample_made() -> bytes:
    """What making one is answered, in length: for the handler that does nothing."""
    return msgspec.json.encode({"id": READ, **command(0)[1], "total_items": 0, "event_id": EVENT_ID})


def sample_added() -> bytes:
    """What adding a line is answered, in length."""
    answer = {"id": 100_000, "inventario_id": WRITTEN, **command(1)[1], "event_id": EVENT_ID}
    return msgspec.json.encode(answer)


def sample_list() -> bytes:
    """What a page is answered."""
    return msgspec.json.encode([seeded(READ + place) for place in range(PAGE)])


def sample_one() -> bytes:
    """What one inventory is answered."""
    lines = [Line(10_000 + number, f"Tuerca M8 {number:09d}", CANTIDAD) for number in range(LINES)]
    return msgspec.json.encode(Detail(**msgspec.structs.asdict(seeded(READ)), lineas=lines))


def builder(spec: InventorySpec, port: int) -> Callable[[int], bytes]:
    """A function from a request's number to its bytes."""
    if spec.kind == "command":
        return lambda number: _post(*command(number), port)
    after = f"?after={spec.after}" if spec.kind == "after" else ""
    paths = [f"{PATH}/{READ + each}{after}" for each in range(RANGE)]
    prepared = [_get(path, port) for path in ([f"{PATH}?limit={PAGE}"] if spec.kind == "list" else paths)]
    return lambda number: prepared[number % len(prepared)]


def complaint(spec: InventorySpec, number: int, answer: bytes) -> str:
    """What is wrong with the answer to request `number`; "" when it is right."""
    body = answer.partition(b"\r\n\r\n")[2]
    try:
        right = spec.constant or _CHECKS[spec.kind](number, body)
    except msgspec.MsgspecError as error:
        return f"{error}: {body[:200]!r}"
    return "" if right else f"not the answer to request {number}: {body[:300]!r}"


def _post(path: str, document: dict[str, str | int], port: int) -> bytes:
    body = json.dumps(document, separators=(",", ":"))
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _get(path: str, port: int) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


decode_made = msgspec.json.Decoder(Made).decode
decode_added = msgspec.json.Decoder(Added).decode
decode_one = msgspec.json.Decoder(Detail).decode
_decode_list = msgspec.json.Decoder(list[Row]).decode


def _is_done(number: int, body: bytes) -> bool:
    path, document = command(number)
    if makes(number):
        made = decode_made(body)
        return (made.cliente, made.total_items) == (document["cliente"], 0) and bool(made.event_id)
    added = decode_added(body)
    as_posted = {"producto": added.producto, "cantidad": added.cantidad} == document
    return as_posted and path == f"{PATH}/{added.inventario_id}/linea" and bool(added.event_id)


def _is_list(_number: int, body: bytes) -> bool:
    return _decode_list(body) == [seeded(READ + place) for place in range(PAGE)]


def _is_one(number: int, body: bytes) -> bool:
    found = decode_one(body)
    expected = Detail(**msgspec.structs.asdict(seeded(READ + number % RANGE)), lineas=found.lineas)
    return found == expected and [line.cantidad for line in found.lineas] == [CANTIDAD] * LINES


_CHECKS: Mapping[InventoryKind, Callable[[int, bytes], bool]] = {
    "command": _is_done,
    "list": _is_list,
    "one": _is_one,
    "after": _is_one,
}
