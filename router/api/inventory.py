"""Inventory: the routes of commands and queries (the HTTP contract, section 7).

From bytes to a command for the inventory and from its answer to bytes. Decides nothing about inventories.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from actors.core.ids import IdSource, derived_event_id, is_event_id
from actors.core.inventory import CANTIDAD_MAX, TEXT_CHARACTERS_MAX, is_fecha, is_text
from actors.inventory import Inventory, NotThere, UnknownEvent
from actors.inventory_ports import EventIdTaken, Linea, NoSuchInventory, Resumen
from router.edge.body import JsonBody
from router.edge.errors import BadInput, Conflict, NotFound, TryLater
from router.edge.handlers import endpoint
from router.edge.idempotency import Idempotency
from router.edge.openapi import Operation
from router.edge.paging import LIMIT_DEFAULT, LIMIT_MAX
from router.edge.query import Query
from router.edge.usecase import Call, Reply

TAG = "inventory"
ABOUT = "The CQRS inventory: commands write, a projection is read."
ID_PATH = {"id": "The inventory's number."}
OFFSET_MAX = 1_000_000
NEAR_HEAD = "Cache-Status: buzon; hit\r\n"
"""Of what is answered while the database is away (RFC 9211)."""
_ID = re.compile(r"[1-9][0-9]{0,18}")
_ID_MAX = 2**63 - 1


class NuevoInventario(Struct, frozen=True, kw_only=True):
    """The body of `POST /inventario`."""

    cliente: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARACTERS_MAX)]
    fecha_caducidad: date | None = None


class NuevaLinea(Struct, frozen=True, kw_only=True):
    """The body of `POST /inventario/{id}/linea`."""

    producto: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARACTERS_MAX)]
    cantidad: Annotated[int, Meta(ge=1, le=CANTIDAD_MAX)]


class InventarioCreado(Struct, frozen=True):
    """The inventory is stored; `event_id` names its event, for `?after=`."""

    id: int
    cliente: str
    fecha_caducidad: date | None
    total_items: int
    event_id: str


class LineaCreada(Struct, frozen=True):
    """The line is stored."""

    id: int
    inventario_id: int
    producto: str
    cantidad: int
    event_id: str


class Eliminado(Struct, frozen=True):
    """The inventory and its lines are gone."""

    id: int
    event_id: str


class InventarioDetalle(Struct, frozen=True, kw_only=True):
    """An inventory as the projection has it, with its lines."""

    inventario_id: int
    cliente: str
    total_items: int
    fecha_caducidad: date | None
    lineas: list[Linea]


class ListQuery(Struct, frozen=True, kw_only=True):
    """The query of `GET /inventario`. `after`: wait until the projection has this event."""

    limit: Annotated[int, Meta(ge=1, le=LIMIT_MAX)] = LIMIT_DEFAULT
    offset: Annotated[int, Meta(ge=0, le=OFFSET_MAX)] = 0
    after: str | None = None


class OneQuery(Struct, frozen=True, kw_only=True):
    """The query of `GET /inventario/{id}`."""

    after: str | None = None


_CREATE = JsonBody(NuevoInventario)
_LINE = JsonBody(NuevaLinea)
_LIST = Query(ListQuery)
_ONE = Query(OneQuery)
_encode = msgspec.json.Encoder().encode


class InventoryRoutes:
    """The use cases of this file."""

    def __init__(self, inventory: Inventory, idempotency: Idempotency, ids: IdSource) -> None:
        self._inventory = inventory
        self._idempotency = idempotency
        self._ids = ids

    @Operation(
        summary="Make an inventory",
        tag=TAG,
        request=NuevoInventario,
        responses={201: InventarioCreado},
        errors=(503,),
        idempotent=True,
        example={"cliente": "Ana", "fecha_caducidad": "2027-01-31"},
    )
    async def create_inventory(self, call: Call) -> Reply:
        """Answer `POST /inventario`."""
        wish = _CREATE.decode(call.body, call.headers)
        _check_text(wish.cliente, "$.cliente")
        if not is_fecha(wish.fecha_caducidad):
            raise BadInput("$.fecha_caducidad", "is not between 0001-01-02 and 9999-12-30")

        async def create(scope: str | None) -> Reply:
            outcome = await self._inventory.create(self._event_id(scope), wish.cliente, wish.fecha_caducidad)
            if isinstance(outcome, EventIdTaken):
                raise _taken()
            made = InventarioCreado(outcome.id, wish.cliente, wish.fecha_caducidad, 0, outcome.event_id)
            return Reply(201, _encode(made), {"Location": f"/inventario/{outcome.id}"})

        return await self._once(call, "/inventario", create)

    @Operation(
        summary="Add a line to an inventory",
        tag=TAG,
        path=ID_PATH,
        request=NuevaLinea,
        responses={201: LineaCreada},
        errors=(404, 503),
        idempotent=True,
        example={"producto": "tuerca", "cantidad": 12},
    )
    async def add_line(self, call: Call) -> Reply:
        """Answer `POST /inventario/{id}/linea`."""
        wish = _LINE.decode(call.body, call.headers)
        _check_text(wish.producto, "$.producto")
        inventario_id = _id(call)

        async def add(scope: str | None) -> Reply:
            outcome = await self._inventory.add_line(self._event_id(scope), inventario_id, wish.producto, wish.cantidad)
            if isinstance(outcome, NoSuchInventory):
                raise _unknown()
            if isinstance(outcome, EventIdTaken):
                raise _taken()
            made = LineaCreada(outcome.id, inventario_id, wish.producto, wish.cantidad, outcome.event_id)
            return Reply(201, _encode(made))

        return await self._once(call, f"/inventario/{inventario_id}/linea", add)

    @Operation(
        summary="Remove an inventory and its lines",
        tag=TAG,
        path=ID_PATH,
        responses={200: Eliminado},
        errors=(404, 503),
    )
    async def delete_inventory(self, call: Call) -> Reply:
        """Answer `DELETE /inventario/{id}`."""
        outcome = await self._inventory.delete(self._event_id(None), _id(call))
        if isinstance(outcome, NoSuchInventory):
            raise _unknown()
        if isinstance(outcome, EventIdTaken):
            raise _taken()
        return Reply(200, _encode(Eliminado(outcome.id, outcome.event_id)))

    @Operation(
        summary="List inventories, newest expiry first",
        tag=TAG,
        query=ListQuery,
        responses={200: list[Resumen]},
        errors=(404, 503),
    )
    async def list_inventories(self, call: Call) -> Reply:
        """Answer `GET /inventario`."""
        query = _LIST.decode(call.query)
        try:
            rows = await self._inventory.page(query.limit, query.offset, _event(query.after))
        except (UnknownEvent, NotThere) as error:
            raise _not_there(error) from None
        return Reply(200, _encode(rows), head=self._head())

    @Operation(
        summary="Look at one inventory",
        tag=TAG,
        path=ID_PATH,
        query=OneQuery,
        responses={200: InventarioDetalle},
        errors=(404, 503),
    )
    async def get_inventory(self, call: Call) -> Reply:
        """Answer `GET /inventario/{id}`."""
        query = _ONE.decode(call.query)
        try:
            found = await self._inventory.detail(_id(call), _event(query.after))
        except (UnknownEvent, NotThere) as error:
            raise _not_there(error) from None
        if found is None:
            raise _unknown()
        row = found.resumen
        shown = InventarioDetalle(
            inventario_id=row.inventario_id,
            cliente=row.cliente,
            total_items=row.total_items,
            fecha_caducidad=row.fecha_caducidad,
            lineas=list(found.lineas),
        )
        return Reply(200, _encode(shown), head=self._head())

    async def _once(self, call: Call, path: str, run: Callable[[str | None], Awaitable[Reply]]) -> Reply:
        """Run under the caller's key, if there is one. The key is that of the route, however its path was written."""
        return await self._idempotency.once("POST", call.body, msgspec.structs.replace(call.headers, path=path), run)

    def _head(self) -> str:
        """More header lines of a query's answer."""
        return NEAR_HEAD if self._inventory.away else ""

    def _event_id(self, scope: str | None) -> str:
        return self._ids.event_id() if scope is None else derived_event_id(scope)


def register(app: web.Application, routes: InventoryRoutes) -> None:
    """Add the routes."""
    router = app.router
    router.add_post("/inventario", endpoint(routes.create_inventory))
    router.add_get("/inventario", endpoint(routes.list_inventories))
    router.add_get("/inventario/{id}", endpoint(routes.get_inventory))
    router.add_delete("/inventario/{id}", endpoint(routes.delete_inventory))
    router.add_post("/inventario/{id}/linea", endpoint(routes.add_line))


def _check_text(text: str, pointer: str) -> None:
    if not is_text(text):
        raise BadInput(pointer, "says nothing, or holds a NUL")


def _id(call: Call) -> int:
    text = call.params["id"]
    if not _ID.fullmatch(text) or int(text) > _ID_MAX:
        raise _unknown()
    return int(text)


def _event(after: str | None) -> str | None:
    if after is not None and not is_event_id(after):
        raise BadInput("after", "is no event's id")
    return after


def _unknown() -> NotFound:
    return NotFound("there is no such inventory")


def _taken() -> Conflict:
    return Conflict("the idempotency key was used for another command")


def _not_there(error: UnknownEvent | NotThere) -> NotFound | TryLater:
    if isinstance(error, UnknownEvent):
        return NotFound("there is no such event")
    return TryLater("the projection does not have this event yet")
